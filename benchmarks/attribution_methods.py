"""What one map of each attribution method costs, and whether captum's twin gives the same map, faster or slower.

    OMP_NUM_THREADS=1 python benchmarks/attribution_methods.py --model standard --examples 100

For each method: gradients and forward passes a map, milliseconds of the processor a map in one batch (the least of the
repeats, ours and captum's in turn, captum through our adapter on the same prepared net), captum's time over ours, and
the largest difference of the maps over their largest value. Methods that only captum has are timed on a tenth of the
images, since some take minutes.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from bench.attributions.adapters.captum import CLASSES
from bench.attributions.quality.cost import metered
from bench.attributions.registry import AttributionMethod, attribute, find_method, our_methods
from bench.catalog.models import load_model, resolve_models
from bench.core.memory import keep_freed_memory
from bench.data import load_split
from bench.nets.preparation import prepare_net

TWINS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradient": ("Saliency", {"abs": False}), "input_x_gradient": ("InputXGradient", {}),
    "integrated_gradients": ("IntegratedGradients", {"n_steps": 16}),
    "smoothgrad": ("NoiseTunnel:Saliency", {"nt_samples": 16, "stdevs": 0.1, "abs": False}),
    "guided_backprop": ("GuidedBackprop", {}), "deconvolution": ("Deconvolution", {}), "deeplift": ("DeepLift", {}),
    "lrp_epsilon": ("LRP", {}),
}  # fmt: skip
"""Ours, captum's and its parameters for the same map; of SmoothGrad the noise is another."""
OURS: dict[str, dict[str, Any]] = {"integrated_gradients": {"steps": 16}, "smoothgrad": {"samples": 16, "sigma": 0.1}}


def one_map(net: nn.Module, images: Tensor, labels: Tensor, method: AttributionMethod) -> tuple[Tensor, float, str]:
    """The maps, milliseconds a map, and what they cost in gradients and passes."""
    with metered(net, torch.device("cpu")) as cost:
        began = time.process_time()
        found = attribute(net, images, labels, method, batch_size=len(images))
        seconds = time.process_time() - began
    count = len(images)
    return found, 1000 * seconds / count, f"{cost.gradients / count:9.3g}{cost.forward_passes / count:8.3g}"


def least(net: nn.Module, images: Tensor, labels: Tensor, methods: list[AttributionMethod], repeats: int) -> list[Any]:
    """For each method its maps, cost and least time, methods in turn."""
    found: list[Any] = [one_map(net, images[:2], labels[:2], method) for method in methods]
    times = [float("inf")] * len(methods)
    for _ in range(repeats):
        for number, method in enumerate(methods):
            found[number] = one_map(net, images, labels, method)
            times[number] = min(times[number], found[number][1])
    return [(maps, time_, cost) for (maps, _, cost), time_ in zip(found, times, strict=True)]


def main(model: Annotated[str, typer.Option()] = "standard", examples: int = 100, repeats: int = 5) -> None:
    keep_freed_memory()
    data, net = load_split("fashion_mnist", "test"), prepare_net(load_model(resolve_models([model])[0]))
    images, labels = data.pixels(slice(0, examples)), data.labels[:examples]
    sys.stdout.write(f"{model}, {examples} images, {torch.get_num_threads()} thread(s)\n{'':34}gradients passes  ms\n")
    for name in our_methods():
        twin, parameters = TWINS.get(name, ("", {}))
        methods = [find_method(name).given(**OURS.get(name, {}))]
        methods += [find_method(f"captum:{twin}").given(**parameters)] if twin else []
        (maps, mine, cost), *theirs = least(net, images, labels, methods, repeats)
        line = f"{name:34}{cost}{mine:8.3f}"
        for other, seconds, _ in theirs:
            gap = float((maps - other).abs().max() / maps.abs().max())
            line += f"   captum:{twin} {seconds / mine:.2f} times, maps differ by {gap:.1e}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    few = max(1, examples // 10)
    for name in [one for one in CLASSES if one not in {twin for twin, _ in TWINS.values()}]:
        ((_, mine, cost),) = least(net, images[:few], labels[:few], [find_method(f"captum:{name}")], 1)
        sys.stdout.write(f"captum:{name:27}{cost}{mine:8.3f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
