"""Training the nets of ROAR side by side against training them one after another: same nets, images, order and masks.

`python benchmarks/stacked_nets.py [--architecture patch_cnn] [--nets 25] [--threads 1] [--epochs 1]` prints a
table. The two ways take turns. CPU seconds of the process stand beside seconds by the clock, since other programs on the
machine disturb the latter. Equal accuracy is shown net by net.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.attributions.pixel_scores import free_scores, pixel_ranks
from bench.core.memory import keep_freed_memory
from bench.data import DATASETS, ImageDataset, load_split
from bench.training.retraining import (
    Mask,
    MaskedImages,
    RetrainSchedule,
    example_order,
    fresh_net,
    learning_rate,
    retrain,
)


def masked(data: ImageDataset, part: slice, fill: Tensor, first_id: int) -> MaskedImages:
    pixels = data.pixels(part)
    ids = torch.arange(len(pixels)) + first_id
    return MaskedImages(
        data.images[part], pixel_ranks(free_scores(pixels, ids, "random"), ids), data.labels[part], fill
    )


def one_after_another(
    masks: list[Mask], seeds: list[int], schedule: RetrainSchedule, training: MaskedImages, test: MaskedImages
) -> Tensor:
    """The plain way: each net by itself, masks by comparison."""
    found = []
    for seed, mask in itertools.product(seeds, masks):
        model = fresh_net(schedule, seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate, fused=True)
        count = len(training.labels)
        steps = math.ceil(count / schedule.batch_size)

        def see(data: MaskedImages, chosen: Tensor, mask: Mask = mask) -> Tensor:
            places = data.ranks[chosen][:, None]
            kept = (places >= mask.first_kept) & (places < mask.last_kept)
            return torch.where(kept, data.images[chosen].to(torch.float32).div_(255.0), data.fill.view(-1, 1, 1))

        for epoch in range(schedule.epochs):
            order = example_order(seed, epoch, count)
            for step in range(steps):
                chosen = order[step * schedule.batch_size : (step + 1) * schedule.batch_size]
                optimizer.param_groups[0]["lr"] = learning_rate(schedule, epoch * steps + step, schedule.epochs * steps)
                loss = F.cross_entropy(model(see(training, chosen)), training.labels[chosen])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            batches = torch.arange(len(test.labels)).split(250)
            found.append(torch.cat([model(see(test, batch)).argmax(1) == test.labels[batch] for batch in batches]))
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="patch_cnn")
    parser.add_argument("--nets", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--precision", default="float32", help="of side by side; one after another is in float32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    spec = DATASETS["fashion_mnist"]
    data = load_split("fashion_mnist", "test")  # timing and equality do not care which images are learnt
    fill = torch.full((1,), spec.mean[0])
    training = masked(data, slice(0, options.examples), fill, 0)
    test = masked(data, slice(8000, 10000), fill, 8000)
    parameters = {"in_channels": 1, "image_size": 28, "num_classes": 10, "mean": [*spec.mean], "std": [*spec.std]}
    schedule = RetrainSchedule(
        options.architecture, parameters, options.epochs, options.batch_size, learning_rate=4e-3, decay=True,
        precision=options.precision,
    )  # fmt: skip
    counts = (78, 235, 392, 549, 706)
    masks, seeds = [Mask(count, 784) for count in counts], [*range(max(1, options.nets // len(counts)))]
    seconds: dict[str, list[tuple[float, float]]] = {"one after another": [], "side by side": []}
    accuracies = {}
    for _ in range(options.rounds):
        for name in seconds:
            clock, cpu = time.perf_counter(), time.process_time()
            if name == "side by side":
                correct = retrain(masks, seeds, schedule, training, test=test, device=torch.device("cpu")).flatten(0, 1)
            else:
                correct = one_after_another(masks, seeds, schedule, training, test=test)
            seconds[name].append((time.perf_counter() - clock, time.process_time() - cpu))
            accuracies[name] = correct.float().mean(1)
    steps = len(masks) * len(seeds) * options.epochs * math.ceil(options.examples / options.batch_size)
    print(
        f"{options.architecture}, {len(masks) * len(seeds)} nets, batch {options.batch_size}, {options.threads} thread(s)"
    )
    _print_times(seconds, steps)
    gap = accuracies["side by side"] - accuracies["one after another"]
    print(f"accuracy: mean gap {float(gap.mean()):+.4f}, largest of a net {float(gap.abs().max()):.4f}")


def _print_times(seconds: dict[str, list[tuple[float, float]]], steps: int) -> None:
    for name, values in seconds.items():
        wall, cpu = (1e3 * sorted(column)[len(column) // 2] / steps for column in zip(*values, strict=True))
        print(f"{name:18s} {wall:7.3f} ms a net and step by the clock, {cpu:7.3f} ms of CPU")
    for index, unit in enumerate(("clock", "CPU")):
        ratios = sorted(
            first[index] / second[index]
            for first, second in zip(seconds["one after another"], seconds["side by side"], strict=True)
        )
        print(
            f"times as fast ({unit}): median {ratios[len(ratios) // 2]:.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
