from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import platformdirs
import pytest
import torch
from torch import Tensor, nn

from bench.catalog.suites import read_suite
from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.leaderboard.table import read_leaderboard
from bench.protocols import EvaluationContext, protocol_for
from bench.protocols.retraining import cache
from bench.protocols.retraining import protocol as module
from bench.protocols.retraining.metrics import correct_matrix, map_scores
from bench.protocols.retraining.parameters import count
from bench.protocols.retraining.protocol import Retrain
from tests.conftest import Bench
from tests.data.formats.test_idx import idx

SUITE = """
schema_version = 1
name = "tiny_roar"
version = 1
protocol = "retrain"
examples = 300

[parameters]
direction = "roar"
shares = [0.3, 0.7]
attributions = ["gradient"]
controls = ["mask_only", "sobel"]
seeds = 2
training_examples = 500
architecture = "patch_cnn"
architecture_parameters = { width = 4, hidden = 16 }
epochs = 1
batch_size = 25
learning_rate = 4e-3
decay = true
nets_side_by_side = 4
"""
CPU = torch.device("cpu")


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    path = tmp_path / "tiny_roar.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def data_dir(tmp_path: Path, fashion_test: ImageDataset) -> Path:
    """A training split of 600 images, cut from the end of the embedded test split."""
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(fashion_test.images[-600:, 0].numpy()), 1))
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(fashion_test.labels[-600:].numpy()), 1))
    return tmp_path / "data"


def split(data: ImageDataset, part: slice, name: str) -> ImageDataset:
    return ImageDataset(
        data.name, name, data.images[part], data.labels[part], class_names=data.class_names, source="made here"
    )


def evaluate(path: Path, model: nn.Module, data: ImageDataset) -> tuple[Retrain, pd.DataFrame]:
    protocol = protocol_for(read_suite(path))
    assert isinstance(protocol, Retrain)
    common: dict[str, Any] = {"seed": 0, "device": CPU, "batch_size": 256, "examples": 300}
    common["training"] = split(data, slice(9000, 9600), "train")
    frames = [
        protocol.evaluate(EvaluationContext(model, "net", data, start, stop=stop, **common)).records
        for start, stop in protocol.units(300)
    ]
    return protocol, pd.concat(frames, ignore_index=True)


def test_shares_are_the_papers_counts_of_pixels() -> None:
    assert [count(share, 1024) for share in (0.1, 0.3, 0.5, 0.7, 0.9)] == [103, 307, 512, 717, 921]
    assert count(0.3, 784) + count(0.7, 784) == 784


def test_every_net_leaves_a_record_whose_bits_are_its_accuracy(
    suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol, records = evaluate(suite, standard, fashion_test)
    maps = ["random", "sobel", "gradient", "mask_only:gradient"]
    assert records.groupby("map", sort=False).size().to_dict() == {"unmasked": 2, **dict.fromkeys(maps, 4)}
    for name in maps:
        correct, removed = correct_matrix(records[records["map"] == name])
        assert correct.shape == (2, 2, 300)
        assert removed == pytest.approx([count(0.3, 784) / 784, count(0.7, 784) / 784])
        assert correct.sum() == records.loc[records["map"] == name, "correct"].sum()
    metrics = {(metric.key.metric, metric.key.subject): metric for metric in protocol.metrics("fashion_mnist", records)}
    assert metrics["roar_score", "gradient"].value == pytest.approx(map_scores("roar", records)["gradient"].value)
    assert ("roar_score", "random") not in metrics
    score, shapes, rest = (
        metrics[name, of]
        for name, of in (
            ("roar_score", "gradient"), ("roar_score", "mask_only:gradient"), ("roar_score_less_mask_only", "gradient"),
        )
    )  # fmt: skip
    assert rest.value == pytest.approx(score.value - shapes.value) and shapes.direction == "descriptive"
    assert rest.ci_low < rest.value < rest.ci_high
    unmasked = records.loc[records["map"] == "unmasked", "correct"] / 300
    assert metrics["retrained_accuracy", "unmasked/0"].value == pytest.approx(unmasked.mean())
    assert unmasked.mean() > 0.2


def test_what_no_model_has_a_part_in_is_trained_once_and_damage_is_noticed(
    suite: Path, standard: nn.Module, at_linf: nn.Module, fashion_test: ImageDataset, tmp_path: Path
) -> None:
    _, first = evaluate(suite, standard, fashion_test)
    files = sorted((tmp_path / "cache" / "retraining").glob("*.parquet"))
    assert len(files) == 3  # unmasked, random, sobel
    stamps = [path.stat().st_mtime_ns for path in files]
    _, second = evaluate(suite, at_linf, fashion_test)
    assert [path.stat().st_mtime_ns for path in files] == stamps
    shared = first["map"].isin(["unmasked", "random", "sobel"])
    pd.testing.assert_frame_equal(first[shared], second[shared])
    assert not first[~shared].equals(second[~shared])
    files[0].write_bytes(b"rubbish")
    _, third = evaluate(suite, standard, fashion_test)
    assert (third["correct"] - first["correct"]).abs().max() <= 3


def test_keeping_random_pixels_is_removing_the_others(suite: Path) -> None:
    roar = protocol_for(read_suite(suite))
    suite.write_text(SUITE.replace('"roar"', '"kar"'))
    kar = protocol_for(read_suite(suite))
    assert isinstance(roar, Retrain) and isinstance(kar, Retrain)
    group = roar.parameters.groups()[1]
    assert group.map == "random"
    assert roar.parameters.masks(group, 784) == kar.parameters.masks(group, 784)
    shown = kar.parameters.groups()[3]
    assert shown.map == "gradient"
    assert [(mask.first_kept, mask.last_kept) for mask in kar.parameters.masks(shown, 784)] == [(0, 235), (0, 549)]


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 10) + 0 * images.sum((1, 2, 3))[:, None]


def test_a_model_whose_maps_are_constant_is_refused(suite: Path, fashion_test: ImageDataset) -> None:
    with pytest.raises(BenchError, match="every gradient map of net has the same score at all pixels"):
        evaluate(suite, Constant(), fashion_test)


class BlindAtBlack(nn.Module):
    """A net whose gradient is NaN where the image's middle is black."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1)) + 0 * images[:, :, 14, 14].sqrt()


def test_maps_that_are_not_finite_are_ranked_at_random_with_a_warning(
    suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = protocol_for(read_suite(suite))
    assert isinstance(protocol, Retrain)
    group = next(group for group in protocol.parameters.groups() if group.map == "gradient")

    def ranked(net: nn.Module) -> tuple[Tensor, list[str]]:
        context = EvaluationContext(
            net.requires_grad_(False), "net", fashion_test, 0, stop=60, seed=0, device=CPU, batch_size=60, examples=60
        )
        ranks, findings = protocol._ranks(
            group, context, fashion_test, 60, first_id=0, kept=cache.Unfinished({}, "test", "this")
        )
        return ranks, [f"{finding.id}: {finding.evidence}" for finding in findings]

    black = fashion_test.images[:60, 0, 14, 14] == 0
    net = BlindAtBlack()
    ranks, found = ranked(net)
    assert found == [f"non_finite_maps: {100 * float(black.float().mean()):.2f} % of the test images have a gradient map "
                     "with NaN or infinite values"]  # fmt: skip
    expected, none = ranked(nn.Sequential(nn.Flatten(), net.layer))
    assert none == [] and 0 < int(black.sum()) < 60
    assert torch.equal((ranks == expected).flatten(1).all(1), ~black)
    with pytest.raises(BenchError, match="every gradient map of net is NaN or infinite"):
        ranked(nn.Sequential(nn.Flatten(), Root(), net.layer))


@pytest.mark.parametrize(("name", "invisible"), [("gradient", True), ("integrated_gradients", False)])
def test_images_are_called_invisible_where_their_map_is(
    name: str, invisible: bool, suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    """A map that averages gradients holds their vanishing factor already; it must not be counted twice."""
    suite.write_text(SUITE.replace('["gradient"]', f'["{name}"]'))
    protocol = protocol_for(read_suite(suite))
    assert isinstance(protocol, Retrain)
    group = next(group for group in protocol.parameters.groups() if group.map == name)
    context = EvaluationContext(
        standard, "net", fashion_test, 0, stop=60, seed=0, device=CPU, batch_size=60, examples=60
    )
    kept = cache.Unfinished({}, "test", "this")
    _, found = protocol._ranks(group, context, fashion_test, 60, first_id=0, kept=kept)
    assert [finding.id for finding in found] == ["saturated_gradients"] * invisible
    assert all(finding.evidence.endswith(f"have a {name} map with a median below 1e-7") for finding in found)


class Root(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.sqrt()


class Noisy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.rand(len(images), 10) + images.mean((1, 2, 3))[:, None]


def test_a_random_model_is_found_where_its_maps_are_used(suite: Path, fashion_test: ImageDataset) -> None:
    protocol = protocol_for(read_suite(suite))
    assert isinstance(protocol, Retrain)
    context = EvaluationContext(Noisy(), "net", fashion_test, 0, stop=1, seed=0, device=CPU, batch_size=60, examples=20)
    found = {group.map: protocol._output_findings(group, context) for group in protocol.parameters.groups()}
    assert [finding.id for finding in found["gradient"]] == ["random_outputs"]
    assert found["random"] == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[0.3, 0.7]", "[0.0, 0.7]", "every share must lie between 0 and 1"),
        ("[0.3, 0.7]", "[0.3, 1.0]", "every share must lie between 0 and 1"),
        ("[0.3, 0.7]", "[0.7, 0.3]", "shares must grow"),
        ("seeds = 2", "seeds = 1", "seeds:"),
        ('["gradient"]', '["grad"]', "attributions"),
        ("decay = true", "decay = true\nwarmth = 1", "warmth: unknown key"),
    ],
)
def test_impossible_suites_are_refused(bench: Bench, suite: Path, old: str, new: str, line: str) -> None:
    suite.write_text(SUITE.replace(old, new))
    assert line in bench.refused("suites", "validate", suite)


def test_a_run_resumes_at_the_group_it_was_stopped_in(
    bench: Bench, suite: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", "--model", "standard", "--suite", suite, "--data-dir", data_dir, "--device", "cpu")
    trained, original = [], module.retrain

    def stopped(*given: object, **named: object) -> Tensor:
        trained.append(given)
        if len(trained) == 4:
            raise KeyboardInterrupt
        return original(*given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "retrain", stopped)
        assert bench(*arguments, "--leaderboard", tmp_path / "board")[0] == 130
        code, out, err = bench(*arguments, "--leaderboard", tmp_path / "board")
    assert code == 0, err
    assert "3 units resumed" in out and "roar score" in out
    assert len(trained) == 6  # five groups, one of them begun twice
    rows = read_leaderboard(tmp_path / "board")
    assert {"roar_score", "retrained_accuracy"} <= set(rows["metric"]) and {"random/30", "random/70"} <= set(
        rows["subject"]
    )


def test_a_missing_training_split_is_refused(
    bench: Bench, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.data import loading

    monkeypatch.setattr(loading, "_further_places", lambda spec: [])
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    error = bench.refused("run", "--model", "standard", "--suite", suite, "--leaderboard", tmp_path / "board")
    assert "the train split of fashion_mnist is not on this machine" in error
    assert not (tmp_path / "board").exists()


def test_more_training_images_than_there_are_are_refused(
    suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    suite.write_text(SUITE.replace("training_examples = 500", "training_examples = 601"))
    with pytest.raises(BenchError, match="the suite wants 601 training images, fashion_mnist has 600"):
        evaluate(suite, standard, fashion_test)
