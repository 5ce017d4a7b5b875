"""How torch's threads wait for each other on a CPU; to be set before torch is imported."""

from __future__ import annotations

import os

_SPINS = "1000"


def limit_openmp_spinning() -> None:
    """Let OpenMP threads spin only briefly before they sleep, unless the environment already says how to wait.

    By default libgomp's threads spin for milliseconds at every barrier. On a machine that is busy with something else
    they then burn the time of the very thread they wait for: cross_norm_quick took 40 to 70 s in place of 5 s beside
    two background jobs on two cores, and takes 9 s with this. On an idle machine it makes no difference.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
