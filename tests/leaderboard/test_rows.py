from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.leaderboard import rows as module
from bench.leaderboard.rows import COLUMNS, run_columns
from bench.leaderboard.table import append_rows
from tests.leaderboard.evidence.manifests import whole_manifest
from tests.leaderboard.rows import row

ROOT = Path(__file__).parents[2]

SEEN = """
import importlib.util, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("bench.leaderboard.rows", sys.argv[1])
rows = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rows)

from bench.leaderboard.evidence.doubts import row_doubt
from bench.leaderboard.evidence.manifest import Result
from bench.leaderboard.metrics import Metric, MetricKey
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.leaderboard.evidence.manifests import whole_manifest

folder, metric = Path(sys.argv[2]), Metric(MetricKey("clean_accuracy"), 0.5, 0.4, 0.6, 10, "higher", "share")
manifest = whole_manifest(run_id="new", data_source="a", result=Result(metrics=[metric]))
append_rows(folder, rows.run_rows(manifest))
read = read_leaderboard(folder)
print(read["source"].tolist(), row_doubt(manifest, read.tail(1)), sep="; ")
print(row_doubt(manifest, read.tail(1).assign(source="b")))
"""


def test_a_new_column_of_a_run_costs_one_line_of_one_file(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("old")])
    seconds = '    Column("seconds",'
    changed = Path(module.__file__).read_text().replace(
        seconds, f'    Column("source", Name, "data_source", default="unknown"),\n{seconds}'
    )  # fmt: skip
    (tmp_path / "rows.py").write_text(changed)
    command = [sys.executable, "-c", SEEN, str(tmp_path / "rows.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "['unknown', 'a']; ", "the rows of run new are not what it wrote: source is b, was a",
    ]  # fmt: skip
    assert ",precision,source,seconds," in (tmp_path / "leaderboard.csv").read_text()


def test_a_manifest_says_only_what_it_says() -> None:
    manifest = whole_manifest()
    environment = manifest.environment.model_copy(update={"commit": None})
    said = run_columns(manifest.model_copy(update={"environment": environment}))
    assert run_columns(manifest).keys() - said.keys() == {"commit"} and said.keys() < set(COLUMNS)
