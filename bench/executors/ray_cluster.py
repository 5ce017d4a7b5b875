"""Joining a Ray cluster, or starting one on this machine, and what there is room for on it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bench.core.errors import BenchError, in_one_line, reason_of
from bench.core.packages import optional_import
from bench.executors.base import cause_of

_REACH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How to use a cluster.

    Attributes:
        address: HOST:PORT, or `auto` for the cluster that this machine belongs to; None is RAY_ADDRESS, or, without
            it, a cluster of this machine alone that ends with the run.
        workers: how many; None is as many as there is room for.
        cpus_per_worker: reserved for a worker, and the threads that torch may use in it.
        gpus_per_worker: reserved for a worker; 0.5 lets two share a GPU. None is 1 if the device allows and a node has
            one, else 0.
        device: `auto`, `cpu` or `cuda`; which GPU it is, Ray decides.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        workers, cpus, gpus = self.workers, self.cpus_per_worker, self.gpus_per_worker or 0.0
        _require(workers is None or workers >= 1, f"{workers} workers are too few; use 1 or more.", "workers")
        _require(cpus >= 1, f"{cpus} CPUs for a worker are too few; use 1 or more.", "cpus_per_worker")
        whole = gpus <= 1 or gpus == int(gpus)
        wrong_gpus = f"{gpus:g} GPUs for a worker cannot be had; use 0, a fraction of 1, 1 or more."
        _require(gpus >= 0 and whole, wrong_gpus, "gpus_per_worker")
        wrong_device = f"device {self.device} cannot be had from Ray, which hands out the GPUs; use cuda."
        _require(self.device in ("auto", "cpu", "cuda"), wrong_device, "device")
        agree = gpus == 0 if self.device == "cpu" else self.device == "auto" or self.gpus_per_worker != 0
        contradiction = f"device {self.device} and {gpus:g} GPUs for a worker contradict each other."
        _require(agree, contradiction, "device", "gpus_per_worker")


def _require(fine: bool, message: str, *options: str) -> None:
    if not fine:
        raise BenchError(message, option=options)


@dataclass(frozen=True, slots=True)
class Shares:
    """What one worker holds of its node."""

    cpus: int
    gpus: float

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def __str__(self) -> str:
        return f"{self.cpus} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def room(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many workers fit on nodes of these resources, were they free."""
        return sum(self._room(node) for node in nodes)

    def _room(self, node: Mapping[str, float]) -> int:
        fit = int(node.get("CPU", 0) // self.cpus)
        return min(fit, self._room_on_gpus(int(node.get("GPU", 0)))) if self.gpus else fit

    def _room_on_gpus(self, count: int) -> int:
        # a worker's fraction lies on one GPU
        return count * int(1 / self.gpus + 1e-9) if self.gpus < 1 else int(count // self.gpus)


def import_ray() -> Any:
    """The package; raises BenchError when it is not installed."""
    return optional_import("ray", "the executor ray", "ribench[ray]")


@contextmanager
def joined(options: RayOptions) -> Iterator[Any]:
    """The package `ray`, connected. What was started here is ended; a connection that was there before stays.

    Raises:
        BenchError: Ray is not installed, or there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = options.address or os.environ.get("RAY_ADDRESS") or "local"
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            # usage is reported only if the user says so
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            cpus = None if options.workers is None else options.workers * options.cpus_per_worker
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        else:
            _require_reachable(address)
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _unreachable(address, reason_of(error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def shares(ray: Any, options: RayOptions) -> Shares:
    """What a worker holds, once the cluster is known."""
    gpus = options.gpus_per_worker
    if gpus is None:
        seen = any(node.get("GPU", 0) >= 1 for node in resources(ray))
        gpus = 1.0 if options.device == "cuda" or (options.device == "auto" and seen) else 0.0
    return Shares(options.cpus_per_worker, gpus)


def resources(ray: Any) -> list[dict[str, float]]:
    """The resources of every node that is up."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def reason(error: BaseException) -> str:
    """The one line of Ray's long words that says what happened."""
    cause = cause_of(error)
    if cause is not error:
        return in_one_line(cause, 300)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line and not line.startswith(("File", "ray::"))]
    return " ".join((telling[-1:] or lines[:1] or [type(error).__name__])[0].split())[:300]


def _require_reachable(address: str) -> None:
    """Ask whether there is an answer: Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise BenchError(
            f"Ray Client ({address}) is not supported; start the command on the cluster, by `ray job submit`.",
            option="ray_address",
        )
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        with suppress(socket.timeout), socket.create_connection((host, int(port)), timeout=_REACH_SECONDS):
            return
        raise _unreachable(address, "no answer")


def _unreachable(address: str, why: str) -> BenchError:
    what = "Ray cannot be started here" if address == "local" else f"there is no Ray cluster at {address}"
    return BenchError(f"{what} ({why}); start one with `ray start --head`, or name none.", option="ray_address")
