"""Data sets: where they are looked for, how they are read, and the embedded Fashion-MNIST test split."""

from bench.data.dataset import ImageDataset
from bench.data.loading import describe_sources, load_split
from bench.data.specs import DATASETS, DatasetSpec, dataset_spec

__all__ = ["DATASETS", "DatasetSpec", "ImageDataset", "dataset_spec", "describe_sources", "load_split"]
