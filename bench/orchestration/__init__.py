"""Planning a run into independent work units, executing them, resuming, and writing results down."""

from bench.orchestration.execute import Observer, RunOutcome, execute
from bench.orchestration.executors import Executor, LocalExecutor
from bench.orchestration.plan import RunPlan, RunRequest, WorkUnit, plan_runs

__all__ = [
    "Executor",
    "LocalExecutor",
    "Observer",
    "RunOutcome",
    "RunPlan",
    "RunRequest",
    "WorkUnit",
    "execute",
    "plan_runs",
]
