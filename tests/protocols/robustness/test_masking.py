from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.verification import AttackResults
from bench.catalog.cards import write_card
from bench.catalog.models import load_model, resolve_models
from bench.data import ImageDataset
from bench.leaderboard.findings import Finding
from bench.protocols import EvaluationContext
from bench.protocols.robustness.masking import FEWEST, _transfer_source, masking_findings, probe
from bench.protocols.robustness.probes import Probes
from bench.runs.plan import RunRequest, plan_runs
from tests.conftest import Bench

COUNT = 64
pytestmark = pytest.mark.usefixtures("whole_probes")


class Quantised(nn.Module):
    """Five grey levels: rounding has no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net((images * 4).round() / 4)
        return logits


class Saturated(Quantised):
    """Logits so large that the softmax is exactly 0 or 1."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 1000.0 * self.net(images)
        return logits


class Noisy(Quantised):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images + 0.1 * torch.randn_like(images))
        return logits


class Detached(Quantised):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.detach())
        return logits


def report(
    model: nn.Module, data: ImageDataset, count: int = COUNT, start: int = 0, name: str = "net"
) -> dict[str, int]:
    context = EvaluationContext(
        model, name, data, start, stop=start + count, seed=0, device=torch.device("cpu"), batch_size=256
    )
    with torch.no_grad():
        predictions = model(context.images()).argmax(1)
    results = AttackResults.start(predictions, context.labels())
    return probe(context, context.images(), predictions, [results], reference={"linf": 0.1}, every=1, into=[])


def by_id(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.id: finding for finding in findings}


def test_an_adversarially_trained_net_shows_no_sign(at_linf: nn.Module, fashion_test: ImageDataset) -> None:
    findings = by_id(masking_findings(report(at_linf, fashion_test)))
    assert set(findings) == {"gradient_masking"}
    assert findings["gradient_masking"].evidence.startswith("no sign")
    assert findings["gradient_masking"].severity == "note"


def test_a_quantised_input_is_found_out_by_each_sign_it_shows(standard: nn.Module, fashion_test: ImageDataset) -> None:
    findings = by_id(masking_findings(report(Quantised(standard), fashion_test)))
    assert findings["gradient_masking"].evidence.startswith("masked")
    assert findings["gradient_masking"].severity == "warning"
    signs = ("zero_gradients", "saturated_loss", "black_box_gain", "survives_unbounded", "transfer_gain")
    assert {f"masking_{sign}" for sign in signs} <= set(findings)
    assert "100.0 %" in findings["masking_zero_gradients"].evidence


def test_a_saturated_output_blinds_cross_entropy_alone(standard: nn.Module, fashion_test: ImageDataset) -> None:
    findings = by_id(masking_findings(report(Saturated(standard), fashion_test)))
    assert findings["gradient_masking"].evidence.startswith("masked")
    assert {"masking_saturated_loss", "masking_margin_gain"} <= set(findings)
    assert "masking_zero_gradients" not in findings


def test_random_outputs_are_seen(standard: nn.Module, fashion_test: ImageDataset) -> None:
    counters = report(Noisy(standard), fashion_test)
    assert counters["masking_random"] > 0.9 * counters["masking_examples"]
    assert "masking_random_outputs" in by_id(masking_findings(counters))


def test_a_net_without_gradients_is_masked_and_does_not_stop_the_probe(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    findings = by_id(masking_findings(report(Detached(standard), fashion_test)))
    assert findings["gradient_masking"].evidence.startswith("masked")


def test_counters_of_units_add_up_to_those_of_the_whole(at_linf: nn.Module, fashion_test: ImageDataset) -> None:
    whole = report(at_linf, fashion_test, 30)
    parts = [report(at_linf, fashion_test, 10), report(at_linf, fashion_test, 20, start=10)]
    summed = {name: sum(part[name] for part in parts) for name in whole}
    # Square draws its noise for a batch as a whole
    assert {k: v for k, v in whole.items() if "square" not in k} == {
        k: v for k, v in summed.items() if "square" not in k
    }


def test_the_standard_model_is_no_source_of_transfer_for_itself(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    assert "masking_transfer" not in report(standard, fashion_test, 4, name="fashion_mnist/standard")
    assert "masking_transfer" in report(standard, fashion_test, 4)


def test_what_one_start_breaks_is_not_attacked_by_the_next_and_counts_the_same(
    at_linf: nn.Module, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, broken, attacked = Probes._attack, Probes.broken, [0]

    def counted(self: Probes, part: Tensor, *given: Any, **named: Any) -> Tensor:
        attacked[0] += len(part)
        return attack(self, part, *given, **named)

    def anew(self: Probes, *given: Any, besides: Tensor | None = None, **named: Any) -> Tensor:
        found = broken(self, *given, **named)
        return found if besides is None else found | besides

    monkeypatch.setattr(Probes, "_attack", counted)
    once, fewer = report(at_linf, fashion_test, 16), attacked[0]
    monkeypatch.setattr(Probes, "broken", anew)
    attacked[0] = 0
    assert report(at_linf, fashion_test, 16) == once
    assert attacked[0] - fewer == 2 * once["masking_single"] > 0


@pytest.mark.parametrize(("count", "judged"), [(FEWEST - 1, False), (FEWEST, True)])
def test_few_images_give_no_verdict(standard: nn.Module, fashion_test: ImageDataset, count: int, judged: bool) -> None:
    counters = report(Quantised(standard), fashion_test, 4)
    counters = {**counters, "masking_probed": count}
    verdict = by_id(masking_findings(counters))["gradient_masking"]
    assert ("not judged" in verdict.evidence) is not judged


@pytest.mark.parametrize(("examples", "probed"), [(1000, 2), (200, 4), (60, 16), (20, 2)])
def test_a_run_of_few_images_probes_more_of_them(
    standard: nn.Module, fashion_test: ImageDataset, examples: int, probed: int
) -> None:
    context = EvaluationContext(
        standard, "net", fashion_test, 0, stop=16, seed=0, device=torch.device("cpu"), batch_size=256, examples=examples
    )
    with torch.no_grad():
        predictions = standard(context.images()).argmax(1)
    results = AttackResults.start(predictions, context.labels())
    counts = probe(context, context.images(), predictions, [results], reference={"linf": 0.1}, every=8, into=[])
    assert counts["masking_probed"] == probed


def test_no_counters_no_finding() -> None:
    assert masking_findings({"gradient_evaluations": 3}) == []


def test_the_verdict_is_printed_and_in_the_manifest(bench: Bench, tiny_suite: Path, tmp_path: Path) -> None:
    code, _, error = bench("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path / "board")
    assert code == 0
    assert "gradient_masking: not judged" in error
    (manifest,) = (tmp_path / "board").glob("runs/*/manifest.json")
    assert [finding["id"] for finding in json.loads(manifest.read_text())["result"]["findings"]] == ["gradient_masking"]


@pytest.mark.parametrize("named", ["option", "variable"])
def test_a_standard_model_of_another_registry_is_the_source_only_with_its_digest_in_the_manifest(
    tmp_path: Path, tiny_suite: Path, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (standard, robust) = resolve_models(["standard", "at_linf"])
    folder = tmp_path / "registry" / "fashion_mnist" / "standard"
    shutil.copytree(robust.folder, folder)
    write_card(folder, robust.card.model_copy(update={"id": "standard"}))
    if named == "variable":
        monkeypatch.setenv("BENCH_REGISTRY", str(tmp_path / "registry"))
    registry = tmp_path / "registry" if named == "option" else None

    (plan,) = plan_runs(RunRequest(["lga"], [str(tiny_suite)], tmp_path, device="cpu", registry=registry))
    assert plan.dependencies["transfer_source"].sha256 == robust.card.weights.sha256 != standard.card.weights.sha256
    assert plan.config.dependencies_sha256 == "", "it decides findings, no metric"
    context = EvaluationContext(
        load_model(robust), "net", fashion_test, 0, stop=4, seed=0, device=torch.device("cpu"), batch_size=4,
        registry=registry,
    )  # fmt: skip
    source = _transfer_source(context)
    assert source is _transfer_source(context), "it is loaded once a process"
    assert source is not None and torch.equal(source(context.images()), context.model(context.images()))
