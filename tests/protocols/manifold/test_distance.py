from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from bench.catalog.autoencoders import AutoencoderCard, Quality, read_autoencoder, write_autoencoder
from bench.catalog.cards import Weights
from bench.catalog.models import resolve_models
from bench.catalog.suites import read_suite
from bench.core.errors import BenchError
from bench.core.files import sha256_bytes
from bench.data import ImageDataset
from bench.leaderboard.boards import make_boards
from bench.leaderboard.evidence.manifest import Dependency, read_manifest
from bench.leaderboard.metrics import Metric, derived_metrics
from bench.leaderboard.statistics.intervals import bootstrap
from bench.leaderboard.table import read_leaderboard
from bench.nets.vae_gan import VaeGan
from bench.protocols import EvaluationContext, protocol_for
from bench.protocols.base import UnitResult
from bench.protocols.manifold.metrics import MANIFOLD_COLUMNS, auroc, distance_metrics, kept_values
from bench.runs.execute import execute
from bench.runs.plan import RunRequest, plan_runs
from bench.runs.units import ready_model

SUITE = """
schema_version = 1
name = "tiny_manifold"
version = 1
protocol = "manifold_distance"
examples = 60

[parameters]
autoencoder = "vae_gan"

[parameters.datasets]
fashion_mnist = { eps = 3.0, step_size = 0.5, steps = 10 }
cifar10 = { eps = 3.0, step_size = 0.5, steps = 10 }
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny_manifold.toml"
    path.write_text(SUITE)
    return path


def publish(root: Path, dataset: str = "fashion_mnist", claimed: str | None = None) -> Path:
    """An untrained autoencoder in a registry of its own."""
    folder = root / dataset / "vae_gan"
    folder.mkdir(parents=True)
    parameters = {"in_channels": 1, "image_size": 28, "code_size": 10, "width": 0.05}
    torch.manual_seed(0)
    net = VaeGan(**parameters)  # type: ignore[arg-type]
    content = save(net.state_dict())
    (folder / "weights.safetensors").write_bytes(content)
    card = AutoencoderCard(
        schema_version=1, id="vae_gan", dataset=claimed or dataset, architecture="vae_gan",
        architecture_parameters=parameters, weights=Weights(sha256=sha256_bytes(content), parameters=1),
        quality=Quality(examples=1, explained_variance=0.0, mean_l2=0.0), training={},
    )  # fmt: skip
    write_autoencoder(folder, card)
    return folder


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "registry"
    root.mkdir()
    monkeypatch.setenv("BENCH_REGISTRY", str(root))
    return root


def evaluate(path: Path, model: nn.Module, data: ImageDataset, batch_size: int = 256, seed: int = 0) -> UnitResult:
    protocol = protocol_for(read_suite(path))
    protocol.require_dataset("fashion_mnist")
    context = EvaluationContext(
        model, "net", data, 0, stop=60, seed=seed, device=torch.device("cpu"), batch_size=batch_size, examples=60
    )
    return protocol.evaluate(context)


def test_distances_are_those_to_the_reconstruction_whatever_the_batch(
    suite: Path, registry: Path, at_linf: nn.Module, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    from bench.catalog.autoencoders import load_autoencoder

    net = load_autoencoder(read_autoencoder(publish(registry)))
    records = evaluate(suite, at_linf, fashion_test).records
    images = fashion_test.pixels(slice(0, 60))
    expected = (images - net.project(images)).flatten(1).norm(dim=1)
    assert records["clean_distance"].to_numpy() == pytest.approx(expected.numpy(), rel=1e-4)
    assert records["perturbation"].max() <= 3.0 * (1 + 1e-5) and records["perturbation"].min() > 1.0
    assert (records["reference_prediction"].to_numpy() == standard(images).argmax(1).numpy()).all()
    assert (records["prediction"].to_numpy() == at_linf(images).argmax(1).numpy()).all()
    batched = evaluate(suite, at_linf, fashion_test, batch_size=7).records
    assert batched["adversarial_distance"].to_numpy() == pytest.approx(
        records["adversarial_distance"].to_numpy(), rel=0.02
    )
    suite.write_text(SUITE.replace('"vae_gan"', '"vae_gan"\ncode = "sampled"'))
    sampled, again = (evaluate(suite, at_linf, fashion_test, batch_size=size).records for size in (60, 11))
    assert not np.allclose(sampled["clean_distance"], records["clean_distance"], rtol=1e-4)
    assert again["clean_distance"].to_numpy() == pytest.approx(sampled["clean_distance"].to_numpy(), rel=1e-4)
    other = evaluate(suite, at_linf, fashion_test, seed=1).records
    for column in ("clean_distance", "adversarial_distance"):
        assert not np.allclose(sampled[column], other[column], rtol=1e-4), "the codes are drawn with the run's seed"


class BlindAtBlack(nn.Module):
    """A net whose gradient is NaN at the middle pixel where that is black."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images) + 0 * images[:, :, 14, 14].sqrt()


def test_a_gradient_that_is_not_finite_is_a_finding_and_no_distance(
    suite: Path, registry: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    publish(registry)
    suite.write_text(SUITE.replace("steps = 10", "steps = 2"))
    result = evaluate(suite, BlindAtBlack(standard), fashion_test)
    black = int((fashion_test.images[:60, 0, 14, 14] == 0).sum())
    (finding,) = [finding for finding in result.findings if finding.id == "bad_gradients"]
    assert 0 < black < 60 and finding.evidence == f"{black} of 60 image gradients were NaN or infinite"
    assert np.isfinite(result.records.drop(columns="turned_distance").to_numpy(dtype=float)).all()
    assert np.isfinite(result.records["turned_distance"]).sum() > 50
    assert np.isfinite([metric.value for metric in metrics_of(result.records)]).all()


def metrics_of(records: pd.DataFrame) -> list[Metric]:
    return [*derived_metrics(kept_values(records)), *distance_metrics(records)]


def test_an_autoencoder_that_reconstructs_badly_is_not_trusted(
    suite: Path, registry: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    publish(registry)
    found = evaluate(suite, standard, fashion_test).findings
    assert [finding.id for finding in found] == ["poor_autoencoder"]
    suite.write_text(SUITE.replace('"vae_gan"', '"vae_gan"\nleast_explained_variance = 0.0'))
    metrics = metrics_of(evaluate(suite, standard, fashion_test).records)
    explained = next(metric.value for metric in metrics if metric.key.metric == "explained_variance")
    assert explained < 0.5


def test_the_filters_and_their_metrics(
    suite: Path, registry: Path, at_linf: nn.Module, fashion_test: ImageDataset
) -> None:
    publish(registry)
    records = evaluate(suite, at_linf, fashion_test).records
    metrics = {(one.key.metric, one.key.subject): one for one in metrics_of(records)}
    for name, changed in (
        ("fooled_reference", records["reference_adversarial_prediction"] != records["reference_prediction"]),
        ("fooled_itself", records["adversarial_prediction"] != records["prediction"]),
    ):
        assert 1 < changed.sum() < 60
        assert metrics["kept_share", name].value == pytest.approx(changed.mean())
        median = records.loc[changed, "adversarial_distance"].median()
        metric = metrics["manifold_distance", name]
        assert metric.value == pytest.approx(median) and metric.ci_low <= median <= metric.ci_high
        ratio = metrics["manifold_distance_ratio", name].value
        assert ratio == pytest.approx(median / records["clean_distance"].median())
        gaps = records.loc[changed, "adversarial_distance"] - records.loc[changed, "turned_distance"]
        assert metrics["manifold_excess", name].value == pytest.approx(gaps.mean()) and gaps.abs().max() > 0.01
    older = metrics_of(records.drop(columns="turned_distance"))
    assert "manifold_excess" not in {one.key.metric for one in older}, "records of before the control"


def test_the_explained_variance_has_the_interval_of_a_ratio_of_means() -> None:
    random = np.random.default_rng(0)
    spreads = random.uniform(5.0, 9.0, 400)
    errors = spreads * random.uniform(0.3, 0.6, 400)
    records = pd.DataFrame({"clean_distance": errors, "spread": spreads, "example_id": range(400)})
    records[[name for name in MANIFOLD_COLUMNS if name not in records]] = 0
    (metric,) = [one for one in distance_metrics(records) if one.key.metric == "explained_variance"]
    assert metric.value == pytest.approx(1.0 - (errors**2).sum() / (spreads**2).sum())

    def explained(drawn: np.ndarray) -> np.ndarray:
        return 1.0 - drawn[..., 0].sum(1) / drawn[..., 1].sum(1)

    low, high = bootstrap(explained, np.stack([errors**2, spreads**2], axis=1))
    assert (metric.ci_low, metric.ci_high) == pytest.approx((low, high), abs=0.1 * (high - low))


@pytest.mark.parametrize("count", [3, 5, 6, 40])
def test_no_interval_of_few_images_is_impossible_or_without_width(count: int) -> None:
    clean = np.linspace(1.0, 4.0, count)
    records = pd.DataFrame({"clean_distance": clean, "spread": 6.0, "adversarial_distance": clean + 9})
    records[[name for name in MANIFOLD_COLUMNS if name not in records]] = 0
    records["reference_adversarial_prediction"] = 1
    found = {one.key.metric: one for one in distance_metrics(records)}
    assert found["explained_variance"].ci_high <= 1.0 and found["manifold_auroc"].value == 1.0
    assert np.isnan([found["manifold_auroc"].ci_low, found["manifold_auroc"].ci_high]).all()
    for name in ("clean_manifold_distance", "manifold_distance", "manifold_distance_ratio"):
        low, high = found[name].ci_low, found[name].ci_high
        assert low < high if count >= 6 else np.isnan([low, high]).all()


def test_the_area_counts_pairs() -> None:
    random = np.random.default_rng(0)
    clean, adversarial = random.integers(0, 9, 40).astype(float), random.integers(2, 11, 30).astype(float)
    pairs = (adversarial[:, None] > clean).mean() + 0.5 * (adversarial[:, None] == clean).mean()
    assert float(auroc(clean, adversarial)) == pytest.approx(pairs)
    assert float(auroc(clean, clean + 100)) == 1.0


def test_a_missing_foreign_or_damaged_autoencoder_is_refused(suite: Path, registry: Path) -> None:
    protocol = protocol_for(read_suite(suite))
    with pytest.raises(BenchError, match=r"no autoencoder vae_gan of cifar10; train it with .* --id vae_gan --dataset"):
        protocol.dependencies("cifar10", "cifar10/net", None)
    with pytest.raises(BenchError, match="unknown data set for this suite 'mnist'"):
        protocol.require_dataset("mnist")
    publish(registry, "cifar10", claimed="fashion_mnist")
    with pytest.raises(BenchError, match="was trained on fashion_mnist; the manifold of cifar10 needs one"):
        protocol.dependencies("cifar10", "cifar10/net", None)


def test_a_missing_reference_model_is_named_as_such(suite: Path, registry: Path) -> None:
    publish(registry)
    suite.write_text(SUITE.replace('autoencoder = "vae_gan"', 'reference_model = "bridging_standard"'))
    line = (
        r"no model fashion_mnist/bridging_standard, the suite's reference_model; .* --id bridging_standard --dataset f"
    )
    with pytest.raises(BenchError, match=line):
        protocol_for(read_suite(suite)).dependencies("fashion_mnist", "fashion_mnist/net", None)


def test_weights_that_are_not_the_cards_are_refused(
    suite: Path, registry: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    folder = publish(registry)
    (folder / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-4])
    with pytest.raises(BenchError, match="do not match their card"):
        evaluate(suite, standard, fashion_test)


def test_the_nets_that_the_distances_depend_on_stand_in_manifest_and_rows(
    suite: Path, registry: Path, tmp_path: Path
) -> None:
    publish(registry)
    own = tmp_path / "own"
    other = publish(own)
    state = load((other / "weights.safetensors").read_bytes())
    content = save({name: value + 0.01 for name, value in state.items()})
    (other / "weights.safetensors").write_bytes(content)
    card = read_autoencoder(other).card
    weights = Weights(sha256=sha256_bytes(content), parameters=1)
    write_autoencoder(other, card.model_copy(update={"weights": weights}))

    runs = []
    for folder in (None, own):
        (plan,) = plan_runs(RunRequest(["at_linf"], [str(suite)], tmp_path / "board", examples=5, registry=folder))
        runs.append((plan, execute(plan, tmp_path / "board")))
    (plan, outcome), (other_plan, other_outcome) = runs
    reference = resolve_models(["standard"])[0].card.weights.sha256
    own_weights = read_autoencoder(registry / "fashion_mnist" / "vae_gan").card.weights.sha256
    for run, expected in ((outcome, own_weights), (other_outcome, weights.sha256)):
        assert read_manifest(run.folder).config.dependencies == {
            "autoencoder": Dependency(expected), "reference_model": Dependency(reference)
        }  # fmt: skip
    distances = [pd.read_parquet(one.folder / "examples.parquet")["clean_distance"] for one in (outcome, other_outcome)]
    assert not np.allclose(*distances, rtol=1e-4), "--registry is looked in first"
    rows = read_leaderboard(tmp_path / "board")
    digests = [one.config.dependencies_sha256 for one in (plan, other_plan)]
    assert list(rows["dependencies_sha256"].unique()) == [digest and digest[:16] for digest in digests]
    assert len(make_boards(rows)) == 2

    with pytest.raises(BenchError, match="depends on the autoencoder, which is not the one that the run was planned"):
        ready_model(dataclasses.replace(plan, registry=own))
