from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.leaderboard import rows as module
from bench.leaderboard.rows import COLUMNS, run_columns
from bench.leaderboard.table import append_rows
from tests.leaderboard.rows import row

SEEN = """
import importlib.util, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("bench.leaderboard.rows", sys.argv[1])
rows = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rows)

from bench.leaderboard.evidence.doubts import row_doubt
from bench.leaderboard.metrics import Metric, MetricKey
from bench.leaderboard.table import append_rows, read_leaderboard

folder, metric = Path(sys.argv[2]), Metric(MetricKey("clean_accuracy"), 0.5, 0.4, 0.6, 10, "higher", "share")
manifest = {
    "run_id": "new", "finished_at": "now", "card": {"id": "m", "method": "m"}, "device": "cpu", "seconds": 1.0,
    "facts": {"dataset": "d", "split": "s", "suite": "s", "suite_version": 1, "seed": 0} | dict.fromkeys(
        ("model_sha256", "data_sha256", "suite_sha256"), ""),
    "versions": {"bench": "1", "torch": "2"}, "executor": {"host": "a"}, "metrics": [metric.as_dict()],
}
append_rows(folder, rows.run_rows(manifest, [metric]))
read = read_leaderboard(folder)
print(read["host"].tolist(), row_doubt(manifest, read.tail(1)), sep="; ")
print(row_doubt(manifest, read.tail(1).assign(host="b")))
"""


def test_a_new_column_of_a_run_costs_one_line_of_one_file(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("old")])
    seconds = '    Column("seconds",'
    changed = Path(module.__file__).read_text().replace(
        seconds, f'    Column("host", Name, "executor.host", default="unknown"),\n{seconds}'
    )  # fmt: skip
    (tmp_path / "rows.py").write_text(changed)
    command = [sys.executable, "-c", SEEN, str(tmp_path / "rows.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "['unknown', 'a']; ", "the rows of run new are not what it wrote: host is b, was a",
    ]  # fmt: skip
    assert ",precision,host,seconds," in (tmp_path / "leaderboard.csv").read_text()


def test_a_manifest_says_only_what_it_says() -> None:
    assert run_columns({"run_id": "a", "facts": "torn", "card": {"id": None, "method": "m"}}) == {
        "run_id": "a", "method": "m",
    }  # fmt: skip
    assert run_columns({}).keys() < set(COLUMNS)
