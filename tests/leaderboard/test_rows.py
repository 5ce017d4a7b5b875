from __future__ import annotations

from pathlib import Path

from bench.leaderboard import rows as module
from bench.leaderboard.rows import COLUMNS, run_columns
from bench.leaderboard.table import append_rows
from tests.executors.processes import run_python
from tests.leaderboard.evidence.manifests import whole_manifest
from tests.leaderboard.rows import row

SEEN = """
import importlib.util, sys
from pathlib import Path

for name in [name for name in sys.modules if name.partition(".")[0] in ("bench", "tests")]:
    del sys.modules[name]
spec = importlib.util.spec_from_file_location("bench.leaderboard.rows", {path!r})
rows = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rows)

from bench.leaderboard.evidence.doubts import row_doubt
from bench.leaderboard.evidence.manifest import Result
from bench.leaderboard.metrics import Metric, MetricKey
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.leaderboard.evidence.manifests import whole_manifest

folder, metric = Path({folder!r}), Metric(MetricKey("clean_accuracy"), 0.5, 0.4, 0.6, 10, "higher", "share")
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
    seen = SEEN.format(path=str(tmp_path / "rows.py"), folder=str(tmp_path))
    code, said = run_python(seen, tmp_path / "said")
    assert code == 0, said
    assert said.splitlines() == [
        "['unknown', 'a']; ", "the rows of run new are not what it wrote: source is b, was a",
    ]  # fmt: skip
    assert ",precision,source,seconds," in (tmp_path / "leaderboard.csv").read_text()


def test_a_manifest_says_only_what_it_says() -> None:
    manifest = whole_manifest()
    environment = manifest.environment.model_copy(update={"commit": None})
    said = run_columns(manifest.model_copy(update={"environment": environment}))
    assert run_columns(manifest).keys() - said.keys() == {"commit"} and said.keys() < set(COLUMNS)
