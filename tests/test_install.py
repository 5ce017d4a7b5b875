"""What the default installation needs, and what is said where an extra lacks."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conftest import Bench
from tests.executors.processes import run_python

WITHOUT = """
import sys
without = ("requests", "robustbench", "urllib3", "idna", "chardet", "foolbox", "timm", "onnx", "ray")
assert not set(without) & set(sys.modules)
sys.modules.update(dict.fromkeys(without))
import torch
from bench.attacks.adapters.torchattacks import find
from bench.catalog.models import load_model, resolve_models
model = load_model(resolve_models(["standard"])[0])
images, labels = torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
found = find("PGD").function(model, images, labels, eps=torch.tensor([0.1, 0.1]), steps=2, alpha=0.05)
assert found.images.shape == images.shape and not torch.equal(found.images, images)
assert sys.modules["robustbench"] is None
"""


def test_attacks_of_torchattacks_run_without_what_it_pins_and_without_its_robustbench(tmp_path: Path) -> None:
    assert run_python(WITHOUT, tmp_path / "said") == (0, "")


def test_a_suite_that_needs_an_extra_is_refused_in_one_line_before_anything_runs(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "foolbox.py").write_text("raise ImportError('not here')\n")
    sys.modules.pop("foolbox", None)
    sys.path.insert(0, str(tmp_path))
    try:
        code, out, err = bench("run", "--model", "standard", "--suite", "blackbox", "--leaderboard", tmp_path / "b")
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("foolbox", None)
    assert code == 2 and out == "" and "pip install 'ribench[foolbox]'" in err and not (tmp_path / "b").exists()
