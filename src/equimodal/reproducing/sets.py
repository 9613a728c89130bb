"""The data sets of the articles: where they are looked for, and how to get and prepare them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equimodal.data.batches.prepared import FILE, prepared
from equimodal.errors import SetupError, unknown
from equimodal.reproducing.ave_features import FILES, LAYOUT, NAME
from equimodal.reproducing.paper import Protocol

PUBLISHED = "-published"  # after the name of a folder that holds the article's split


@dataclass(frozen=True)
class Wanted:
    """A data set to prepare.

    Attributes:
        name: of its layout.
        honest: options of `equimodal prepare`, of our split.
        published: of the article's.
        listed: what the protocol of a folder with the article's split begins with.
        unlisted: what it has not.
        remark: beyond the two commands.
    """

    name: str
    honest: str = ""
    published: str = ""
    listed: str = ""
    unlisted: str = ""
    remark: str = ""

    def commands(self, folder: Path, protocol: Protocol) -> list[str]:
        """Return the commands that get and prepare it, and what else is to be known."""
        options = self.honest if protocol == "honest" else self.published
        out = folder / self.place(protocol)
        made = f"equimodal prepare {self.name} --source raw/{self.name} --out {quoted(out)}"
        lines = [
            f"equimodal download {self.name} --out raw/{self.name}",
            f"{made} {options}".strip(),
        ]
        return [*lines, *([self.remark] if protocol == "published" and self.remark else [])]

    def place(self, protocol: Protocol) -> str:
        """Return the name of its folder."""
        other = protocol == "published" and self.honest != self.published
        return self.name + (PUBLISHED if other else "")

    def fits(self, folder: Path, protocol: Protocol) -> str:
        """Return why a prepared folder is none for a protocol, or ""."""
        told = prepared(str(folder))
        if told.name != self.name:
            return f"{folder} holds {told.name}, not {self.name}"
        if protocol == "honest":
            return ""
        if not self.holds(told.protocol):
            return f"{folder} has another split than the article: {told.protocol}"
        return ""

    def holds(self, protocol: str) -> bool:
        """Whether a split is the article's, by how a prepared folder says it was made."""
        apart = bool(self.unlisted) and self.unlisted in protocol
        return protocol.startswith(self.listed) and not apart


SETS: Mapping[str, Wanted | None] = {
    "crema-d": Wanted(
        "crema-d",
        "--protocol speakers",
        "--lists raw/lists",
        "lists",
        remark="raw/lists: train.csv and test.csv of GeWu-Lab/OGM-GE_CVPR2022, data/CREMAD",
    ),
    "kinetics-sounds": Wanted("kinetics-sounds", "--classes 31", "--classes 31"),
    "vggsound": Wanted("vggsound", "--protocol videos", "", unlisted="are not trained on"),
    "ave": Wanted("ave", "--protocol videos", "", unlisted="are not trained on"),
    NAME: None,
}


def found(names: Iterable[str], given: Sequence[str], protocol: Protocol) -> dict[str, Path]:
    """Return the folders of data sets.

    Args:
        names: of `SETS`.
        given: a folder that holds prepared ones by their names, or "name=folder", or several.
        protocol: whose split is wanted.

    Raises:
        SetupError: some are missing; the message names the commands that make them.
    """
    folders = [Path(each) for each in given if "=" not in each]
    named = dict(each.split("=", 1) for each in given if "=" in each)
    for name in named:
        if name not in SETS:
            raise SetupError("--data: " + unknown("data set", name, SETS))
    places: dict[str, Path] = {}
    lacking: list[str] = []
    for name in dict.fromkeys(names):
        wanted = SETS[name]
        own = [name] if wanted is None else list(dict.fromkeys([wanted.place(protocol), name]))
        tried = [folder / each for folder in folders for each in own]
        tried = [Path(named[name])] if name in named else tried
        there = [each for each in tried if (each / (FILES[0] if wanted is None else FILE)).exists()]
        reasons = ["" if wanted is None else wanted.fits(each, protocol) for each in there]
        if "" in reasons:
            places[name] = there[reasons.index("")]
            continue
        lacking.append(
            _how(name, wanted, folders[0] if folders else Path("data"), protocol, reasons)
        )
    if lacking:
        where = ", ".join(given) or "--data was not given"
        raise SetupError("\n".join([f"data is missing ({where}):", *lacking]))
    return places


def _how(
    name: str, wanted: Wanted | None, folder: Path, protocol: Protocol, reasons: Sequence[str]
) -> str:
    lines = [f"  {name}", *(f"    {reason}" for reason in reasons)]
    if wanted is None:
        lines += [
            f"    {quoted(folder / name)}: {LAYOUT}",
            "    from https://github.com/YapengTian/AVE-ECCV18; docs/reproducing.md converts them",
        ]
    else:
        lines += [f"    {line}" for line in wanted.commands(folder, protocol)]
    return "\n".join(lines)


def quoted(path: Path) -> str:
    """Spell a path for a shell."""
    return shlex.quote(str(path))
