from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.attributions.manipulations import MANIPULATIONS
from bench.attributions.registry import AttributionMethod, find_method, our_methods
from bench.catalog.models import load_model, resolve_models
from bench.data import ImageDataset
from bench.reporting.figures import figure_bytes
from bench.reporting.saliency.figure import (
    POSITIVE_COLOURS,
    SIGNED_COLOURS,
    draw_panel,
    outcome_text,
    similarity_text,
)
from bench.reporting.saliency.rows import MapPair, PanelRow, PanelSettings, panel_rows
from tests.protocols.attribution_suites import ATTACK, make, run

EPS = 8 / 255
CPU = torch.device("cpu")


def method(name: str) -> AttributionMethod:
    return find_method(name)


def settings(*names: str, attack: str = "top_k", steps: int = 4, eps: float = EPS) -> PanelSettings:
    return PanelSettings([method(name) for name in names], MANIPULATIONS[attack](steps=steps), eps, 0)  # type: ignore[call-arg]


def pair(before: NDArray[np.float64], after: NDArray[np.float64], *, signed: bool = True) -> MapPair:
    return MapPair(
        "gradient" if signed else "grad_cam", signed, before, after, similarities={"cosine": 0.25, "top_k": 0.5},
        signed_cosine=0.3,
    )  # fmt: skip


def row(*pairs: MapPair, channels: int = 1, words: str = "Coat", kept: bool = True, distance: float = EPS) -> PanelRow:
    image = np.linspace(0, 1, channels * 64, dtype=np.float32).reshape(channels, 8, 8)
    return PanelRow(
        "own/model", 17, words, words, after=words, image=image, attacked=image[:, ::-1], distance=distance, kept=kept,
        maps=pairs,
    )  # fmt: skip


def ramp(low: float, high: float) -> NDArray[np.float64]:
    return np.linspace(low, high, 64).reshape(8, 8)


def titled(figure: Figure, title: str) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title() == title]


# --- colours


@pytest.mark.parametrize(("low", "high"), [(-3.0, 1.0), (0.2, 5.0), (-7.0, -6.0)])
def test_signed_maps_are_drawn_symmetric_around_zero_and_both_on_one_scale(low: float, high: float) -> None:
    shown = pair(ramp(low, high), 2 * ramp(low, high))
    figure = draw_panel([row(shown)], settings("gradient"))
    maps = [axes.images[0] for axes in titled(figure, "gradient")]
    assert len(maps) == 2
    limits = {image.get_clim() for image in maps}
    assert len(limits) == 1
    (bottom, top) = limits.pop()
    assert bottom == -top
    assert top == pytest.approx(np.quantile(np.abs(np.stack([shown.before, shown.after])), 0.99))
    zero = maps[0].to_rgba(np.zeros((1, 1)))[0, 0]
    assert np.ptp(zero[:3]) < 0.01 and zero[:3].min() > 0.9, "zero is neutral"
    assert {image.get_cmap().name for image in maps} == {SIGNED_COLOURS}


def test_non_negative_maps_are_drawn_from_zero_in_a_sequential_colour_map() -> None:
    figure = draw_panel([row(pair(ramp(0, 1), ramp(0, 2), signed=False))], settings("grad_cam"))
    for axes in titled(figure, "grad_cam"):
        assert axes.images[0].get_clim()[0] == 0.0
        assert axes.images[0].get_cmap().name == POSITIVE_COLOURS


def test_a_single_outlier_does_not_bleach_the_map_and_the_scale_says_so() -> None:
    spiked = ramp(-1, 1)
    spiked[0, 0] = -1000.0
    scale = pair(spiked, spiked[::-1]).scale
    assert scale.high < 1000 and scale.clipped
    assert not pair(np.full((8, 8), 2.0), np.full((8, 8), -2.0)).scale.clipped


def test_a_sparse_map_is_scaled_by_its_largest_value() -> None:
    sparse = np.zeros((28, 28))
    sparse[3, 3] = -0.5
    scale = pair(sparse, np.zeros((28, 28))).scale
    assert (scale.low, scale.high, scale.empty) == (-0.5, 0.5, False)


def test_a_map_of_zero_is_neutral_has_no_scale_and_is_named() -> None:
    zero = np.zeros((8, 8))
    nothing = pair(zero, zero)
    assert nothing.scale.empty and "zero before and after" in similarity_text(nothing)
    assert "zero after" in similarity_text(pair(ramp(-1, 1), zero))
    assert "zero" not in similarity_text(pair(ramp(-1, 1), ramp(-1, 1)))
    figure = draw_panel([row(nothing)], settings("gradient"))
    assert len(figure.axes) == 4, "no colour bar"
    assert "all zero" in [text.get_text() for text in figure.texts]
    colours = titled(figure, "gradient")[0].images[0].to_rgba(zero)[0, 0, :3]
    assert colours.min() > 0.9


# --- layout


@pytest.mark.parametrize(("rows", "maps"), [(1, 1), (6, 2), (1, 7)])
def test_no_text_is_clipped_and_nothing_overlaps(rows: int, maps: int) -> None:
    """With names as long as ImageNet's, which must wrap, and captum's, which must shrink."""
    words = "Chesapeake Bay retriever, WIDE DOG, $cost$ WWWW"
    shown = [
        replace(pair(ramp(-1e-5, 2e-5), ramp(-1, 1)), method="captum:NoiseTunnel:ShapleyValueSampling")
        for _ in range(maps)
    ]
    names = list(our_methods())[:maps]
    figure = draw_panel([row(*shown, words=words)] * rows, settings(*names))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [axes.get_tightbbox(renderer) for axes in figure.axes]
    page = figure.bbox
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
    for number, first in enumerate(boxes):
        for second in boxes[number + 1 :]:
            across = min(first.x1, second.x1) - max(first.x0, second.x0)
            down = min(first.y1, second.y1) - max(first.y0, second.y0)
            assert min(across, down) < 1.0, (first, second)  # pixels


def test_colour_images_are_drawn_in_colour_and_others_in_grey() -> None:
    for channels, shape in ((1, (8, 8)), (3, (8, 8, 3)), (2, (8, 8))):
        figure = draw_panel([row(pair(ramp(-1, 1), ramp(-1, 1)), channels=channels)], settings("gradient"))
        assert titled(figure, "image")[0].images[0].get_array().shape == shape  # type: ignore[union-attr]


def test_titles_say_model_label_prediction_radius_and_whether_the_prediction_was_kept() -> None:
    figure = draw_panel([row(pair(ramp(-1, 1), ramp(-1, 1)))], settings("gradient"))
    said = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    for part in ("own/model, image 17", "label Coat → predicted Coat", "L-inf 8/255", "prediction kept", "cosine 0.25"):
        assert part in said
    assert "no perturbed image kept the prediction" in outcome_text(row(kept=False, distance=0.0))
    assert "nothing was stronger" in outcome_text(row(distance=0.0))


def test_the_same_rows_give_the_same_bytes() -> None:
    shown = [row(pair(ramp(-1, 1), ramp(-2, 1)))]
    for kind in ("png", "svg"):
        first, second = (figure_bytes(draw_panel(shown, settings("gradient")), kind) for _ in range(2))
        assert first == second


# --- what is shown


def test_the_numbers_are_those_of_the_attack_suite(tmp_path: Path, fashion_test: ImageDataset) -> None:
    (entry,) = resolve_models(["lga"])
    content = ATTACK.replace("check_every = 2", "check_every = 5").replace("steps = 4", "steps = 6")
    content = content.replace("0.031372", str(EPS))
    records = run(make(tmp_path, content), load_model(entry), fashion_test, 0, stop=18).records
    for kind in ("top_k", "frame"):
        rows, _ = panel_rows(entry, fashion_test, [17, 3], settings("gradient", attack=kind, steps=6), device=CPU)
        suite = records[records["attack"] == kind].set_index("example_id")
        for one in rows:
            expected = suite.loc[one.example_id]
            assert one.maps[0].similarities["cosine"] == pytest.approx(expected["saps_cosine"], abs=2e-3)
            assert one.maps[0].similarities["top_k"] == pytest.approx(expected["saps_top_k"], abs=0.03)
            assert one.distance == pytest.approx(expected["distance"], abs=1e-6)


@pytest.mark.parametrize("kind", sorted(MANIPULATIONS))
def test_every_attacked_image_lies_in_the_ball_and_keeps_the_prediction(kind: str, fashion_test: ImageDataset) -> None:
    (entry,) = resolve_models(["standard"])
    rows, _ = panel_rows(entry, fashion_test, [0, 17, 42], settings("gradient", "grad_cam", attack=kind), device=CPU)
    model = load_model(entry)
    for one in rows:
        moved = np.abs(one.attacked.astype(np.float64) - one.image.astype(np.float64)).max()
        assert moved <= EPS * (1 + 1e-6) and moved == one.distance
        assert one.attacked.min() >= 0 and one.attacked.max() <= 1
        predicted = fashion_test.class_names[int(model(torch.from_numpy(one.attacked)[None]).argmax())]
        assert predicted == one.after == one.before
        assert np.array_equal(one.image, fashion_test.pixels(slice(one.example_id, one.example_id + 1))[0].numpy())


def test_the_attack_aims_at_the_first_method_with_a_derivative() -> None:
    assert settings("deconvolution", "smoothgrad", "gradient").attacked_method.name == "smoothgrad"
    assert settings("deeplift").attacked_method.name == "gradient"
    figure = draw_panel([row(pair(ramp(-1, 1), ramp(-1, 1)))], settings("deeplift"))
    assert any("on gradient" in text.get_text() for text in figure.texts)


def test_an_image_does_not_depend_on_the_others(fashion_test: ImageDataset) -> None:
    (entry,) = resolve_models(["standard"])
    alone, _ = panel_rows(entry, fashion_test, [17], settings("smoothgrad", attack="random_sign"), device=CPU)
    among, _ = panel_rows(entry, fashion_test, [3, 17], settings("smoothgrad", attack="random_sign"), device=CPU)
    assert np.array_equal(alone[0].attacked, among[1].attacked)
    assert np.allclose(alone[0].maps[0].after, among[1].maps[0].after, atol=1e-5)
