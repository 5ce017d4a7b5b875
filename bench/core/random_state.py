"""Random numbers of a net's own: the same ones wherever and whenever a piece of work is done."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from bench.core.devices import current_device
from bench.core.keyed_random import stream_key


@contextmanager
def random_numbers_of(device: torch.device, *key: object) -> Iterator[None]:
    """Torch's generators on the CPU and `device`, numpy's and Python's start from `key`; what they held is put back.

    Nothing here draws from them, but a net may: dropout that is left on, or noise as a defence.
    """
    seed = stream_key(*key) & ((1 << 63) - 1)
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (a net draws from that one)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), current_device(device):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
