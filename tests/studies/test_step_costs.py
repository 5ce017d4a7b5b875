from __future__ import annotations

import torch

from bench.data import ImageDataset
from bench.studies.step_costs import BATCH_SIZE, _Held, _Kept, step_costs
from bench.training import make_recipe


def test_steps_are_timed_and_the_most_that_they_keep_at_once_is_counted(fashion_test: ImageDataset) -> None:
    recipes = {
        "plain": make_recipe("standard", "fashion_mnist"),
        "twice": make_recipe("input_gradient", "fashion_mnist"),
        "attacked": make_recipe("at_l2", "fashion_mnist", {"steps": 2}),
    }
    costs = step_costs(recipes, fashion_test, rounds=2)
    assert all(len(cost.seconds) == 2 and min(cost.seconds) > 0 for cost in costs.values())
    kept = {name: cost.kept_bytes for name, cost in costs.items()}
    assert kept["plain"] > BATCH_SIZE * 28 * 28 * 4 and kept["twice"] > 1.5 * kept["plain"]
    assert kept["attacked"] < 1.1 * kept["plain"]  # a step of the attack lets go of its graph before the next


def test_what_a_step_has_let_go_of_is_not_counted_twice() -> None:
    first, second = torch.zeros(100), torch.zeros(50)
    kept = _Kept({second.untyped_storage().data_ptr()})
    held = [_Held(first, kept), _Held(first[:10], kept), _Held(second, kept)]
    assert kept.now == 400
    held.clear()
    assert kept.now == 0 and kept.peak == 400
    again = _Held(torch.zeros(100), kept)
    assert kept.peak == 400 and again.tensor.shape == (100,)
