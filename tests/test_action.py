"""The composite GitHub Action: its script is run as GitHub would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_the_actions_script_calls_bench_check_with_its_inputs_and_no_input_is_code(tmp_path: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = action["runs"]["steps"]
    step = next(step for step in steps if step.get("name") == "bench check")
    tool = tmp_path / "ribench" / "bin" / "bench"
    tool.parent.mkdir(parents=True)
    tool.write_text(f'#!{sys.executable}\nimport sys\nprint("\\n".join(sys.argv[1:]))\n')
    tool.chmod(0o755)
    values = {name: str(given["default"]) for name, given in action["inputs"].items()}
    values |= {
        "models": "standard\n at_*\n",
        "suites": "cross_norm_quick\tmine.toml",
        "tolerance": "$(touch hacked)",
        "arguments": "--device\ncpu",
    }
    environment = os.environ | {"RUNNER_TEMP": str(tmp_path)}
    for variable, expression in step["env"].items():
        environment[variable] = values[expression.removeprefix("${{ inputs.").removesuffix(" }}")]
    shown = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", step["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=True,
    ).stdout.splitlines()  # fmt: skip
    assert shown[:9] == [
        "check", "--model", "standard", "--model", "at_*", "--suite", "cross_norm_quick", "--suite", "mine.toml",
    ]  # fmt: skip
    assert shown[shown.index("--tolerance") + 1] == "$(touch hacked)" and not (tmp_path / "hacked").exists()
    assert shown[-2:] == ["--device", "cpu"]
    assert "${{" not in step["run"]


def test_the_action_lets_setup_python_look_for_no_file_of_ours_in_the_callers_repository() -> None:
    (setup, *_) = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    assert setup["uses"].startswith("actions/setup-python@") and set(setup["with"]) == {"python-version"}
