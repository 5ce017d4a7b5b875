"""Torch's settings and random generators as the code here expects them; afterwards they are as they were before."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.core.devices import current_device
from bench.core.files import write_atomically
from bench.core.keyed_random import stream_key
from bench.core.precision import float32_products

logger = logging.getLogger(__name__)
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    # a tensor's, since torch 2.6 cannot say the default device once somebody has set it to None
    (lambda: torch.empty(0).device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    *(
        (partial(getattr, torch.backends.cudnn, name), partial(setattr, torch.backends.cudnn, name))
        for name in ("enabled", "benchmark", "deterministic")
    ),
)
"""What tells a setting of torch, and what changes it."""


@contextmanager
def plain_torch() -> Iterator[None]:
    """Gradients are recorded; float32 without TF32 or autocast and the CPU, where nothing else is said.

    At the end, also after an error, torch's settings and modes are what they were. Random states are left alone.
    """
    found = [ask() for ask, _ in _SETTINGS]
    with ExitStack() as stack:
        stack.enter_context(float32_products())
        stack.callback(_put_back, found)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        yield


def _put_back(found: list[Any]) -> None:
    for (ask, change), value in zip(_SETTINGS, found, strict=True):
        if ask() != value:
            change(value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """`plain_torch`, and the random states of torch, NumPy and Python are put back too: for calls from a notebook."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_gpus = torch.cuda.get_rng_state_all() if started else None
    found = random_states(torch.device("cpu"))
    try:
        with plain_torch():
            yield
    finally:
        put_back_random_states(found)
        if on_gpus is not None:
            torch.cuda.set_rng_state_all(on_gpus)


def random_states(device: torch.device) -> tuple[Any, ...]:
    """Of torch's generators on the CPU and a GPU, numpy's and Python's, for `put_back_random_states`.

    Tensors, numbers and texts alone, which a file can hold that is no program.
    """
    legacy: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, *rest = legacy
    on_device = None
    if device.type != "cpu":
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.mps.get_rng_state()
    return torch.get_rng_state(), str(device), on_device, random.getstate(), kind, torch.from_numpy(keys.copy()), *rest


def put_back_random_states(states: tuple[Any, ...]) -> None:
    """Let the generators go on from where they were."""
    on_cpu, device, on_device, of_python, kind, keys, *rest = states
    torch.set_rng_state(on_cpu)
    if on_device is not None and device == "mps":
        torch.mps.set_rng_state(on_device)
    elif on_device is not None:
        torch.cuda.set_rng_state(on_device, device)
    random.setstate(of_python)
    np.random.set_state((kind, keys.numpy(), *rest))  # noqa: NPY002


def twice_differentiable(wanted: bool) -> AbstractContextManager[object]:
    """Forward passes in here have second derivatives also where they attend, if `wanted`.

    Torch's fused attention has none; made of plain products and a softmax, it has.
    """
    return sdpa_kernel(SDPBackend.MATH) if wanted else nullcontext()


@contextmanager
def random_numbers_of(device: torch.device, *key: object) -> Iterator[None]:
    """Torch's generators on the CPU and `device`, numpy's and Python's start from `key`; what they held is put back.

    Nothing here draws from them, but a net may: dropout that is left on, or noise as a defence.
    """
    seed, found = stream_key(*key) & ((1 << 63) - 1), random_states(device)
    with current_device(device):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002
        try:
            yield
        finally:
            put_back_random_states(found)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and texts in one piece; raises BenchError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU; empty where there is nothing, or nothing that can be read."""
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (a damaged file raises anything; it is made anew)
        logger.warning("%s cannot be read (%s); it is not used", path, type(error).__name__)
        return {}
    return found
