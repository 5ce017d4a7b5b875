from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.core.errors import BenchError
from bench.data.class_order import number_as_known
from bench.data.dataset import ImageDataset
from bench.data.specs import DATASETS

FASHION = DATASETS["fashion_mnist"].class_names
STRANGERS = tuple(f"class {letter}" for letter in "abcdefghij")


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("fashion_mnist", tuple(sorted(FASHION)), [FASHION.index(one) for one in sorted(FASHION)]),
        ("fashion_mnist", ("T - shirt / top", *FASHION[1:]), list(range(10))),
        ("fashion_mnist", tuple(sorted(name.lower() for name in FASHION)),
         [[one.lower() for one in FASHION].index(name) for name in sorted(one.lower() for one in FASHION)]),
        ("mnist", tuple(f"{digit:03}" for digit in range(10)), list(range(10))),
        ("imagenet", tuple(sorted(map(str, range(1000)))), sorted(range(1000), key=str)),
        ("imagenet", tuple(f"n{number:08}" for number in range(1000)), list(range(1000))),
        ("fashion_mnist", STRANGERS[::-1], list(range(10))),
    ],
)  # fmt: skip
def test_a_known_data_sets_classes_have_its_own_numbers(name: str, found: tuple[str, ...], expected: list[int]) -> None:
    labels, names = number_as_known(DATASETS[name], torch.arange(len(found)), found, Path("here"))
    assert labels.tolist() == expected
    assert not DATASETS[name].class_names or names == DATASETS[name].class_names


def test_sorted_names_that_a_known_data_set_does_not_have_are_refused() -> None:
    with pytest.raises(BenchError, match="order is not known"):
        number_as_known(DATASETS["fashion_mnist"], torch.arange(10), STRANGERS, Path("here"))


def test_a_list_of_positions_does_not_trust_sorted_names() -> None:
    def numbered(names: tuple[str, ...]) -> ImageDataset:
        images = torch.zeros(len(names), 1, 2, 2, dtype=torch.uint8)
        return ImageDataset("mine", "test", images, torch.arange(len(names)), class_names=names, source="here")

    folders = tuple(sorted(map(str, range(12))))
    chosen = numbered(folders).subset(("a", "b"), (10, 2))
    assert chosen.labels.tolist() == [0, 1]  # folder 10 stands before folder 2
    with pytest.raises(BenchError, match="unknown class"):
        numbered(tuple("klmnopqrstuv")).subset(("a", "b"), (10, 2))
