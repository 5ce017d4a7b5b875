"""RIBench against its peers: same model, images, norms, radii and steps, paired in one run.

    PIP_CONSTRAINT=benchmarks/constraints.txt pip install -e '.[peers]'
    python benchmarks/against_peers.py curve --model standard --examples 500
    python benchmarks/against_peers.py autoattack --model lga --norm linf --examples 200
    python benchmarks/against_peers.py scaling --model standard --model at_linf
    python benchmarks/against_peers.py step
    python benchmarks/against_peers.py minimum-norm --model at_l2 --examples 30
    python benchmarks/against_peers.py minimum-norm --model at_l2 --examples 30 --brendel-bethge

`curve`: the whole L-inf, L2 and L1 curve (five radii each) by PGD of each peer that has the norm, and by the sweep as
cross_norm_quick and cross_norm have it. `autoattack`: plain pyautoattack, RobustBench's benchmark(), our suite autoattack and our cascade.
`minimum-norm`: the smallest perturbation by each peer's minimum-norm attacks at 1,000 steps, and by the suite minimum_norm;
Foolbox's Brendel-Bethge among them where asked for: it takes 4 to 5 s of the processor an image and norm.
`scaling`: seconds of the sweep against images and radii. `step`: what a gradient costs within the sweep. Everything is
verified by the same judge. Peers get the plain PyTorch net, ours the net as `bench run` prepares it. Seconds are of the
processor on a CPU, so that other processes don't count, and of the clock on a GPU; peers run first, before our own
memory setting (bench.core.memory) is on. A peer that cannot run is named with the reason.
"""

from __future__ import annotations

import typer
from peers.autoattack import autoattack
from peers.curve import curve
from peers.minimum_norm import minimum_norm
from peers.scaling import scaling
from peers.step import step

app = typer.Typer(add_completion=False)
for command in (curve, autoattack, minimum_norm, scaling, step):
    app.command()(command)

if __name__ == "__main__":
    app()
