"""The suites on single maps against Quantus 0.6 and captum: same net, images, maps and draws, paired in one run.

    python -m venv --system-site-packages ENV && ENV/bin/pip install --no-deps quantus==0.6.0 opencv-python-headless xarray
    OMP_NUM_THREADS=1 ENV/bin/python benchmarks/against_quantus.py --model standard --examples 100 --repeats 3

`complexity_quick`, `faithfulness_quick`, `sanity_checks_quick` and `localisation_quick`, each as a whole: its four
methods and four controls. The peers explain with captum, all images in one batch, and judge with Quantus' metrics,
Quantus' batches as large too; infidelity at the best scale is captum's. They get the plain PyTorch net, ours the net
as `bench run` prepares it. Whatever is drawn (moved copies, squares, noise, weights drawn anew, other classes,
mosaics), and the controls' maps of the clean images, is made beforehand by our code, outside the clock, so that both
sides must find the same values; where only the order of pixels counts, the peers get our ranks, since Quantus breaks
ties by chance. Insertion and deletion take 16 steps, since Quantus wants steps of equal size. Ours are timed as a whole
run would be, metrics with intervals included; ours measures more (top-k in the cascade), which the peers are spared.
Processor seconds, peer and ours in turn, who is first changing; ratios are medians of the pairs.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from statistics import median
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from peers.quantus_draws import prepare
from peers.quantus_suites import STEPS, SUITES, Peers, Values, comparable
from torch import nn

from bench.catalog.models import load_model, resolve_models
from bench.catalog.suites import resolve_suites
from bench.core.memory import keep_freed_memory
from bench.data import load_split
from bench.nets.preparation import prepare_net
from bench.protocols import EvaluationContext, Protocol, protocol_for
from bench.protocols.explanations.faithfulness_parts import InsertionParameters

WANTED = 5.0
Nets = tuple[nn.Module, nn.Module]
"""As `bench run` prepares it, and plain."""
Pair = tuple[float, float]


def ours(protocol: Protocol, context: EvaluationContext) -> tuple[pd.DataFrame, float]:
    began = time.process_time()
    records = protocol.evaluate(context).records
    protocol.metrics("fashion_mnist", records)
    return records, time.process_time() - began


def values_of(records: pd.DataFrame) -> Values:
    found: Values = {}
    if "check" not in records:
        for name, rows in records.groupby("attribution"):
            columns = rows.drop(columns=["example_id", "label", "prediction", "attribution"])
            found |= {(metric, name): columns[metric].to_numpy(np.float64) for metric in columns}
        return found
    for (check, name, stage), rows in records.groupby(["check", "attribution", "stage"]):
        column = "complexity_rise" if check == "efficient_mprt" else "spearman"
        found[f"{check}/{stage}" if stage else check, name] = rows[column].to_numpy(np.float64)
    return found


def compare(mine: Values, theirs: Values) -> list[tuple[str, int, float, float]]:
    """By metric: how many pairs of values, the largest difference of a mean, the share of values off by over 1 %."""
    rows = []
    for metric in dict.fromkeys(metric for metric, _ in theirs):
        gaps, off, count = [], 0, 0
        for name in [one for other, one in theirs if other == metric and comparable(metric, one)]:
            a, b = mine[metric, name], theirs[metric, name]
            a = np.array([np.nanmean(a)]) if len(b) == 1 else a
            fine = np.isfinite(a) & np.isfinite(b)
            if metric == "infidelity":  # captum's best scale may be below 0, where ours is 0
                fine &= a < 1.0
            scale = max(1e-12, float(np.abs(b[fine]).mean()))
            gaps.append(abs(float((a - b)[fine].mean())) / max(scale, 0.01))
            off += int((np.abs(a - b)[fine] > 0.01 * np.maximum(np.abs(b[fine]), 0.1 * scale)).sum())
            count += int(fine.sum())
        rows.append((metric, count, max(gaps), off / max(1, count)))
    return rows


def evaluate(name: str, nets: Nets, examples: int, *, repeats: int, at_once: int) -> tuple[Peers, Values, list[Pair]]:
    """Both sides in turn; the last values of each, and seconds of the peers and of ours, a pair a repeat."""
    data, suite = load_split("fashion_mnist", "test"), resolve_suites([name])[0]
    context, plain = (
        EvaluationContext(net, "net", data, 0, stop=examples, seed=0, device=torch.device("cpu"), batch_size=examples)
        for net in nets
    )

    def fresh() -> Any:
        protocol: Any = protocol_for(suite)
        if getattr(protocol.parameters, "insertion", False):
            new = {"insertion": InsertionParameters(steps=STEPS)}
            protocol.parameters = protocol.parameters.model_copy(update=new)
        return protocol

    prepared, pairs = prepare(name, fresh(), plain, nets[1]), []
    for turn in range(repeats):
        peers = Peers(fresh(), nets[1], plain, at_once)
        records, mine = ours(fresh(), context) if turn % 2 else (pd.DataFrame(), 0.0)
        began = time.process_time()
        SUITES[name](peers, prepared)
        theirs = time.process_time() - began
        if not turn % 2:
            records, mine = ours(fresh(), context)
        pairs.append((theirs, mine))
    return peers, values_of(records), pairs


def report(name: str, peers: Peers, mine: Values, pairs: list[Pair]) -> bool:
    """Prints one suite; whether ours is fast enough and finds the same."""
    ratios = [theirs / ours for theirs, ours in pairs]
    spread = ", ".join(f"{theirs:.2f} / {ours:.2f} s" for theirs, ours in pairs)
    sys.stdout.write(f"\n{name}: {median(ratios):.1f} times as fast ({spread})\n")
    compared = compare(mine, peers.found)
    for metric, count, gap, off in compared:
        seconds = peers.seconds.get(metric.partition("/")[0], 0.0)
        sys.stdout.write(
            f"  {metric:24}{seconds:7.2f} s{count:7} values, means within {gap:.0e}, {off:.1%} off by 1 %\n"
        )
    sys.stdout.write(f"  {'maps':24}{peers.seconds['maps']:7.2f} s\n")
    sys.stdout.flush()
    return median(ratios) >= WANTED and all(gap < 0.01 for _, _, gap, _ in compared)


def main(
    model: Annotated[str, typer.Option()] = "standard",
    examples: int = 100,
    repeats: int = 3,
    at_once: Annotated[int, typer.Option(help="images that captum explains in one call")] = 1,
    suite: Annotated[list[str], typer.Option()] = list(SUITES),  # noqa: B006
) -> None:
    warnings.simplefilter("ignore")
    keep_freed_memory()
    plain = load_model(resolve_models([model])[0])
    nets = (prepare_net(copy.deepcopy(plain)), plain)
    evaluate("complexity_quick", nets, 4, repeats=2, at_once=1)  # what a process loads once
    sys.stdout.write(f"{model}, {examples} images, {at_once} at once by captum, {torch.get_num_threads()} thread(s)\n")
    good = True
    for name in suite:
        good &= report(name, *evaluate(name, nets, examples, repeats=repeats, at_once=at_once))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
