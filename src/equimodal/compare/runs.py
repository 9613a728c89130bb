"""The runs of a comparison: which method, with which settings, from which seed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import Any

from equimodal.method import Method
from equimodal.methods.registry import find
from equimodal.methods.supplied import takes_teachers

RATE = "lr"  # among options: the learning rate, which is no argument of the method


@dataclass(frozen=True)
class Entry:
    """A row of the comparison: a method, and settings to choose from on validation data.

    Attributes:
        label: of the row.
        method: its name in the registry; several that compose, as ``ogm-ge+multi-loss``.
        options: its arguments; of several, by their names. `RATE` among them is the learning rate.
            An argument that is an object is ``{"class_path": ..., "init_args": {...}}``.
        grid: values of arguments to choose from, by their names. A value is a number, or one for
            each of some modalities; of several methods, all arguments of one of them.
    """

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    grid: Mapping[str, tuple[float | dict[str, Any], ...]] = field(default_factory=dict)

    def choices(self) -> list[dict[str, Any]]:
        """Return the options of every point of the grid; the options alone without one."""
        points = itertools.product(*self.grid.values())
        return [{**self.options, **dict(zip(self.grid, point, strict=True))} for point in points]


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
        chosen = "".join(f"-{name}-{value}" for name, value in numbers(self.options).items())
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.label}{chosen}".replace(" ", "-") + f"-seed-{self.seed}-{digest[:6]}"

    @property
    def kinds(self) -> list[type[Method]]:
        """The classes of its methods."""
        return [find(name) for name in self.method.split("+")]

    def make(self, **teachers: Any) -> list[Method]:
        """Return the methods anew.

        Args:
            teachers: for those that take them.
        """
        options = {name: made(value) for name, value in self.options.items() if name != RATE}
        several = "+" in self.method
        return [
            kind(
                **(options.get(kind.name, {}) if several else options),
                **(teachers if takes_teachers(kind) else {}),
            )
            for kind in self.kinds
        ]


def made(value: Any) -> Any:
    """Return an option as the method takes it: what a ``class_path`` names is made.

    >>> made({"class_path": "fractions.Fraction", "init_args": {"numerator": 3}})
    Fraction(3, 1)
    >>> made({"audio": 0.5})
    {'audio': 0.5}
    """
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {name: made(each) for name, each in value.items()}
    module, _, name = str(value["class_path"]).rpartition(".")
    return getattr(import_module(module), name)(**value.get("init_args", {}))


def numbers(options: Mapping[str, Any]) -> dict[str, float]:
    """Return the options that may have been chosen, those by modality with a dotted name.

    >>> numbers({"alpha": 0.3, "factors": {"audio": 0.1}, "modality": "audio"})
    {'alpha': 0.3, 'factors.audio': 0.1}
    """
    found: dict[str, float] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": each for inner, each in numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def chosen(label: str, options: Mapping[str, Any]) -> str:
    """Return the label of a row with its choice; of what is by modality without the argument.

    >>> chosen("ogm", {"alpha": 0.3}), chosen("mslr", {"factors": {"audio": 0.1}})
    ('ogm (alpha 0.3)', 'mslr (audio 0.1)')
    """
    parts = [f"({name.rsplit('.', 1)[-1]} {each:g})" for name, each in numbers(options).items()]
    return " ".join([label, *parts])


ALPHAS = (0.1, 0.3, 0.8)
SLOWED = (0.1, 0.3)  # factors of MSLR on the learning rate of one modality


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


def entry_of(name: str, kind: type[Method], modalities: Sequence[str], epochs: int) -> Entry:
    """Return the row of a method that the main job does not have.

    With the settings it has by default, and what depends on the number of epochs. MSLR, which has
    no default, slows each modality in turn.
    """
    if "+" in name:
        parts = {each: entry_of(each, find(each), modalities, epochs) for each in name.split("+")}
        fixed = {each: row.options for each, row in parts.items() if row.options and not row.grid}
        grid = {each: tuple(row.choices()) for each, row in parts.items() if row.grid}
        return Entry(name, name, fixed, grid)
    if name == "mslr":
        slower = tuple({modality: factor} for modality in modalities for factor in SLOWED)
        return Entry(name, name, grid={"factors": slower})
    given = {argument: value(epochs) for argument, value in kind.by_epochs.items()}
    return Entry(name, name, json.loads(json.dumps(given)))  # as it is kept in the queue


def with_rates(entry: Entry, rates: Sequence[float]) -> Entry:
    """Return a row that chooses its learning rate too."""
    return replace(entry, grid={**entry.grid, RATE: tuple(rates)})


def planned(entries: Iterable[Entry], seeds: Sequence[int]) -> list[Run]:
    """Return all runs; seed by seed, so that an interrupted comparison has whole pairs."""
    return [
        Run(entry.label, entry.method, options, seed)
        for seed in seeds
        for entry in entries
        for options in entry.choices()
    ]
