"""The options of a data set: by name, or from a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from equimodal import data
from equimodal.cli.parser import Parser
from equimodal.data.batches.prepared import prepared
from equimodal.errors import SetupError

FILTER = "COLUMN=VALUE, or COLUMN=A|B,OTHER=C"
CHANNELS = "MODALITY=AXIS, or MODALITY=none,OTHER=AXIS"
VIEW = "frames=3,size=112,spectrogram=log-mel and the like"


def add_data(parser: Parser, *, optional: bool = False, function: bool = False) -> None:
    """Add the argument that names the data, and what to choose of it.

    Args:
        parser: of the command.
        optional: whether it may be left out, because a run says where its data are.
        function: whether it may be a function of the user's too.
    """
    known = ", ".join(data.available())
    if function:
        known = f"package.module:function, {known}"
    parser.add(
        "dataset",
        type=str,
        **({"nargs": "?", "default": None} if optional else {}),
        help=(
            f"{'where the data of a run are if they have moved' if optional else 'a data set'}: "
            f"{known}, the path of a .npz or .parquet file or of a folder that "
            "`equimodal prepare` wrote, or with --data its name"
        ),
    )
    parser.add("--data", type=Path, default=None, help="the prepared folder of the data set")
    parser.add(
        "--view",
        type=str,
        default=None,
        help=f"of prepared clips, how they look: {VIEW} [as it was prepared]",
    )
    parser.add(
        "--modalities", type=list[str], default=None, help="some of the data set's, as [a, b] [all]"
    )
    parser.add("--filter", type=str, default=None, help=f"of a file, some samples: {FILTER} [all]")
    parser.add(
        "--groups", type=str, default=None, help="of a file, the column of what belongs together"
    )
    parser.add(
        "--validation",
        type=float,
        default=None,
        help="of a file without a val split, the share of train to hold out [0.2]",
    )
    parser.add(
        "--channels", type=str, default=None, help=f"of a file, which axis they are: {CHANNELS}"
    )
    parser.add("--target", type=str, default=None, help="of a file, the array of the classes [y]")


def source_of(options: Any) -> data.Source:
    """Return the data set that the options describe.

    Raises:
        SetupError: one cannot be read.
    """
    given = {
        "modalities": options.modalities,
        "where": options.filter and {n: v.split("|") for n, v in _pairs("filter", options.filter)},
        "groups": options.groups,
        "validation": options.validation,
        "channels": options.channels and _axes(options.channels),
        "target": options.target,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if options.view is not None:
        given |= view_of(options.view)
    if options.data is None:
        return data.Source(options.dataset, given)
    if not options.data.is_dir():
        raise SetupError(f"--data: {options.data}: expected a prepared folder, found none")
    source = data.Source(str(options.data), given)
    held = prepared(str(options.data)).name
    if held != options.dataset:
        raise SetupError(f"--data: {options.data} holds {held}, not {options.dataset}")
    return source


def view_of(text: str) -> dict[str, float | int | str]:
    """Return what ``--view`` says.

    Raises:
        SetupError: it cannot be read.
    """
    return {name: _number(value) for name, value in _pairs("view", text)}


def several(splits: data.Splits[data.Samples]) -> None:
    """Refuse data of one modality.

    Raises:
        SetupError: there are fewer than two.
    """
    if len(splits.modalities) < 2:
        raise SetupError(
            f"--modalities: expected two or more, found {', '.join(splits.modalities)} alone: of a "
            "file, arrays of numbers with two axes or more in every split"
        )


def folder_name(splits: data.Splits[data.Samples]) -> str:
    """Return the name of a data set without what shells and file systems stumble over."""
    return re.sub(r"[^\w.]+", "-", splits.card.name).strip("-")


def _pairs(option: str, text: str) -> list[tuple[str, str]]:
    pairs = [tuple(part.strip() for part in each.split("=", 1)) for each in text.split(",")]
    names = [pair[0] for pair in pairs]
    if any(len(pair) < 2 or not all(pair) for pair in pairs) or len(set(names)) < len(names):
        expected = {"filter": FILTER, "channels": CHANNELS, "view": VIEW}[option]
        raise SetupError(f"--{option}: expected {expected}, none twice, found {text!r}")
    return [(pair[0], pair[1]) for pair in pairs]


def _axes(text: str) -> dict[str, int | None]:
    axes: dict[str, int | None] = {}
    for name, axis in _pairs("channels", text):
        if axis != "none" and not axis.isdigit():
            raise SetupError(f"--channels: expected {CHANNELS}, found {text!r}")
        axes[name] = None if axis == "none" else int(axis)
    return axes


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
