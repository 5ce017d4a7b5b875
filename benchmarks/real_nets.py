"""What a gradient costs on nets of the size people use: bare, prepared in several ways, and inside an attack.

    OMP_NUM_THREADS=1 python benchmarks/real_nets.py
    python benchmarks/real_nets.py --net resnet18 --device cuda --repeats 20 --variant prepared --variant compiled
    OMP_NUM_THREADS=1 python benchmarks/real_nets.py --net resnet18 --repeats 0 --outside 64 --radii 1e-6     # whole runs

Weights are initial ones: times do not depend on them. Everything is measured in turn, round by round, and told as the
median of the rounds' ratios, so that what else the machine does counts for both sides. `prepared` is the net as `bench run`
attacks it (channels last); `folded` has its batch norms folded into the convolutions before them, `compiled` goes through
torch.compile, and it is said from what length of an attack on that pays. `attack` is a gradient step of the cascade in
each norm over that of the quickest variant, in a ball so small that no image ever leaves. `--outside` runs
autoattack_fast on so many images, at least a batch, and tells how much of a run of 256 is not the attack's: see
benchmarks/gpu_parts/outside.py.
"""

from __future__ import annotations

import copy
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.core.devices import resolve_device
from bench.core.memory import keep_freed_memory
from bench.core.precision import MixedPrecision, float32_products
from bench.core.threat import NORMS, Norm
from bench.nets import build_net
from bench.nets.preparation import prepare_net
from benchmarks.gpu_parts.outside import HEAD, USUAL, parts, told

STEPS = 3
_TINY = 1e-6
_RGB = {"in_channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}


def _ours(architecture: str, **parameters: object) -> Callable[[], nn.Module]:
    return lambda: build_net(architecture, {**_RGB, "image_size": 32, "num_classes": 10, **parameters})


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        net: nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=10)
        return net

    return make


def _timm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        net: nn.Module = timm.create_model(name, pretrained=False, num_classes=10)
        return net

    return make


NETS: dict[str, tuple[int, Callable[[], nn.Module], str]] = {
    "small_cnn": (32, _ours("small_cnn"), "torch"),
    "lenet_softplus": (32, _ours("lenet", activation="softplus"), "torch"),
    "resnet18": (32, _ours("resnet18"), "torchvision"),
    "wrn_28_10": (32, _ours("wide_resnet", depth=28, widen=10), "torch"),
    "resnet50": (224, _torchvision("resnet50"), "torchvision"),
    "efficientnet_lite0": (224, _timm("tf_efficientnet_lite0"), "timm"),
    "vit_small": (224, _timm("vit_small_patch16_224"), "timm"),
}
"""Name -> side of its images, how it is made, the package that it needs."""


def folded(net: nn.Module) -> nn.Module:
    """With batch norms folded into the convolutions before them; the same numbers up to rounding, in eval mode."""
    from torch.fx.experimental.optimization import fuse

    return prepare_net(fuse(copy.deepcopy(net)))


VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": copy.deepcopy,
    "channels_last": lambda net: copy.deepcopy(net).to(memory_format=torch.channels_last),
    "prepared": lambda net: prepare_net(copy.deepcopy(net)),
    "folded": folded,
    "compiled": lambda net: torch.compile(prepare_net(copy.deepcopy(net))),
    "bfloat16": lambda net: MixedPrecision(prepare_net(copy.deepcopy(net)), next(net.parameters()).device.type),
}
"""bfloat16 is the search's precision on request; its gradients are others."""


def seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter() if device.type == "cuda" else time.process_time()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter() - began
    return time.process_time() - began


def gradient(net: nn.Module, images: Tensor) -> Tensor:
    points = images.detach().requires_grad_(True)
    return torch.autograd.grad(net(points).sum(), points)[0]


def attack(net: nn.Module, images: Tensor, norm: Norm) -> int:
    """STEPS + 1 gradient steps of the cascade; gives how many gradients were taken."""
    with torch.no_grad():
        labels = net(images).argmax(1)
    results = AttackResults.start(labels.cpu(), labels.cpu())
    ids = torch.arange(len(images), device=images.device)
    examples = Examples(net, images, labels, ids, num_classes=10, batch_size=len(images))
    run_attack(named_attack("cascade", {"stages": [{"steps": STEPS}]}), examples, norm, [_TINY], results=results)
    return results.gradient_evaluations


def measure(name: str, batch: int, device: torch.device, repeats: int, variants: list[str]) -> None:
    side, make, _ = NETS[name]
    torch.manual_seed(0)
    net = make().eval().requires_grad_(False).to(device)
    images = torch.rand(batch, 3, side, side, device=device)
    calls: dict[str, Callable[[], object]] = {}
    ready: dict[str, float] = {}
    for variant in variants:
        began = time.perf_counter()
        try:
            made = VARIANTS[variant](net)
            gradient(made, images)
            ready[variant] = time.perf_counter() - began
            calls[variant] = lambda made=made: gradient(made, images)
        except Exception as error:  # noqa: BLE001  (whatever a variant cannot do is what is to be told)
            print(f"{name}: {variant} cannot be had: {' '.join(str(error).split())[:120]}")
    prepared = prepare_net(copy.deepcopy(net))
    forward = lambda: prepared(images)  # noqa: E731
    rounds: list[dict[str, float]] = []
    for _ in range(repeats):
        row = {variant: seconds(call, device) for variant, call in calls.items()}
        with torch.no_grad():
            row["forward"] = seconds(forward, device)
        for norm in NORMS:
            spent = seconds(lambda norm=norm: attack(prepared, images, norm), device)
            # a clean pass beside the gradients
            row[norm] = (spent - row["forward"]) / (STEPS + 1)
        rounds.append(row)
    exact = [one for one in calls if one not in ("bfloat16",)]
    best = min(exact, key=lambda one: statistics.median(row[one] for row in rounds))
    told = [f"{one} {_ratio(rounds, one, best):.3f}" for one in calls]
    told += [f"attack {norm} {_ratio(rounds, norm, best):.3f}" for norm in NORMS]
    milliseconds = 1000 * statistics.median(row[best] for row in rounds) / batch
    print(f"| {name} | {side} | {batch} | {best}, {milliseconds:.1f} ms | {' | '.join(told)} |", flush=True)
    if {"compiled", "prepared"} <= calls.keys():
        print(f"{name}: {_advice(ready['compiled'], _ratio(rounds, 'compiled', 'prepared'))}", flush=True)


def _advice(spent: float, ratio: float) -> str:
    """Whether torch.compile is worth what it takes before its first gradient, in seconds."""
    if ratio >= 1.0:
        return f"torch.compile does not pay, {ratio:.2f} of the prepared net's time"
    return f"torch.compile takes {spent:.0f} s first and pays in attacks that take over {spent / (1.0 - ratio):.0f} s"


def _ratio(rounds: list[dict[str, float]], one: str, best: str) -> float:
    return statistics.median(row[one] / row[best] for row in rounds)


def main(
    net: Annotated[list[str], typer.Option()] = list(NETS),  # noqa: B006
    variant: Annotated[list[str], typer.Option()] = ["plain", "prepared", "folded", "bfloat16"],  # noqa: B006
    batch: int = 0,
    repeats: int = 3,
    device: str = "cpu",
    outside: Annotated[int, typer.Option(help="Images of a whole run; 0: none.")] = 0,
    radii: Annotated[float, typer.Option(help="Of the whole run, over the usual ones.")] = 1.0,
    norm: Annotated[list[str], typer.Option(help="Of the whole run.")] = list(USUAL),  # noqa: B006
) -> None:
    where = resolve_device(device)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ratios to the quickest exact variant")
    with float32_products():
        for name in net:
            side, _, package = NETS[name]
            if importlib.util.find_spec(package) is None:
                print(f"{name}: {package} is not installed")
                continue
            size = batch or {32: 16, 224: 2}[side]
            if repeats:
                measure(name, size, where, repeats=repeats, variants=variant)
            if outside:
                torch.manual_seed(0)
                made = NETS[name][1]().eval().requires_grad_(False)
                chosen = {one: radii * USUAL[one] for one in norm}
                found = parts(made, outside, side, radii=chosen, batch=size, device=where)
                print(f"{HEAD}\n{told(name, outside, found)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
