"""Engines by their names, as commands and `choose` take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError, unknown
from equimodal.tasks.engine import Engine
from equimodal.tasks.local import Local
from equimodal.tasks.lock import Lock
from equimodal.tasks.on_ray import OnRay
from equimodal.tasks.on_slurm import OnSlurm

ENGINES = ("local", "ray", "slurm")


def engine_of(
    name: str,
    folder: Path,
    *,
    workers: int = 1,
    preload: Sequence[str] = (),
    lock: Lock | None = None,
    address: str = "auto",
    cpus: int = 1,
    gpus: float = 0,
    partition: str | None = None,
) -> Engine:
    """Return an engine.

    Args:
        name: "local", "ray" or "slurm".
        folder: of the results; jobs of SLURM leave their logs in it.
        workers: of "local", how many tasks at once.
        preload: of "local", modules that tasks need.
        lock: of "local", which its processes hold too.
        address: of "ray", its head.
        cpus: of "ray" and "slurm", cores for each task.
        gpus: of "ray" and "slurm", for each task.
        partition: of "slurm".

    Raises:
        SetupError: there is no such engine, or it cannot give that much.
    """
    if name == "local":
        return Local(workers, preload, lock)
    if name == "ray":
        return OnRay(address, cpus, gpus)
    if name == "slurm":
        if gpus != int(gpus):
            raise SetupError(f"--gpus: SLURM gives whole ones, found {gpus:g}")
        more: dict[str, Any] = {} if partition is None else {"slurm_partition": partition}
        return OnSlurm(folder / "jobs", cpus, int(gpus), **more)
    raise SetupError("--engine: " + unknown("engine", name, ENGINES))
