from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.losses import LossName
from bench.attacks.verification import AttackResults
from bench.catalog.cards import write_card
from bench.catalog.models import load_model, resolve_models
from bench.data import ImageDataset
from bench.leaderboard.findings import Finding
from bench.nets.logit_scale import at_usual_scale, factor_of
from bench.protocols import EvaluationContext
from bench.protocols.robustness.masking import FEWEST, _transfer_source, masking_findings, probe
from bench.protocols.robustness.probes import Probes
from bench.runs.plan import RunRequest, plan_runs
from benchmarks.strength.masked import MASKED
from tests.conftest import Bench

COUNT = 64
pytestmark = pytest.mark.usefixtures("whole_probes")


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
    findings = by_id(masking_findings(report(MASKED["quantised"](standard), fashion_test)))
    assert findings["gradient_masking"].evidence.startswith("masked")
    assert findings["gradient_masking"].severity == "warning"
    signs = ("zero_gradients", "saturated_loss", "black_box_gain", "survives_unbounded", "transfer_gain")
    assert {f"masking_{sign}" for sign in signs} <= set(findings)
    assert "100.0 %" in findings["masking_zero_gradients"].evidence


def test_a_saturated_output_blinds_cross_entropy_alone(standard: nn.Module, fashion_test: ImageDataset) -> None:
    findings = by_id(masking_findings(report(MASKED["saturated"](standard), fashion_test)))
    assert findings["gradient_masking"].evidence.startswith("masked")
    assert {"masking_saturated_loss", "masking_margin_gain"} <= set(findings)
    assert "masking_zero_gradients" not in findings


def test_large_logits_blind_cross_entropy_also_where_attacks_see_them_at_usual_scale(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    """From the scale on at which logits were made smaller for the attacks, the report showed no sign."""

    class Times(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 100.0 * standard(images)

    usual = at_usual_scale(Times().eval(), fashion_test.pixels(slice(0, 16)), 16)
    assert factor_of(usual) < 1.0
    counters = report(usual, fashion_test, 16) | {"masking_probed": FEWEST}
    assert "masking_saturated_loss" in by_id(masking_findings(counters)) and counters["masking_zero_margin"] == 0
    assert counters["masking_single"] < counters["masking_margin"]


def test_random_outputs_are_seen(standard: nn.Module, fashion_test: ImageDataset) -> None:
    counters = report(MASKED["noisy"](standard), fashion_test)
    assert counters["masking_random"] > 0.9 * counters["masking_examples"]
    assert "masking_random_outputs" in by_id(masking_findings(counters))


@pytest.mark.parametrize(
    ("kind", "sign"),
    [("detached", "zero_gradients"), ("flat", "unseen_changes"), ("straight_through", "unseen_changes"),
     ("shattered", "unseen_changes"), ("stepped", "unseen_changes")],
)  # fmt: skip
def test_other_deliberately_masked_nets_are_found_out(
    standard: nn.Module, fashion_test: ImageDataset, kind: str, sign: str
) -> None:
    counters = report(MASKED[kind](standard), fashion_test, 12) | {"masking_probed": FEWEST}
    findings = by_id(masking_findings(counters))
    assert findings["gradient_masking"].evidence.startswith("masked") and f"masking_{sign}" in findings


def test_square_goes_on_as_long_as_it_breaks_one(
    standard: nn.Module, at_linf: nn.Module, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    given = Probes._searched

    def counted(probes: Probes, group: Tensor, eps: float) -> Tensor:
        searched.append(len(group))
        return given(probes, group, eps)

    monkeypatch.setattr(Probes, "_searched", counted)
    report(at_linf, fashion_test, 8)
    assert searched == [4]
    searched.clear()
    report(MASKED["quantised"](standard), fashion_test, 8)
    assert len(searched) > 1


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
    assert "masking_transfer_gained" not in report(standard, fashion_test, 4, name="fashion_mnist/standard")
    assert "masking_transfer_gained" in report(standard, fashion_test, 4)


def test_what_one_start_breaks_is_not_attacked_by_the_next_and_counts_the_same(
    at_linf: nn.Module, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, attacked = Probes.attempt, [0]

    def counted(
        self: Probes, eps: float, loss: LossName, among: Tensor, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attacked[0] += int(among.sum())
        return attempt(self, eps, loss, among, **named)

    def anew(
        self: Probes, eps: float, loss: LossName, among: Tensor, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        broken, ends = counted(self, eps, loss, torch.ones_like(among), **named)
        return broken & among, ends

    monkeypatch.setattr(Probes, "attempt", counted)
    once, fewer = report(at_linf, fashion_test, 16), attacked[0]
    attacked[0] = 0
    monkeypatch.setattr(Probes, "attempt", anew)
    assert report(at_linf, fashion_test, 16) == once
    assert attacked[0] - fewer > 2 * once["masking_single"] > 0


def test_what_the_run_has_broken_at_every_radius_is_not_attacked_again_and_it_is_said(
    at_linf: nn.Module, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = EvaluationContext(
        at_linf, "net", fashion_test, 0, stop=8, seed=0, device=torch.device("cpu"), batch_size=256
    )
    with torch.no_grad():
        predictions = at_linf(context.images()).argmax(1)
    attempt, attacked = Probes.attempt, torch.zeros(8, dtype=torch.bool)

    def counted(
        self: Probes, eps: float, loss: LossName, among: Tensor, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attacked[self.places[among]] = True
        return attempt(self, eps, loss, among, **named)

    monkeypatch.setattr(Probes, "attempt", counted)
    results = AttackResults.start(predictions, context.labels())
    right, radii = predictions == context.labels(), {"linf": [0.05, 0.1], "l2": [1.0]}
    results.distances["linf"][:6], results.distances["l2"][:4] = torch.tensor([0.01] * 5 + [0.06]), 0.5
    counts = probe(
        context, context.images(), predictions, [results], reference={"linf": 0.1}, every=1, into=[results], radii=radii
    )
    settled = right & (torch.arange(8) < 4)
    assert counts["masking_settled"] == int(settled.sum()) > 0
    assert attacked.tolist() == (right & ~settled).tolist()
    said = by_id(masking_findings(counts | {"masking_probed": FEWEST}))["gradient_masking"].evidence
    assert f"{FEWEST} images probed, {int(settled.sum())} broken at every radius not attacked again: " in said


@pytest.mark.parametrize(("count", "judged"), [(FEWEST - 1, False), (FEWEST, True)])
def test_few_images_give_no_verdict(standard: nn.Module, fashion_test: ImageDataset, count: int, judged: bool) -> None:
    counters = report(MASKED["quantised"](standard), fashion_test, 4)
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


@pytest.mark.parametrize(("gained", "fires"), [(5, False), (10, False), (13, True)])
def test_what_another_loss_gains_is_a_sign_where_it_is_surely_more_than_a_twentieth(gained: int, fires: bool) -> None:
    none = ("random", "zero_margin", "zero_cross_entropy", "single", "restart", "square_gained")
    counts = dict.fromkeys(none, 0) | {"probed": 125, "examples": 120, "margin": gained}
    findings = masking_findings({f"masking_{name}": count for name, count in counts.items()})
    assert ("masking_margin_gain" in by_id(findings)) is fires


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
