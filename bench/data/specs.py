"""What is known of each named data set: shape, classes, normalisation, and the layouts it comes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One named data set. `mean` and `std` are those of the training pixels in [0, 1], per channel."""

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

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

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
    )
}


def dataset_spec(name: str) -> DatasetSpec | None:
    """The known spec of that name, or None for a folder of the user's own."""
    return DATASETS.get(name)
