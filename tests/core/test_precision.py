from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.core.precision import float32_products

backends: Any = torch.backends


def switches() -> dict[str, Any]:
    """All of torch's switches, old and new; the old ones raise where the new ones contradict them."""
    found = {
        f"{kind} {name}": getattr(getattr(backends, kind), name).fp32_precision
        for kind, names in {"cudnn": ("conv", "rnn"), "mkldnn": ("conv", "rnn", "matmul")}.items()
        for name in names
    }
    return found | {
        "gpu matmul": backends.cuda.matmul.fp32_precision,
        "old": torch.get_float32_matmul_precision(),
        "old gpu matmul": backends.cuda.matmul.allow_tf32,
        "old cudnn": backends.cudnn.allow_tf32,
    }


@pytest.mark.skipif(not hasattr(backends.cudnn, "conv"), reason="this torch has the old switches alone")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(
    "set_by_user",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(backends.cudnn, "allow_tf32", False),
    ],
)
def test_old_and_new_switches_agree_inside_and_are_put_back(tf32: bool, set_by_user: Callable[[], None]) -> None:
    cudnn, matmul = backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        set_by_user()
        before = switches()
        with float32_products(tf32=tf32):
            inside = switches()
            with float32_products():
                assert not any(switches()[name] for name in ("old gpu matmul", "old cudnn"))
            assert switches() == inside
        assert switches() == before
    finally:
        torch.set_float32_matmul_precision(matmul)
        backends.cudnn.allow_tf32 = cudnn
    assert inside["old gpu matmul"] is inside["old cudnn"] is tf32
    assert {inside[name] for name in ("cudnn conv", "cudnn rnn", "gpu matmul")} == {"tf32" if tf32 else "ieee"}
    assert {value for name, value in inside.items() if name.startswith("mkldnn")} == {"ieee"}
