"""The runs of a comparison: which method, with which settings, from which seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from equimodal.method import Method
from equimodal.methods.registry import find


@dataclass(frozen=True)
class Entry:
    """A row of the comparison: a method, and settings to choose from on validation data.

    Attributes:
        label: of the row.
        method: its name in the registry.
        options: its arguments.
        grid: values of one argument to choose from, by its name; at most one argument.
    """

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def choices(self) -> list[dict[str, Any]]:
        """Return the options of every value of the grid; the options alone without one."""
        if not self.grid:
            return [self.options]
        ((name, values),) = self.grid.items()
        return [{**self.options, name: value} for value in values]


@dataclass(frozen=True)
class Run:
    """One training of the comparison."""

    label: str
    method: str
    options: dict[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """A name for files: readable, and another for other options."""
        chosen = "".join(f"-{k}-{v}" for k, v in self.options.items() if isinstance(v, int | float))
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.label.replace(' ', '-')}{chosen}-seed-{self.seed}-{digest[:6]}"

    def make(self) -> Method:
        """Return the method anew."""
        return find(self.method)(**self.options)


ALPHAS = (0.1, 0.3, 0.8)


def main_job(modalities: Sequence[str], alphas: Sequence[float] = ALPHAS) -> list[Entry]:
    """Return the rows of the main job: what every claim about balancing must be held against."""
    grid = {"alpha": tuple(alphas)}
    return [
        *(Entry(f"{name} alone", "unimodal", {"modality": name}) for name in modalities),
        Entry("ensemble", "ensemble"),
        Entry("joint", "joint"),
        Entry("multi-loss", "multi-loss"),
        Entry("ogm", "ogm", grid=grid),
        Entry("ge", "ge"),
        Entry("ogm-ge", "ogm-ge", grid=grid),
    ]


def planned(entries: Iterable[Entry], seeds: Sequence[int]) -> list[Run]:
    """Return all runs; seed by seed, so that an interrupted comparison has whole pairs."""
    return [
        Run(entry.label, entry.method, options, seed)
        for seed in seeds
        for entry in entries
        for options in entry.choices()
    ]
