"""Memory that a process may still take: the machine's, and what its control groups leave it."""

from __future__ import annotations

import pytest

from bench.core import memory

GIB = 1 << 30
MACHINE = {"/proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {64 << 20} kB\n"}
V2 = "/sys/fs/cgroup"
V1 = "/sys/fs/cgroup/memory"
JOB = "/slurm/uid_7/job_11"


def stat(name: str, gib: int) -> str:
    return f"cache 5\n{name} {gib * GIB}\n{name}_huge 7\n"


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        ({}, 64),
        ({f"{V2}/memory.max": "max\n", f"{V2}/memory.stat": stat("anon", 1)}, 64),
        ({f"{V2}/memory.max": f"{8 * GIB}\n", f"{V2}/memory.stat": stat("anon", 1)}, 7),
        ({f"{V2}/memory.max": f"{8 * GIB}\n", f"{V2}/memory.stat": stat("anon", 9)}, 0),
        ({f"{V2}{JOB}/memory.max": f"{6 * GIB}", f"{V2}{JOB}/memory.stat": stat("anon", 2)}, 4),
        ({f"{V1}{JOB}/memory.limit_in_bytes": f"{6 * GIB}", f"{V1}{JOB}/memory.stat": stat("total_rss", 1)}, 5),
        ({f"{V1}/slurm/memory.limit_in_bytes": f"{6 * GIB}", f"{V1}/slurm/memory.stat": stat("total_rss", 3)}, 3),
        ({f"{V1}/memory.limit_in_bytes": f"{(1 << 63) - 4096}", f"{V1}/memory.stat": stat("total_rss", 3)}, 64),
    ],
)
def test_a_limit_of_a_container_or_a_job_or_of_what_holds_it_counts(
    files: dict[str, str], gib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"/proc/self/cgroup": f"4:cpu,memory:{JOB}\n1:name=systemd:/a:b\n0::{JOB}\n"}
    monkeypatch.setattr(memory, "_text", lambda path: (MACHINE | groups | files).get(path, ""))
    assert memory.free_memory() == gib * GIB


def test_a_system_that_does_not_say_has_no_free_memory_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_text", lambda path: "")
    assert memory.free_memory() is None
