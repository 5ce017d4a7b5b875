"""The suites faithfulness, complexity, localisation and sanity_checks, whose controls stand beside every score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.leaderboard.table import read_leaderboard
from bench.protocols import EvaluationContext, Protocol
from bench.protocols.explanations.base import Batch, Unit
from bench.protocols.explanations.controlled import ControlledProtocol
from bench.protocols.explanations.f_fidelity import FFidelity, f_fidelity, fine_tune
from tests.conftest import Bench
from tests.protocols.attribution_suites import make, require_same_numbers, run, values

HEAD = """
schema_version = 1
name = "{name}"
version = 1
protocol = "{name}"
examples = 24

[parameters]
attributions = [{{ name = "gradient" }}, {{ name = "input_x_gradient" }}]
"""
F_FIDELITY = """
f_fidelity = { beta = 0.1, alpha = 0.5, shares = [0.3], draws = 2, training_examples = 8, epochs = 1, batch_size = 4, learning_rate = 1e-3 }
"""
FAITHFULNESS = (
    HEAD.format(name="faithfulness")
    + """
multiplied = ["input_x_gradient"]
infidelity = { draws = 8, side = 0.3 }
sensitivity = { draws = 2, radius = 0.05 }
road = { shares = [0.2, 0.5] }
sufficiency = { references = 6, nearest = 2 }
insertion = { steps = 4 }
"""
)
SUITES = {
    "faithfulness": FAITHFULNESS + F_FIDELITY,
    "complexity": HEAD.format(name="complexity"),
    "localisation": HEAD.format(name="localisation"),
    "sanity_checks": HEAD.format(name="sanity_checks") + 'measures = ["spearman"]\n',
}
CONTROLS = {"control_random", "control_sobel", "control_image", "control_blurred"}


def evaluate(
    protocol: Protocol, net: nn.Module, data: ImageDataset, start: int = 0, stop: int = 8, batch: int = 256
) -> pd.DataFrame:
    context = EvaluationContext(
        net, "net", data, start, stop=stop, seed=0, device=torch.device("cpu"), batch_size=batch, training=data
    )
    return protocol.evaluate(context).records


@pytest.mark.parametrize("name", SUITES)
def test_values_do_not_depend_on_batches_units_or_processes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 5, stride=3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 64, 2))
    net, data = net.eval().requires_grad_(False), quadrants()
    whole = evaluate(make(tmp_path, SUITES[name]), net, data)
    protocol = make(tmp_path, SUITES[name])  # as another process has it
    parts = [evaluate(protocol, net, data, begin, stop=stop, batch=3) for begin, stop in ((0, 2), (2, 8))]
    require_same_numbers(whole, pd.concat(parts, ignore_index=True))
    assert set(whole["attribution"]) == {"gradient", "input_x_gradient", *CONTROLS}


class LinearNet(nn.Module):
    """Two classes, the second if the upper left quadrant is bright; its gradient says all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.corner = nn.Parameter(torch.zeros(1, 1, 28, 28), requires_grad=False)
        self.corner[..., :14, :14] = 4.0 / 14**2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = (self.corner * images).sum((1, 2, 3)) - 2.0
        return torch.stack([-bright, bright], 1)


def quadrants() -> ImageDataset:
    """Random grey, with a bright upper left quadrant in every second image."""
    torch.manual_seed(0)
    images = torch.randint(0, 128, (24, 1, 28, 28), dtype=torch.uint8)
    labels = (torch.arange(24) + 1) % 2
    images[labels == 1, :, :14, :14] += 120
    return ImageDataset("quadrants", "test", images, labels, class_names=("dark", "bright"), source="made")


@pytest.fixture(scope="module")
def faithful(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """What the suite says of the linear net."""
    protocol = make(tmp_path_factory.mktemp("suite"), FAITHFULNESS + F_FIDELITY.replace("1e-3", "1e-9"))
    found = values(protocol, evaluate(protocol, LinearNet(), quadrants(), stop=24))
    return {key: value for (key, _, _), value in found.items()}


def test_of_a_linear_net_the_gradient_is_faithful_by_every_metric_and_a_random_map_by_none(
    faithful: dict[str, float],
) -> None:
    for method in ("gradient", "input_x_gradient"):
        assert faithful[f"infidelity {method}"] == pytest.approx(0.0, abs=1e-5)
        assert faithful[f"infidelity_raw {method}"] == pytest.approx(0.0, abs=1e-8)
    assert faithful["infidelity control_random"] > 0.3
    assert faithful["max_sensitivity gradient"] == 0.0 < faithful["max_sensitivity input_x_gradient"]
    assert faithful["road_least input_x_gradient"] >= faithful["road_least control_random"]
    assert faithful["insertion/gradient"] != faithful["insertion/control_random"]


def test_what_is_made_of_the_gradient_takes_no_second_one_and_tells_what_it_costs_alone(tmp_path: Path) -> None:
    """Input times gradient, the blurred control."""
    protocol: ControlledProtocol = make(tmp_path, SUITES["complexity"])  # type: ignore[assignment]
    result = run(protocol, LinearNet(), quadrants(), stop=8)
    assert result.counters["gradient_evaluations"] == 8
    (cost,) = ControlledProtocol.findings(protocol, result.counters)
    assert "gradient 1 gradients, 1 passes" in cost.evidence and "input_x_gradient 1 gradients, 1 pass" in cost.evidence
    found = result.records.set_index("attribution")["sparseness"]
    assert 0 < found["control_blurred"].iloc[0] < found["gradient"].iloc[0]
    context = EvaluationContext(
        LinearNet(), "net", quadrants(), 0, stop=8, seed=0, device=torch.device("cpu"), batch_size=8
    )
    unit = Unit(context, 1.0, {"gradient_evaluations": 0})
    batch = Batch(torch.rand(8, 1, 28, 28), torch.arange(8) % 2, torch.arange(8), torch.zeros(8))
    made = dict(protocol.all_attributions(unit, batch))["input_x_gradient"]
    assert torch.equal(made, batch.attributions(context.model, protocol.parameters.attributions[1], context.seed))


def test_on_mosaics_the_map_of_a_net_that_sees_one_quadrant_lies_there(tmp_path: Path) -> None:
    protocol = make(tmp_path, SUITES["localisation"])
    records = evaluate(protocol, LinearNet(), quadrants(), stop=24)
    bright = records[(records["label"] == 1) & (records["attribution"] == "gradient")]
    assert set(bright["relevance_mass"]) == {0.0, 1.0}  # where its own tile is the one that the net sees, or is not
    assert records[records["attribution"] == "control_random"]["relevance_mass"].mean() == pytest.approx(0.25, abs=0.03)


class ColourNet(LinearNet):
    """The same of three equal channels; its gradients of two of them cancel but for what `LinearNet` sees."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey, other = images[:, :1], images[:, 1:2]
        return super().forward(grey) + 8.0 * (grey - other).sum((1, 2, 3))[:, None]


def test_channels_are_summed_before_the_positive_part_is_taken(tmp_path: Path) -> None:
    protocol, grey = make(tmp_path, SUITES["localisation"]), quadrants()
    colour = replace(grey, store=grey.images.repeat(1, 3, 1, 1))
    plain, found = (evaluate(protocol, *one, stop=24) for one in ((LinearNet(), grey), (ColourNet(), colour)))
    plain, found = (one[one["attribution"] == "gradient"].reset_index(drop=True) for one in (plain, found))
    columns = ["relevance_mass", "pointing_game", "top_k_inside"]
    pd.testing.assert_frame_equal(found.loc[found["label"] == 1, columns], plain.loc[plain["label"] == 1, columns])


def test_in_two_classes_the_random_logit_is_the_other_one_and_a_linear_map_stays_as_it_is(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 2, bias=False)).requires_grad_(False)
    net[1].weight[1] = -net[1].weight[0]
    protocol = make(tmp_path, SUITES["sanity_checks"])
    found = values(protocol, evaluate(protocol, net, quadrants()))
    assert found["random_logit/spearman/gradient", "", None] == pytest.approx(1.0, abs=1e-4)
    assert abs(found["cascade/spearman/gradient/all", "", None]) < 0.2
    for control in ("random", "sobel", "image"):
        assert found[f"cascade/spearman/control_{control}/all", "", None] == pytest.approx(1.0, abs=1e-4)
        assert found[f"efficient_mprt control_{control}", "", None] == 0.0


def test_a_dead_net_gives_defined_numbers(tmp_path: Path, fashion_test: ImageDataset) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))
    nn.init.constant_(net[0].bias, -100.0)
    net = net.eval().requires_grad_(False)
    for content in (FAITHFULNESS, SUITES["complexity"], SUITES["localisation"], SUITES["sanity_checks"]):
        protocol = make(tmp_path, content)
        result = run(protocol, net, fashion_test, stop=4)
        found = protocol.metrics("fashion_mnist", result.records)
        assert len(found) > 4 and all(np.isfinite([one.value, one.ci_low, one.ci_high]).all() for one in found)
        assert "empty_maps_gradient" in {finding.id for finding in result.findings}


MISTAKES = {
    "multiplied by no method of the suite": (
        FAITHFULNESS.replace('["input_x', '["input_y'),
        "none of the attributions",
    ),
    "nothing to measure": (HEAD.format(name="faithfulness"), "give one of infidelity"),
    "share of all pixels": (FAITHFULNESS.replace("[0.2, 0.5]", "[1.0]"), "less than 1"),
    "check without spearman": (SUITES["sanity_checks"].replace("spearman", "top_k"), "judged by spearman"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_suite_is_explained(mistake: str, tmp_path: Path) -> None:
    content, expected = MISTAKES[mistake]
    with pytest.raises(BenchError, match=expected):
        make(tmp_path, content)


def test_f_fidelity_needs_training_images_and_a_net_with_weights(tmp_path: Path, fashion_test: ImageDataset) -> None:
    protocol = make(tmp_path, FAITHFULNESS + F_FIDELITY)
    assert protocol.needs_training_split and not make(tmp_path, FAITHFULNESS).needs_training_split
    few = replace(fashion_test, store=fashion_test.images[:4], labels=fashion_test.labels[:4])
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).requires_grad_(False)
    with pytest.raises(BenchError, match="8 training images"):
        evaluate(protocol, net, few, stop=2)

    class Fixed(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10]

    with pytest.raises(BenchError, match="no weights to train"):
        protocol.require_net(Fixed(), fashion_test.pixels(slice(0, 2)))


def test_f_fidelity_puts_maps_in_the_order_in_which_a_planted_feature_is_shuffled_away() -> None:
    """As the paper judges metrics: a map is degraded by shuffling more and more of its scores."""

    class Patch(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            bright = images[:, 0, 2:6, 3:7].sum((1, 2)) - 14.0  # 16 white pixels, of which three masked turn the answer
            return torch.stack([-bright, bright], 1)

    torch.manual_seed(0)
    images = torch.randint(0, 60, (40, 1, 12, 12), dtype=torch.uint8)
    images[:, :, 2:6, 3:7] = 255
    labels = torch.ones(40, dtype=torch.int64)
    data = ImageDataset("patches", "test", images, labels, class_names=("no", "yes"), source="made")
    net, settings = Patch(), {"beta": 0.1, "alpha": 0.5, "shares": [0.1, 0.2, 0.3], "draws": 10}
    context = EvaluationContext(
        net, "net", data, 0, stop=40, seed=0, device=torch.device("cpu"), batch_size=40, training=data
    )
    training = {"training_examples": 8, "epochs": 1, "batch_size": 4, "learning_rate": 1e-4}
    planted = torch.rand(40, 1, 12, 12)
    planted[:, :, 2:6, 3:7] += 1.0
    maps = {}
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        moved = torch.rand(40, 144).argsort(1)[:, : round(share * 144)]
        values = planted.flatten(1).clone()
        values.scatter_(1, moved, values.gather(1, moved.roll(1, 1)))
        maps[str(share)] = values.view_as(planted)
    batch = Batch(context.images(), labels, torch.arange(40), labels)
    found = f_fidelity(net, Unit(context, 1.0, {}), batch, maps, settings=FFidelity(**settings, **training))
    most, least = ([float(one[name].mean()) for one in found.values()] for name in ("f_fidelity", "f_fidelity_least"))
    assert most == sorted(most, reverse=True) and most[0] > 0.9 > 0.5 > most[-1]
    assert least == sorted(least) and least[0] == 0.0


def test_in_fine_tuning_just_the_share_beta_of_every_image_is_masked_in_all_channels() -> None:
    seen = []

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return images.mean((1, 2, 3))[:, None] * self.weight

    images = torch.arange(6 * 3 * 100, dtype=torch.int64).remainder(97).to(torch.uint8).view(6, 3, 10, 10)
    data = ImageDataset("colours", "train", images, torch.arange(6) % 2, class_names=("a", "b"), source="made")
    context = EvaluationContext(
        Watch(), "net", data, 0, stop=6, seed=0, device=torch.device("cpu"), batch_size=40, training=data
    )
    settings = FFidelity(
        beta=0.13, alpha=0.5, shares=[0.5], draws=1, training_examples=6, epochs=2, batch_size=6, learning_rate=0.1
    )
    fine_tune(context, settings)
    masked = [(batch == data.channel_means.view(1, 3, 1, 1)).all(1) for batch in seen]
    assert [part.sum((1, 2)).tolist() for part in masked] == [[13] * 6] * 2
    assert not torch.equal(*masked)


def test_the_command_line_prints_cost_and_marks_what_a_control_beats(tmp_path: Path, bench: Bench) -> None:
    suite, board = tmp_path / "suite.toml", tmp_path / "board"
    suite.write_text(SUITES["complexity"])
    code, out, error = bench("run", "--model", "standard", "--suite", suite, "--examples", 4, "--leaderboard", board)
    said = " ".join((out + error).split())
    assert code == 0 and "a map costs: gradient 1 gradients, 1 passes" in said and "beaten_by_a_control" in said
    assert "gradient †" in out  # the image itself is sparser than its gradient
    rows = read_leaderboard(board)
    assert set(rows[rows["subject"].str.startswith("control_")]["direction"]) == {"descriptive"}
    assert "†" in bench("leaderboard", "--leaderboard", board, "--format", "markdown")[1]
    page = tmp_path / "page.html"
    assert bench("report", "--leaderboard", board, "--output", page)[0] == 0
    assert "control_image does as well or better" in page.read_text()
