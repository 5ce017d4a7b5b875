"""Packages that only some sources of models need: imported when asked for, one clear line where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from bench.core.errors import BenchError


def optional_import(module: str, what: str, install: str) -> Any:
    """Import `module`.

    Args:
        what: what needs it, the subject of the error line, e.g. `a timm model`.
        install: what pip should install.

    Raises:
        BenchError: it is not installed or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BenchError(
            f"{what} needs the package {module.split('.', 1)[0]} ({error}); install it: pip install '{install}'."
        ) from error
