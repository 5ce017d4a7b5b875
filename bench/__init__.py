"""RIBench: adversarial robustness and gradient interpretability of image classifiers, with evidence for every image.

    import bench
    result = bench.evaluate("standard", "cross_norm_quick", examples=50)

The names of bench.api are found here. They are loaded when first asked for, so that `import bench` stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import (
        AttackResult,
        BenchError,
        Result,
        attack,
        attribute,
        evaluate,
        list_models,
        load_model,
        load_suite,
    )

__version__ = "0.2.0"
__all__ = [
    "AttackResult", "BenchError", "Result", "attack", "attribute", "evaluate", "list_models", "load_model",
    "load_suite",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("bench.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
