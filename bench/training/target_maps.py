"""Target maps for interpretation regularisation: computed once in batches, cached by the digest of what made them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.attacks.pgd import attacked_model
from bench.attributions.gradients import gradient_maps, smoothgrad_maps
from bench.core.errors import BenchError
from bench.core.files import sha256_bytes, write_atomically
from bench.data import ImageDataset
from bench.training.methods import InterpretationRegularization

logger = logging.getLogger(__name__)
_BATCH_SIZE = 256


def target_maps(
    method: InterpretationRegularization,
    source: nn.Module,
    source_sha256: str,
    dataset: ImageDataset,
    indices: Tensor,
    *,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Maps of `dataset[indices]`, permuted as the method says (IR, section 2.2, step 1); (N, C, H, W).

    The method thresholds them itself, after any crop, since padding would lower a map's standard deviation (step 3).
    `progress(done, total)` is called after each batch of a computation; nothing is computed on a cache hit.
    """
    raw = _raw_maps(
        method, source, source_sha256, dataset, indices=indices, seed=seed, device=device, progress=progress
    )
    return permute_share(raw, method.permuted_share, torch.Generator().manual_seed(seed))


def permute_share(maps: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shuffle a `share` of the values inside each map among themselves (IR, section 2.2, step 1)."""
    flat = maps.flatten(1).clone()
    count = int(share * flat.shape[1])
    if count < 2:
        return maps
    for begin in range(0, len(flat), 4096):
        rows = flat[begin : begin + 4096]
        order = torch.rand(rows.shape, generator=generator).argsort(1)[:, :count]
        shuffled = order.gather(1, torch.rand(order.shape, generator=generator).argsort(1))
        flat[begin : begin + 4096] = rows.scatter(1, order, rows.gather(1, shuffled))
    return flat.view_as(maps)


def _raw_maps(
    method: InterpretationRegularization,
    source: nn.Module,
    source_sha256: str,
    dataset: ImageDataset,
    indices: Tensor,
    *,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    noise = f"{method.samples} {method.sigma} {seed}" if method.target == "smoothgrad" else ""
    digest = sha256_bytes(
        f"{source_sha256} {dataset.sha256} {method.target} {noise}".encode() + indices.numpy().tobytes()
    )
    path = Path(platformdirs.user_cache_dir("ribench")) / "target_maps" / f"{digest}.safetensors"
    if path.is_file():
        try:
            return load_file(path)["maps"]
        except (SafetensorError, KeyError, OSError):
            logger.warning("the cached target maps %s are damaged; computing them again", path)
    maps = _compute(method, source, dataset, indices, seed=seed, device=device, progress=progress)
    try:
        write_atomically(path, save({"maps": maps}))
    except BenchError as error:
        logger.warning("target maps are not cached: %s", error)
    return maps


def _compute(
    method: InterpretationRegularization,
    source: nn.Module,
    dataset: ImageDataset,
    indices: Tensor,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    maps = torch.empty((len(indices), *dataset.images.shape[1:]))
    generator = torch.Generator().manual_seed(seed)
    with attacked_model(source):
        for begin in range(0, len(indices), _BATCH_SIZE):
            chosen = indices[begin : begin + _BATCH_SIZE]
            images, labels = dataset.pixels(chosen).to(device), dataset.labels[chosen].to(device)
            if method.target == "smoothgrad":
                batch = smoothgrad_maps(
                    source, images, labels, samples=method.samples, sigma=method.sigma, generator=generator
                )
            else:
                batch = gradient_maps(source, images, labels)
            maps[begin : begin + len(chosen)] = batch.cpu()
            if progress is not None:
                progress(begin + len(chosen), len(indices))
    return maps
