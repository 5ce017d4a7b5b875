from __future__ import annotations

import random

import numpy as np
import torch

from bench.core.torch_state import random_numbers_of

CPU = torch.device("cpu")


def draws() -> list[float]:
    return [float(torch.rand(())), float(np.random.random()), random.random()]  # noqa: NPY002


def test_a_key_decides_the_numbers_and_what_was_there_goes_on() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    expected = [draws(), draws()]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    first = draws()
    found = []
    for key in ("a", "a", "b"):
        with random_numbers_of(CPU, 0, key):
            found.append(draws())
    assert found[0] == found[1] and not set(found[0]) & set(found[2])
    assert [first, draws()] == expected
