"""Target maps: computed once in batches before a training, cached by the digest of what made them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.attacks.pgd import attacked_model
from bench.core.errors import BenchError
from bench.core.files import computed_once, sha256_bytes, user_cache, write_atomically
from bench.data import ImageDataset

logger = logging.getLogger(__name__)
_BATCH_SIZE = 256


@dataclass(frozen=True, slots=True)
class Source:
    """The net whose maps are the targets, by name and digest of its weights."""

    name: str
    sha256: str
    net: nn.Module


@dataclass(frozen=True, slots=True)
class Wanted:
    """The examples `dataset[indices]` whose target maps a method is asked for.

    Attributes:
        on_progress: called with (done, total) after each batch of a computation; never where the cache has the maps.
    """

    source: Source
    dataset: ImageDataset
    indices: Tensor
    seed: int
    device: torch.device
    on_progress: Callable[[int, int], None] = lambda *_: None

    def maps(self, maps_of: Callable[[nn.Module, Tensor, Tensor], Tensor], key: str) -> Tensor:
        """(N, C, H, W) maps on the CPU, computed by batches and cached; another process at the same is waited for.

        Args:
            maps_of: gives the maps of (net, images, labels).
            key: everything besides the net and the examples that the maps depend on.
        """
        # the same weights in another net, with softplus for ReLU, have other maps
        net = f"{self.source.sha256} {self.source.net!r}"
        made_of = f"{net} {self.dataset.sha256} {key}".encode() + self.indices.numpy().tobytes()
        path = user_cache("target_maps", f"{sha256_bytes(made_of)}.safetensors")
        with computed_once(path):
            if path.is_file():
                try:
                    return load_file(path)["maps"]
                except (SafetensorError, KeyError, OSError):
                    logger.warning("the cached target maps %s are damaged; computing them again", path)
            maps = self._computed(maps_of)
            try:
                write_atomically(path, save({"maps": maps}))
            except BenchError as error:
                logger.warning("target maps are not cached: %s", error)
        return maps

    def _computed(self, maps_of: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Tensor:
        maps = torch.empty((len(self.indices), *self.dataset.images.shape[1:]))
        with attacked_model(self.source.net):
            for begin in range(0, len(maps), _BATCH_SIZE):
                part = slice(begin, begin + _BATCH_SIZE)
                images, labels = self.dataset.pixels(self.indices[part]), self.dataset.labels[self.indices[part]]
                maps[part] = maps_of(self.source.net, images.to(self.device), labels.to(self.device)).cpu()
                self.on_progress(min(begin + _BATCH_SIZE, len(maps)), len(maps))
        return maps
