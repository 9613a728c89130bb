"""Options that say where many trainings run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from equimodal.cli.parser import Parser
from equimodal.errors import SetupError
from equimodal.tasks import Engine, engine_of

ONLY = {"address": "ray", "partition": "slurm"}


def add_engine(parser: Parser, task: str = "training") -> None:
    """Add ``--engine`` and what belongs to it.

    Args:
        parser: to add to.
        task: what an engine runs.
    """
    parser.add("--workers", type=int, default=None, help="of local, processes [one per core]")
    parser.add(
        "--engine",
        type=Literal["local", "ray", "slurm"],
        default="local",
        help=f"where {task}s run: here, on a Ray cluster that is there, or as jobs of SLURM",
    )
    parser.add("--address", type=str, default=None, help="of ray, its head, HOST:PORT [auto]")
    parser.add("--partition", type=str, default=None, help="of slurm [its default]")
    parser.add("--cpus", type=int, default=1, help=f"of ray and slurm, cores for a {task}")
    parser.add("--gpus", type=float, default=0.0, help=f"of ray and slurm, for a {task}")


def add_limit(parser: Parser) -> None:
    """Add ``--limit``."""
    parser.add("--limit", type=float, default=None, help="minutes that a training may take [none]")


def seconds(options: Any) -> float | None:
    """Return the limit of a training."""
    if options.limit is None:
        return None
    if not options.limit > 0:
        raise SetupError(f"--limit: expected minutes above 0, found {options.limit:g}")
    return float(60 * options.limit)


def engine_from(options: Any, folder: Path) -> Engine | None:
    """Return the engine that is asked for; None for processes of this machine.

    Raises:
        SetupError: options do not go together, or the engine cannot give that much.
    """
    for name, engine in ONLY.items():
        if getattr(options, name) is not None and options.engine != engine:
            raise SetupError(f"--{name} is for --engine {engine}, found --engine {options.engine}")
    if options.engine == "local":
        return None
    return engine_of(
        options.engine,
        folder,
        address=options.address or "auto",
        cpus=options.cpus,
        gpus=options.gpus,
        partition=options.partition,
    )
