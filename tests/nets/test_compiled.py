"""torch.compile for the search: what decides goes through the net as it is, and the run says how it was searched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import evaluate
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.core.precision import Precision
from bench.leaderboard.evidence.manifest import read_manifest
from bench.nets.compiled import CompiledNet, compile_net
from tests.conftest import Bench

EPS = 0.02


class Net(nn.Module):
    """Remembers how many images it was called with, outside of torch.compile."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 5, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 100.0 * self.layers(images)
        return logits


def searched(net: nn.Module, images: Tensor, precision: Precision) -> AttackResults:
    with torch.no_grad():
        labels = net(images).argmax(1)
    results = AttackResults.start(labels, labels)
    examples = Examples(net, images, labels, torch.arange(len(images)), num_classes=10, precision=precision)
    run_attack(named_attack("cascade", {}), examples, "linf", [EPS], results=results)
    return results


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile that compiles nothing, for all that is around it."""
    monkeypatch.setattr(torch, "compile", lambda call: call)


@pytest.mark.slow  # python -m pytest tests/nets/test_compiled.py -m slow
def test_a_compiled_search_breaks_what_the_net_itself_breaks_with_two_programs_for_all_sizes() -> None:
    import torch._dynamo

    net, images = Net().eval().requires_grad_(False), torch.rand(40, 1, 28, 28, generator=torch.manual_seed(1))
    torch._dynamo.utils.counters.clear()
    compile_net(net, "float32-compiled", images[:2])
    found, expected = (searched(net, images, one) for one in ("float32-compiled", "float32"))
    broken = expected.broken("linf", EPS)
    assert 0 < int(broken.sum()) < len(images)
    assert int((found.broken("linf", EPS) != broken).sum()) <= 1
    # of fewer than 16 images and of more, as torch's convolutions have it
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.usefixtures("as_it_is")
def test_only_the_search_is_compiled_and_hooks_of_the_net_see_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images, seen, compiled = Net().eval().requires_grad_(False), torch.rand(5, 1, 28, 28), [], []
    call = CompiledNet.__call__

    def counted(self: CompiledNet, plain: nn.Module, given: Tensor) -> Tensor:
        assert given.requires_grad, "verified by the plain net"
        compiled.append(len(given))
        return call(self, plain, given)

    monkeypatch.setattr(CompiledNet, "__call__", counted)
    compile_net(net, "float32-compiled", images[:2])
    compiled.clear()
    with torch.no_grad():
        labels = net(images).argmax(1)
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    results = AttackResults.start(labels, labels)
    examples = Examples(net, images, labels, torch.arange(5), num_classes=10, precision="float32-compiled")
    run_attack(named_attack("cascade", {}), examples, "linf", [EPS], results=results)
    assert sum(compiled) == results.gradient_evaluations < sum(seen)


@pytest.mark.usefixtures("as_it_is")
def test_a_run_says_that_its_search_was_compiled_and_is_no_part_of_one_that_was_not(
    bench: Bench, tmp_path: Path, tiny_suite: Path
) -> None:
    run = ("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path, "--device", "cpu")
    code, _, err = bench(*run, "--compile")
    assert code == 0 and "looked for in float32, through torch.compile, and confirmed in float32 by the net" in err
    (folder,) = (tmp_path / "runs").iterdir()
    manifest = read_manifest(folder)
    plain = evaluate("standard", tiny_suite, leaderboard=tmp_path / "plain", device="cpu")
    assert plain.folder is not None
    other = read_manifest(plain.folder)
    assert (manifest.config.precision, other.config.precision) == ("float32-compiled", "float32")
    assert manifest.config.key != other.config.key, "by which a stopped run is resumed"
    assert [one.value for one in manifest.result.metrics] == [one.value for one in other.result.metrics]


def test_a_net_that_torch_compile_cannot_take_is_searched_as_it_is_and_so_it_is_written_down(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(call: object) -> object:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(torch, "compile", fail)
    result = evaluate("standard", tiny_suite, compile=True, leaderboard=tmp_path, device="cpu")
    assert "is searched as it is, torch.compile cannot do it (RuntimeError: no such operation)" in caplog.text
    assert result.folder is not None and read_manifest(result.folder).config.precision == "float32"


@pytest.mark.parametrize(
    ("suite", "line"),
    [
        ("cross_norm_quick", "torch.compile needs a C++ compiler and there is no c+++; install it, name another one"),
        ("corruptions", "suite corruptions has no search that torch.compile is for"),
    ],
)
def test_where_nothing_can_be_compiled_it_is_said_in_a_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, suite: str, line: str
) -> None:
    if suite != "corruptions":
        monkeypatch.setenv("CXX", "c+++")
    assert line in bench.refused("run", "--model", "standard", "--device", "cpu", "--suite", suite, "--compile")
