"""What is known of each named data set: shape, classes, normalisation, and the layouts it comes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.core.errors import BenchError
from bench.data.class_lists import IMAGENET100


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One named data set.

    Attributes:
        class_names: empty where they are those of the folders or files that are read.
        mean, std: of the training pixels in [0, 1], per channel.
        class_count: how many classes there are where `class_names` is empty.
        resize: the shorter side after resizing, before `image_size` is cut from the middle; None for images that
            have that size as they are.
        test_names: what the folder of the test split may be called, the best first.
        subset_of: a data set of which this one has some classes, and that is read in its place where this one has no
            folder of its own.
        outputs: for each class, its position in `subset_of`: the output that stands for it in nets of that one.
    """

    name: str
    in_channels: int
    image_size: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    idx_folder: str | None = None
    torchvision_class: str | None = None
    system_folder: str | None = None
    licence: str = ""
    class_count: int = 0
    resize: int | None = None
    test_names: tuple[str, ...] = ("test", "val", "validation")
    subset_of: str | None = None
    outputs: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names) or self.class_count

    @property
    def net_parameters(self) -> dict[str, Any]:
        """What a net for its images is told, as a card has it."""
        return {
            "in_channels": self.in_channels,
            "image_size": self.image_size,
            "num_classes": self.num_classes,
            "mean": list(self.mean),
            "std": list(self.std),
        }


_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# the official folder `test` has no labels
_IMAGENET_TEST = ("val", "validation", "test")
_IMAGENET: dict[str, Any] = {
    "in_channels": 3,
    "image_size": 224,
    "resize": 256,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "licence": "research use",
}

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="fashion_mnist",
            in_channels=1,
            image_size=28,
            class_names=_FASHION_CLASSES,
            mean=(0.2860,),
            std=(0.3530,),
            idx_folder="FashionMNIST",
            torchvision_class="FashionMNIST",
            system_folder="/usr/share/datasets/fashion-mnist",
            licence="MIT",
        ),
        DatasetSpec(
            name="mnist",
            in_channels=1,
            image_size=28,
            class_names=tuple(str(digit) for digit in range(10)),
            mean=(0.1307,),
            std=(0.3081,),
            idx_folder="MNIST",
            torchvision_class="MNIST",
            licence="research use",
        ),
        DatasetSpec(
            name="cifar10",
            in_channels=3,
            image_size=32,
            class_names=_CIFAR10_CLASSES,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            torchvision_class="CIFAR10",
            licence="research use",
        ),
        DatasetSpec(name="imagenet", class_names=(), class_count=1000, test_names=_IMAGENET_TEST, **_IMAGENET),
        DatasetSpec(
            name="imagenet100",
            class_names=IMAGENET100.names,
            subset_of="imagenet",
            outputs=IMAGENET100.positions,
            test_names=_IMAGENET_TEST,
            **_IMAGENET,
        ),
    )
}


def known_spec(name: str, work: str) -> DatasetSpec:
    """What is known of a data set; raises BenchError where nets are trained for `work` and nothing is."""
    if (spec := DATASETS.get(name)) is None:
        raise BenchError(f"{work} on {name} is not possible: nets are trained on {', '.join(DATASETS)} alone.")
    return spec
