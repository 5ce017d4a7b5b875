"""Attribution methods of others stand in suites, panels and calls beside ours: adding one costs a file and a line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import bench as ribench
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.table import read_leaderboard
from tests.conftest import Bench

METHODS = """
import torch
from bench.attributions.registry import register_attribution

def gradient_of(model, images, targets, keep_graph=False):
    logits = model(images).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(logits, images, create_graph=keep_graph)[0]

@register_attribution("mine", differentiable=True)
def twice(model, images, targets, *, keep_graph=False, factor=2.0):
    return factor * gradient_of(model, images, targets, keep_graph)

def plain(model, images, targets):
    return gradient_of(model, images, targets)

def short(model, images, targets):
    return images[:-1]

def broken(model, images, targets):
    return images / 0

def huge(model, images, targets):
    return images.double() * 1e300

def even(model, images, targets):
    return torch.ones_like(images)

def fails(model, images, targets):
    raise KeyError("colour")
"""
SUITE = """
schema_version = 1
name = "{name}"
version = 1
protocol = "attribution_{name}"
examples = 4
[parameters]
{parameters}
attributions = [{{ name = "gradient" }}, {line}]
"""
STABILITY = 'radii = [0.05]\ndraws = 1\nmeasures = ["cosine"]\ndecomposition = false'
ATTACK = 'radii = [0.05]\nmeasures = ["cosine"]\nattacks = [{ kind = "top_k", steps = 3 }]'


def run(tmp_path: Path, line: str, *, name: str = "stability", parameters: str = STABILITY) -> tuple[object, ...]:
    (tmp_path / "maps.py").write_text(METHODS)
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE.format(name=name, parameters=parameters, line=line))
    return ("run", "--model", "standard", "--suite", suite, "--leaderboard", tmp_path / "board", "--device", "cpu")


def scores(board: Path, metric: str) -> pd.Series:
    rows = read_leaderboard(board)
    return rows[rows["metric"] == metric].set_index("subject")["value"]


def test_a_method_of_a_file_is_judged_under_its_name_and_the_file_is_in_the_evidence(
    bench: Bench, tmp_path: Path
) -> None:
    arguments = run(tmp_path, '{ name = "maps.py:twice", factor = 3.0 }')
    code, out, err = bench(*arguments, "--program", tmp_path / "maps.py")
    assert code == 0 and "maps.py:twice" in out, err
    found = scores(tmp_path / "board", "stability/cosine")
    assert found["maps.py:twice"] == pytest.approx(found["gradient"], abs=1e-6)
    (folder,) = (tmp_path / "board" / "runs").iterdir()
    assert "attribution_program" in str(read_manifest(folder))
    code, out, err = bench(
        "check", *arguments[1:5], "--baseline", tmp_path / "board", "--program", tmp_path / "maps.py"
    )
    assert code == 0, err


def test_a_differentiable_one_is_attacked_itself_and_another_by_the_gradient(bench: Bench, tmp_path: Path) -> None:
    line = '{ name = "maps.py:twice" }, { name = "maps.py:plain" }'
    code, out, err = bench(*run(tmp_path, line, name="attack", parameters=ATTACK), "--program", tmp_path / "maps.py")
    assert code == 0, err
    assert "maps.py:plain cannot be differentiated" in err + out and "maps.py:twice cannot" not in err + out
    found = scores(tmp_path / "board", "saps/cosine")
    assert found["maps.py:twice"].iloc[0] == pytest.approx(found["gradient"].iloc[0], abs=1e-5)


REFUSED = {
    "a file that was not named": (
        '{ name = "maps.py:plain" }',
        "runs only when you name the file yourself (--program)",
    ),
    "an unknown function": ('{ name = "maps.py:plane" }', "has no function 'plane'"),
    "an unknown parameter": (
        '{ name = "maps.py:twice", fctor = 1.0 }',
        "unknown parameter of attribution method maps.py:twice 'fctor'; did you mean factor",
    ),
    "a parameter of another type": ('{ name = "maps.py:twice", factor = "much" }', "factor: input should be a valid"),
    "a wrong shape": ('{ name = "maps.py:short" }', "maps.py:short returned maps of shape"),
    "no numbers": ('{ name = "maps.py:broken" }', "maps.py:broken returned NaN or infinite maps"),
    "numbers that are none in float32": ('{ name = "maps.py:huge" }', "maps.py:huge returned NaN or infinite maps"),
    "an exception": ('{ name = "maps.py:fails" }', "maps.py:fails failed: KeyError: 'colour'."),
    "an unknown name": ('{ name = "gradeint" }', "unknown attribution method 'gradeint'; did you mean gradient"),
    "no name": ("{ steps = 3 }", "give the name of an attribution method"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_one_gets_one_line_before_any_work(bench: Bench, tmp_path: Path, case: str) -> None:
    line, message = REFUSED[case]
    program = () if case == "a file that was not named" else ("--program", tmp_path / "maps.py")
    said = bench.refused(*run(tmp_path, line), *program)
    assert message in said and not said.endswith(("?.", ".."))
    assert not (tmp_path / "board").exists()


def test_a_panel_and_a_call_from_python_take_one_where_it_is_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "maps.py").write_text(METHODS)
    method, output = f"{tmp_path / 'maps.py'}:twice", tmp_path / "panel.png"
    code, _, err = bench("saliency", "--method", method, "--model", "standard", "--attack", "random_sign",
                           "--image", 0, "--output", output)  # fmt: skip
    assert code == 0 and output.is_file(), err
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images, labels = torch.rand(2, 1, 28, 28), torch.tensor([3, 4])
    plain = ribench.attribute(net, images, labels)
    torch.testing.assert_close(ribench.attribute(net, images, labels, method=method, factor=4.0), 4 * plain)

    def half(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return images / 2

    torch.testing.assert_close(ribench.attribute(net, images, labels, method=half), images / 2)


def test_maps_with_one_value_everywhere_are_told(bench: Bench, tmp_path: Path) -> None:
    code, _, err = bench(*run(tmp_path, '{ name = "maps.py:even" }'), "--program", tmp_path / "maps.py")
    assert code == 0 and "4 of 4 maps.py:even maps have one value everywhere" in " ".join(err.split()), err


def test_captums_methods_stand_in_a_suite_by_name_and_their_faults_are_told(bench: Bench, tmp_path: Path) -> None:
    line = '{ name = "captum:Saliency", abs = false }, { name = "captum:GuidedGradCam" }'
    code, out, err = bench(*run(tmp_path, line))
    assert code == 0 and "looks at the last convolution, conv2" in " ".join((out + err).split()), out + err
    found = scores(tmp_path / "board", "stability/cosine")
    assert found["captum:Saliency"] == pytest.approx(found["gradient"], abs=1e-5)
    code, _, err = bench(*run(tmp_path, '{ name = "captum:Saliency", n_steps = 3 }'))
    assert code == 2 and "unknown parameter of attribution method captum:Saliency 'n_steps'" in " ".join(err.split())
