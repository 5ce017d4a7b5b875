"""Nets of every kind that people hold: judged as what they compute, copied, or refused in one line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from bench.core.errors import BenchError
from tests.api.calls import Exotic, Few, attacked, attributed, evaluated, linear
from tests.conftest import Bench


class Keeps(nn.Module):
    """A net that keeps what nobody can copy: a lock in a list, a file, and its last output with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear()
        self.held: list[Any] = [{"lock": threading.Lock()}, (value for value in "abc")]

    def forward(self, images: Tensor) -> Tensor:
        self.last = self.net(images)
        return self.last


def ran(net: nn.Module) -> nn.Module:
    net(torch.rand(2, 1, 28, 28))
    return net


def with_layer(change: Callable[[nn.Module], object]) -> nn.Module:
    net = linear()
    change(net[1])
    return ran(net)


def frozen() -> nn.Module:
    net = linear()
    net[1].requires_grad_(False)
    return net


def of_a_subclass() -> nn.Module:
    net = linear()
    net[1].weight = nn.Parameter(net[1].weight.detach().as_subclass(Exotic))
    return net


def compiled_inside() -> nn.Module:
    flatten, layer = linear()
    return nn.Sequential(flatten, torch.compile(layer))


def exported() -> nn.Module:
    shapes = {"input": {0: torch.export.Dim("count", min=1)}}
    return torch.export.export(linear(), (torch.rand(2, 1, 28, 28),), dynamic_shapes=shapes).module()


SAME: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: with_layer(weight_norm),
    "weight_norm by parametrisation": lambda: with_layer(parametrizations.weight_norm),
    "pruned by nothing": lambda: with_layer(lambda layer: prune.identity(layer, "weight")),
    "keeps a lock and an activation": lambda: ran(Keeps()),
    "frozen": frozen,
    "of a sub-class": of_a_subclass,
    "DataParallel": lambda: nn.DataParallel(linear()),
    "compiled": lambda: torch.compile(linear()),
    "compiled inside": compiled_inside,
    "scripted": lambda: torch.jit.script(linear()),
    "traced": lambda: torch.jit.trace(linear(), torch.rand(2, 1, 28, 28)),
    "frozen script": lambda: torch.jit.freeze(torch.jit.script(linear().eval())),
    "exported": exported,
    "export in a sequence": lambda: nn.Sequential(nn.Identity(), exported()),
    "float64": lambda: linear().double(),
    "channels last": lambda: linear().to(memory_format=torch.channels_last),
}


@pytest.fixture(scope="module")
def of_linear(smallest_suite: Path) -> list[float]:
    return evaluated(linear(), smallest_suite)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SAME)
def test_the_same_function_gives_the_same_answers_whatever_net_it_is(
    kind: str, few: Few, smallest_suite: Path, of_linear: list[float]
) -> None:
    net = SAME[kind]()
    assert evaluated(net, smallest_suite) == of_linear
    torch.testing.assert_close(attacked(net, few), attacked(linear(), few))
    torch.testing.assert_close(attributed(net, few), attributed(linear(), few))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: with_layer(spectral_norm), None),
        (lambda: with_layer(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)), None),
        (lambda: linear().bfloat16(), None),
        (lambda: linear().half(), None),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), r"lazy layer.*net\(images\[:1\]\)"),
        (lambda: linear().to("meta"), "meta device, without values"),
        (lambda: torch.ao.quantization.quantize_dynamic(linear(), {nn.Linear}), "gradient"),
    ],
)
def test_other_nets_are_judged_or_refused_in_one_line(
    make: Callable[[], nn.Module], line: str | None, few: Few, smallest_suite: Path
) -> None:
    for call in (lambda net: evaluated(net, smallest_suite), lambda net: attacked(net, few)):
        if line is None:
            call(make())
        else:
            with pytest.raises(BenchError, match=line):
                call(make())


def test_a_net_that_refuses_to_be_copied_is_refused_in_one_line(few: Few) -> None:
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("no copies")

    with pytest.raises(BenchError, match=r"cannot be copied \(TypeError: no copies\).*FILE.py:FUNCTION"):
        attacked(nn.Sequential(nn.Flatten(), Stubborn(784, 10)), few)


def test_a_copy_has_memory_of_its_own_unless_it_is_to_share_its_parameters() -> None:
    from bench.nets.intake import own_net

    def places(net: nn.Module) -> tuple[set[int], set[int]]:
        return {one.data_ptr() for one in net.parameters()}, {one.data_ptr() for one in net.buffers()}

    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, 10))
    parameters, buffers = places(net)
    assert not parameters & places(own_net(net))[0]
    shared = places(own_net(net, sharing=True))
    assert shared[0] == parameters and not shared[1] & buffers


def test_a_net_that_writes_to_its_weights_writes_to_those_of_the_copy(few: Few) -> None:
    class Adapts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = linear()

        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                self.net[1].weight.mul_(0.9)
            return self.net(images)

    net = Adapts()
    attacked(net, few)
    assert torch.equal(net.net[1].weight, linear()[1].weight)


class Lambdas(nn.Module):
    """A net that holds functions of itself: its copy must not run the user's modules, which may be in another mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.net = nn.BatchNorm2d(1), nn.Dropout(0.9), linear()
        self.block = lambda images: self.dropout(self.norm(images))
        self.net.register_forward_pre_hook(lambda module, inputs: (self.block(*inputs),))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def with_another_forward() -> nn.Module:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.9), *linear())
    former = net.forward
    net.forward = lambda images: former(images)
    return net


@pytest.mark.parametrize("make", [Lambdas, with_another_forward])
def test_functions_that_a_net_holds_are_those_of_the_copy(
    make: Callable[[], nn.Module], few: Few, smallest_suite: Path
) -> None:
    net = make().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    expected = nn.Sequential(nn.BatchNorm2d(1), *linear())
    assert evaluated(net, smallest_suite) == evaluated(expected, smallest_suite)
    torch.testing.assert_close(attacked(net, few), attacked(expected, few))
    torch.testing.assert_close(attributed(net, few), attributed(expected, few))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["DataParallel", "compiled inside", "scripted", "export in a sequence", "float64"])
def test_a_program_may_make_any_of_these_nets(
    kind: str, tmp_path: Path, smallest_suite: Path, of_linear: list[float]
) -> None:
    program = tmp_path / "net.py"
    program.write_text(f"from tests.api.test_kinds_of_nets import SAME\n\ndef make():\n    return SAME[{kind!r}]()\n")
    assert evaluated(f"{program}:make", smallest_suite) == of_linear


def test_the_command_line_refuses_a_programs_net_in_the_same_line(
    tmp_path: Path, smallest_suite: Path, bench: Bench
) -> None:
    program = tmp_path / "net.py"
    program.write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))\n"
    )
    line = bench.refused("run", "--model", f"{program}:make", "--suite", smallest_suite, "--leaderboard", tmp_path)
    assert "lazy layer that has not seen an image" in line
