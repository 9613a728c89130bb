"""What is trained: the cells of `settings.json`, and what is tried in each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = Path(__file__).with_name("settings.json")
BEYOND = Path(__file__).with_name("beyond.json")  # larger rates, added after the map was seen
RIVALS = ("joint", "multi-loss")


@dataclass(frozen=True)
class Trial:
    """One thing that a method is tried with, on every seed.

    Attributes:
        rate: the learning rate.
        knob: alpha of OGM-GE, the weight of the unimodal losses of multi-loss; None for joint.
    """

    rate: float
    knob: float | None = None


@dataclass(frozen=True)
class Cell:
    """One place of the map.

    Attributes:
        name: what it is called in files and commands.
        row: the dial that it turns.
        label: what it is called in the picture.
        setting: data and training, which all methods share.
        method: how OGM-GE is made.
        shared: the first cell of the same setting; joint training and multi-loss are taken of it.
    """

    name: str
    row: str
    label: str
    setting: Mapping[str, Any]
    method: Mapping[str, Any]
    shared: str


@dataclass(frozen=True)
class Design:
    """All that was settled beforehand.

    Attributes:
        seeds: how many, counted from 0.
        trials: of each method, as many for one as for another.
        cells: the places of the map, in the order of the file.
    """

    seeds: int
    trials: Mapping[str, tuple[Trial, ...]]
    cells: tuple[Cell, ...]

    def cell(self, name: str) -> Cell:
        """Return a cell by its name."""
        for each in self.cells:
            if each.name == name:
                return each
        raise SystemExit(
            f"unknown cell {name!r}: expected one of {', '.join(c.name for c in self.cells)}"
        )

    def parts(self, cell: Cell) -> list[tuple[Cell, str]]:
        """Return what a cell is made of: the cell under which each method's trials are kept."""
        return [*((self.cell(cell.shared), rival) for rival in RIVALS), (cell, "ogm-ge")]


def read(path: Path = SETTINGS) -> Design:
    """Read a file of settings.

    Raises:
        ValueError: two cells have one name, or a cell changes what the base does not have.
    """
    found = json.loads(path.read_text())
    rates, between = found["rates"], found["between"]
    trials = {
        "joint": tuple(Trial(rate) for rate in sorted([*rates, *between])),
        "multi-loss": tuple(Trial(rate, knob) for rate in rates for knob in found["weights"]),
        "ogm-ge": tuple(Trial(rate, knob) for rate in rates for knob in found["alphas"]),
    }
    cells: list[Cell] = []
    for row in found["rows"]:
        for each in row["cells"]:
            setting = _changed(found["base"], each.get("with", {}), each["name"])
            method = _changed(found["method"], each.get("as", {}), each["name"])
            alike = [cell.name for cell in cells if cell.setting == setting]
            if any(cell.name == each["name"] for cell in cells):
                raise ValueError(f"{path}: two cells are called {each['name']!r}")
            shared = alike[0] if alike else each["name"]
            cells.append(Cell(each["name"], row["row"], each["label"], setting, method, shared))
    return Design(found["seeds"], trials, tuple(cells))


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any], name: str) -> dict[str, Any]:
    unknown = changes.keys() - base.keys()
    if unknown:
        raise ValueError(f"{name}: the base has no {', '.join(sorted(unknown))}")
    return {**base, **changes}
