"""What a run costs beside its attacks: planning, the clean pass, the probe for gradient masking, verification, records.

`benchmarks/real_nets.py --outside` prints it. Pictures are smooth noise and labels the net's own answers, so that a net
with initial weights has something to lose. At usual radii nearly everything breaks in a few steps, and at radii of a
millionth nothing does: the two ends between which every net lies. All images are probed, in full batches, and each part
is told as a run of RUN images has it, whose probe takes a fifth of them; planning does not grow with the images.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tomli_w
import torch
from torch import nn
from torch.nn import functional as F

import bench
from bench.attacks import verification
from bench.core.precision import float32_products
from bench.nets.preparation import prepare_net
from bench.protocols import base
from bench.protocols.robustness import masking, unit
from benchmarks.numerics import replaced

RUN = 256
"""Images of the run that is told about."""
USUAL = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
_PARTS = {
    "attack": (unit, "run_attack"),
    "verification": (verification, "verify"),
    "probe": (unit, "probe"),
    "clean pass": (base, "clean_pass"),
}
"""Where the parts are called from; Square's attack on what the probe leaves is called elsewhere."""


def pictures(net: nn.Module, count: int, side: int, folder: Path, *, radii: dict[str, float]) -> None:
    """A data set in `folder` whose labels are the net's answers, with radii that are given for 32x32."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    images = (255 * F.interpolate(coarse, side, mode="bilinear")).round().to(torch.uint8)
    ready = prepare_net(net)
    with torch.no_grad(), float32_products():
        device = next(net.parameters()).device
        labels = torch.cat([ready(part.to(device) / 255).argmax(1) for part in images.split(16)]).cpu()
    names = [f"class {number}" for number in range(10)]
    arrays = {"images": images.permute(0, 2, 3, 1).numpy(), "labels": labels.numpy(), "class_names": np.array(names)}
    np.savez(folder / "pictures.npz", **arrays)
    reference = {norm: eps * (side / 32 if norm != "linf" else 1.0) for norm, eps in radii.items()}
    content = {"schema_version": 1, "test": "pictures.npz", "radii": {"reference": reference}}
    (folder / "pictures.toml").write_text(tomli_w.dumps(content))


def parts(
    net: nn.Module, count: int, side: int, *, radii: dict[str, float], batch: int, device: torch.device
) -> dict[str, float]:
    """Seconds of `autoattack_fast` on RUN images, by part, from those of `count`; of the processor on a CPU."""
    spent: defaultdict[str, float] = defaultdict(float)
    running: list[str] = []

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter()
        return time.process_time()

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            if "probe" in running:  # what it verifies is its own
                return call(*given, **named)
            began = clock()
            running.append(part)
            try:
                return call(*given, **named)
            finally:
                spent[running.pop()] += clock() - began

        return called

    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        pictures(net.to(device), count, side, folder, radii=radii)
        for part, (holder, name) in _PARTS.items():
            stack.enter_context(replaced(holder, name, timed(part, getattr(holder, name))))
        probed = -(-RUN // (RUN // masking.FEWEST))
        stack.enter_context(replaced(masking, "FEWEST", count))
        run = timed("all", bench.evaluate)
        result = run(
            net, "autoattack_fast", dataset="pictures", data_dir=folder, device=device, batch_size=batch, workers=1
        )
    spent["attack"] -= spent["verification"]
    spent["rest"] = 2 * spent["all"] - sum(spent.values())
    for part in _PARTS:
        spent[part] *= (probed if part == "probe" else RUN) / count
    spent["all"] = sum(spent[part] for part in (*_PARTS, "rest"))
    lowest = result.frame[result.frame["metric"] == "union_accuracy"]["value"]
    return {**spent, "standing": float(lowest.min())}


def told(name: str, count: int, found: dict[str, float]) -> str:
    """A row of a Markdown table."""
    whole = found["all"]
    shares = " | ".join(
        f"{100 * found[part] / whole:.1f} %" for part in ("clean pass", "probe", "verification", "rest")
    )
    outside = 100 * (1 - found["attack"] / whole)
    return f"| {name} | {count} | {100 * found['standing']:.0f} % | {whole:.0f} s | {shares} | {outside:.1f} % |"


HEAD = (
    f"| net | measured | stand | {RUN} images | clean pass | probe | verification | planning, records | outside the attack |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
