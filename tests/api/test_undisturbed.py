"""A call leaves the user's net, torch's settings and all random states as they were, also when it fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench
from bench.attributions.registry import our_methods
from bench.core.errors import BenchError
from tests.api.calls import Few, attacked, attributed, evaluated

PROGRAM = """
import random
import numpy, torch
from torch import nn

torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
torch.set_num_threads(3)
torch.set_float32_matmul_precision("medium")
torch.use_deterministic_algorithms(True)
torch.backends.cudnn.benchmark = True
torch.manual_seed(0), numpy.random.seed(0), random.seed(0)


def make():
    torch.set_default_device("meta")
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10, device="cpu"))
"""


def settings() -> dict[str, Any]:
    """All of torch's global settings that change numbers, and every random state."""
    backends: Any = torch.backends
    precisions = {
        f"{holder}.{name}": getattr(getattr(getattr(backends, holder), name, backends), "fp32_precision", None)
        for holder in ("cudnn", "mkldnn", "cuda")
        for name in ("conv", "rnn", "matmul")
    }
    flags = {name: getattr(backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")}
    return {
        **precisions,
        **flags,
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "anomaly": torch.is_anomaly_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
        "python": random.getstate(),
    }


class Mixed(nn.Module):
    """Modules in both modes, batch-norm, a frozen layer, hooks, a gradient, and noise where it is not in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, stride=3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4 * 81, 10)
        self.train()
        self.norm.eval()
        self.head.eval()
        self.convolution.requires_grad_(False)
        self.head.weight.grad = torch.ones_like(self.head.weight)
        self.head.register_forward_hook(lambda module, args, output: output)
        with torch.no_grad():
            self.head.weight.mul_(0.01)
            self.head.bias[9] = 1.0  # the first image's class, so that there is something to attack
        self.fails: Callable[[Tensor], bool] = lambda images: False

    def forward(self, images: Tensor) -> Tensor:
        if self.fails(images):
            raise ValueError("enough")
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return self.head(self.dropout(self.norm(self.convolution(images)).relu()).flatten(1))


def condition(net: nn.Module) -> dict[str, Any]:
    """Everything about a net, module by module and tensor by tensor."""
    found: dict[str, Any] = {}
    for name, module in net.named_modules():
        hooks = [module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks]
        found[f"{name}."] = (id(module), type(module), module.training, [dict(one) for one in hooks], set(vars(module)))
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        grad = None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist())
        layout = (tensor.dtype, tensor.device, tensor.stride(), tensor.data_ptr())
        found[name] = (id(tensor), tensor.requires_grad, layout, grad, tensor.tolist())
    return found


def is_perturbed(images: Tensor) -> bool:
    return not torch.allclose((images * 255).round() / 255, images, atol=1e-6)


def asks_for_a_gradient(images: Tensor) -> bool:
    return images.requires_grad


CALLS: dict[str, Callable[[nn.Module, Few, Path], object]] = {
    "evaluate": lambda net, few, suite: evaluated(net, suite),
    "attack": lambda net, few, suite: attacked(net, few),
    **{
        method: (lambda net, few, suite, method=method: attributed(net, few, method=method))  # type: ignore[misc]
        for method in our_methods()
    },
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fails", [False, True])
def test_a_net_settings_and_random_states_are_as_they_were(
    call: str, fails: bool, few: Few, smallest_suite: Path
) -> None:
    net = Mixed()
    net.to(memory_format=torch.channels_last if fails else torch.contiguous_format)
    if fails:
        net.fails = is_perturbed if call == "evaluate" else asks_for_a_gradient
    before, around, copies = condition(net), settings(), [one.clone() for one in few]
    if fails:
        with pytest.raises(BenchError):
            CALLS[call](net, few, smallest_suite)
    else:
        CALLS[call](net, few, smallest_suite)
    assert condition(net) == before
    assert settings() == around
    assert all(torch.equal(*pair) for pair in zip(few, copies, strict=True))


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_products_are_as_precise_after_a_call_as_the_user_had_set_them(precision: str, few: Few) -> None:
    found = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    net = Mixed()
    try:
        around = settings()
        attacked(net, few)
        assert settings() == around
    finally:
        torch.set_float32_matmul_precision(found)


def test_what_a_program_sets_is_put_back(tmp_path: Path, smallest_suite: Path) -> None:
    program = tmp_path / "net.py"
    program.write_text(PROGRAM)
    around = settings()
    net = bench.load_model(f"{program}:make")
    assert settings() == around
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    evaluated(f"{program}:make", smallest_suite)
    assert settings() == around
