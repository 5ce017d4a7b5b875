"""The Python API: its documented examples run, and it says what the command line says."""

from __future__ import annotations

import dataclasses
import doctest
import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench
import bench.api
from bench.core.errors import BenchError
from bench.leaderboard.table import read_leaderboard
from tests.conftest import Bench

Images = tuple[Tensor, Tensor]


def test_the_documented_examples_are_true() -> None:
    outcome = doctest.testmod(bench.api)
    assert outcome.attempted >= 11 and outcome.failed == 0


def test_import_bench_loads_no_torch_and_knows_its_names() -> None:
    code = "import sys, bench; assert 'torch' not in sys.modules; assert set(bench.__all__) <= set(dir(bench))"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in bench.__all__:
        assert getattr(bench, name) is getattr(bench.api, name)
    with pytest.raises(AttributeError):
        bench.evaluat  # noqa: B018


def test_evaluate_says_what_the_command_line_says(
    tmp_path: Path, tiny_suite: Path, standard: nn.Module, bench: Bench
) -> None:
    from bench import evaluate

    assert bench("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path)[0] == 0
    rows = read_leaderboard(tmp_path)
    by_name = evaluate("standard", tiny_suite)
    in_memory = evaluate(standard, tiny_suite, model_id="mine", batch_size=7)
    for result in (by_name, in_memory):
        assert list(result.frame["value"].round(6)) == list(rows["value"].round(6))
        assert list(result.frame["metric"]) == list(rows["metric"])
    assert in_memory.records.equals(by_name.records)
    assert (by_name.model, in_memory.model, by_name.folder) == ("fashion_mnist/standard", "fashion_mnist/mine", None)


def test_evaluate_keeps_rows_and_evidence_where_it_is_told(tmp_path: Path, tiny_suite: Path) -> None:
    result = bench.evaluate(
        "standard", bench.load_suite("tiny", suite_path=tiny_suite.parent), examples=3, leaderboard=tmp_path
    )
    assert result.folder is not None and (result.folder / "examples.parquet").is_file()
    assert set(read_leaderboard(tmp_path)["n_examples"]) == {3}


def test_a_net_in_memory_is_left_as_it_was(tiny_suite: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.5)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    bench.evaluate(net, tiny_suite, examples=2)
    assert net.training and all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_net_that_fails_only_under_attack_is_said_to_in_one_line(tiny_suite: Path, at_linf: nn.Module) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = at_linf

        def forward(self, images: Tensor) -> Tensor:
            levels = images * 255
            if float((levels - levels.round()).abs().max()) > 1e-3:
                raise ValueError("not an image")
            return self.net(images)

    with pytest.raises(BenchError, match=r"in_memory failed on perturbed images \(ValueError: not an image\)"):
        bench.evaluate(Picky(), tiny_suite, examples=10)


def test_a_result_shows_plots_and_answers(tiny_suite: Path) -> None:
    mpl.use("Agg")
    from rich.console import Console

    result = bench.evaluate("standard", "tiny", suite_path=tiny_suite.parent, examples=5)
    assert result.value("robust_accuracy", norm="linf", eps=0.05) <= result.value("clean_accuracy")
    with pytest.raises(BenchError, match=r"norm linf is not one row; name eps of 0\.05, 0\.1"):
        result.value("robust_accuracy", norm="linf")
    with pytest.raises(BenchError, match=r"norm linf, eps 0\.03 is not one row; name .*eps of 0\.05, 0\.1"):
        result.value("robust_accuracy", norm="linf", eps=0.03)
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(result)
    for shown in (console.export_text(), repr(result), result._repr_html_()):
        assert "robust_accuracy" in shown and "fashion_mnist/standard under tiny" in shown
    with pytest.raises(BenchError, match="did you mean robust_accuracy"):
        result.value("robust")
    for other in (result, dataclasses.replace(result, model="another", suite="another")):
        with pytest.raises(BenchError, match="cannot be told apart or compared"):
            result.plot(other)
    with pytest.raises(BenchError, match="width -1 is not from 1 to 40 inches"):
        result.plot(width=-1)
    other = dataclasses.replace(result, model="another")
    only_clean = [dataclasses.replace(one, frame=one.frame[:1]) for one in (result, other)]
    bars = only_clean[0].plot(only_clean[1]).get_axes()
    assert [axes.get_title() for axes in bars] == ["fashion_mnist/standard", "another"]
    panels = result.plot(other, width=3.25).get_axes()
    assert [axes.get_xlabel() for axes in panels] == ["L-inf radius", "L2 radius"]
    clean, drawn = result.value("clean_accuracy"), [line for axes in panels for line in axes.get_lines()]
    assert [list(line.get_xdata()) for line in drawn] == [[0.0, 0.05, 0.1]] * 2 + [[0.0, 1.5]] * 2
    assert {line.get_ydata()[0] for line in drawn} == {clean}


def test_what_comes_from_outside_is_escaped_in_html() -> None:
    from bench.leaderboard.findings import Finding

    frame = bench.evaluate("standard", "cross_norm_quick", examples=1).frame
    frame.loc[0, "attack"] = "<script>alert(1)</script>"
    finding = Finding("x", "warning", "<img src=x>", "")
    shown = bench.Result(
        "<b>m</b>", "s", frame, frame, findings=[finding], counters={}, seconds=0.0, folder=None
    )._repr_html_()
    assert "<script>" not in shown and "<img" not in shown and "<b>m" not in shown


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 1.0), ("l1", 10.0)])
def test_attacks_are_verified_and_do_not_depend_on_the_batch(
    at_linf: nn.Module, fashion_images: Images, norm: str, eps: float
) -> None:
    images, labels = fashion_images[0][:16], fashion_images[1][:16]
    found = bench.attack(at_linf, images, labels, norm=norm, eps=eps, steps=10)
    assert bool((found.distances <= eps * (1 + 1e-6)).all())
    assert float(found.images.min()) >= 0 and float(found.images.max()) <= 1
    with torch.no_grad():
        said = at_linf(found.images).argmax(1)
    assert torch.equal(found.broken, said != labels) and torch.equal(said, found.predictions)
    delta = (found.images - images).double().flatten(1)
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    torch.testing.assert_close(delta.norm(order, dim=1), found.distances, rtol=1e-6, atol=1e-9)
    small = bench.attack(at_linf, images, labels, norm=norm, eps=eps, steps=10, batch_size=5)
    assert torch.equal(small.broken, found.broken)


def test_attribute_is_the_gradient_of_the_labels_logit(standard: nn.Module, fashion_images: Images) -> None:
    images, labels = fashion_images[0][:6], fashion_images[1][:6]
    found = bench.attribute(standard, images, labels, batch_size=4)
    inputs = images.clone().requires_grad_(True)
    standard(inputs).gather(1, labels[:, None]).sum().backward()
    torch.testing.assert_close(found, inputs.grad)
    smooth = [
        bench.attribute(standard, images, labels, method="smoothgrad", samples=3, batch_size=size) for size in (2, 6)
    ]
    torch.testing.assert_close(*smooth)
    assert not torch.allclose(smooth[0], found)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda net, x, y: bench.load_model("standrad"), "did you mean standard"),
        (lambda net, x, y: bench.load_model("*"), "models; name one"),
        (
            lambda net, x, y: bench.load_model("net.py:make", weight="w"),
            "unknown option 'weight'; did you mean weights",
        ),
        (lambda net, x, y: bench.load_suite("cross_nrom"), "did you mean cross_norm"),
        (lambda net, x, y: bench.evaluate(net, "cross_norm", weights="w"), "named by their source, not for a net"),
        (lambda net, x, y: bench.evaluate(net, "cross_norm", model_id="../x"), "not a plain name"),
        (lambda net, x, y: bench.evaluate(net, "cross_norm", executor="ray"), "a net in memory cannot go to other"),
        (lambda net, x, y: bench.evaluate("lga", "cross_norm", executor="dask"), "unknown executor 'dask'"),
        (
            lambda net, x, y: bench.evaluate("lga", "cross_norm", cpus_per_worker=2),
            "cpus_per_worker is for the executor ray",
        ),
        (lambda net, x, y: bench.attack(net, x * 255, y, norm="l2", eps=1), r"pixels in \[0, 1\]"),
        (lambda net, x, y: bench.attack(net, x, y[:2], norm="l2", eps=1), "labels"),
        (lambda net, x, y: bench.attack(net, x, y, norm="l3", eps=1), "unknown norm 'l3'"),
        (lambda net, x, y: bench.attack(net, x, y, norm="l2", eps=0), "must be positive"),
        (lambda net, x, y: bench.attribute(net, x, y, method="gradcam"), "unknown attribution method"),
        (
            lambda net, x, y: bench.attribute(net, x, y, samples=3),
            "unknown parameter of attribution method gradient 'samples'; known: none",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    standard: nn.Module, fashion_images: Images, call: object, line: str
) -> None:
    with pytest.raises(BenchError, match=line):
        call(standard, *fashion_images)


def test_a_net_in_memory_is_judged_on_a_data_set_of_ones_own(tmp_path: Path, tiny_suite: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=pixels, labels=np.arange(6) % 3)
    (tmp_path / "mine.toml").write_text('schema_version = 1\ntest = "mine.npz"\n[radii]\nreference = { linf = 0.1 }\n')
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    result = bench.evaluate(net, tiny_suite, dataset="mine", data_dir=tmp_path)
    assert set(result.frame["n_examples"]) == {6} and result.value("robust_accuracy", eps=0.1) >= 0
