from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from bench.attributions.registry import find_method
from bench.catalog.models import load_model, resolve_models
from bench.data import ImageDataset
from bench.reporting.leaderboard_page import first_of_each_class
from bench.reporting.page.saliency import SaliencySet, heat_map, picture, saliency_set
from bench.reporting.saliency.rows import PanelSettings, PredictionAttack, panel_rows

EPS = 0.05


def decode(uri: str) -> np.ndarray:
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def shown(fashion_test: ImageDataset) -> SaliencySet:
    settings = PanelSettings([find_method("gradient")], PredictionAttack("linf"), EPS, 0)
    ids = first_of_each_class(fashion_test.labels, 3)
    rows = []
    for entry in resolve_models(["standard", "at_linf"]):
        rows += panel_rows(entry, fashion_test, ids, settings, device=torch.device("cpu"))[0]
    return saliency_set(fashion_test, rows, settings)


def test_the_same_images_are_shown_for_every_model_and_were_not_picked(
    shown: SaliencySet, fashion_test: ImageDataset
) -> None:
    ids = first_of_each_class(fashion_test.labels, 3)
    assert ids == sorted(ids) and len({int(fashion_test.labels[place]) for place in ids}) == 3
    for panels in shown.panels.values():
        assert [panel.row.example_id for panel in panels] == ids
    assert first_of_each_class(torch.tensor([1, 1, 0, 2]), 2) == [0, 2]
    assert first_of_each_class(torch.tensor([1, 1, 0]), 9) == [0, 2]


def test_what_a_panel_says_is_what_the_model_says_of_the_pictures_in_it(
    shown: SaliencySet, fashion_test: ImageDataset
) -> None:
    outcomes = set()
    for name, panels in shown.panels.items():
        model = load_model(resolve_models([name])[0])
        for panel in panels:
            clean, attacked = (torch.tensor(decode(panel.images[place])[:, :, 0]) for place in (0, 2))
            assert torch.equal(clean, fashion_test.images[panel.row.example_id, 0].long())
            assert (attacked - clean).abs().max() <= EPS * 255 + 1
            said = fashion_test.class_names[int(model(clean[None, None] / 255).argmax())]
            assert panel.row.before == said
            assert (panel.outcome == "broken") == (panel.row.before == panel.row.truth != panel.row.after)
            outcomes.add(panel.outcome)
    assert outcomes >= {"broken", "withstood"}
    standard = [panel.outcome for panel in shown.panels["fashion_mnist/standard"]]
    robust = [panel.outcome for panel in shown.panels["fashion_mnist/at_linf"]]
    assert standard.count("broken") > robust.count("broken")


def test_maps_are_symmetric_around_a_neutral_zero() -> None:
    values = np.linspace(-1, 1, 63).reshape(9, 7)
    colours, mirrored = decode(heat_map(values)), decode(heat_map(-values))
    assert np.array_equal(colours[::-1, ::-1], mirrored)
    middle = colours[4, 3]
    assert np.ptp(middle) <= 3 and middle.min() > 240
    assert colours[0, 0][2] > colours[0, 0][0] and colours[-1, -1][0] > colours[-1, -1][2]  # blue below, red above


def test_a_map_that_is_zero_everywhere_is_neutral_and_one_spike_is_seen() -> None:
    assert np.ptp(decode(heat_map(np.zeros((5, 5))))) <= 3
    spike = np.zeros((28, 28))
    spike[3, 4] = 2.0
    colours = decode(heat_map(spike))
    assert colours[3, 4][0] > 2 * colours[3, 4][2]


def test_colour_images_keep_their_colours_and_large_ones_are_shrunk() -> None:
    image = np.zeros((3, 4, 4), np.float32)
    image[0] = 1.0
    assert (decode(picture(image)) == [255, 0, 0]).all()
    assert decode(picture(np.full((3, 224, 160), 0.5, np.float32))).shape == (96, 69, 3)
    assert decode(heat_map(np.eye(224))).shape == (96, 96, 3)
