"""equimodal download: raw data from publishers with a direct public address."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from equimodal.cli import FAILED
from equimodal.cli.folders import new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.progress import progress
from equimodal.cli.text import described, wrapped
from equimodal.data.download import SETS, Elsewhere, Published, Summary, download, find
from equimodal.data.download.failure import readable
from equimodal.data.download.whole import WORK
from equimodal.errors import SetupError
from equimodal.system.extras import require

require("train", "rich")
require("data", "pooch")

from rich.console import Console  # noqa: E402

MARGIN = 14
AGAIN = "the same command goes on"


def run(arguments: Sequence[str]) -> int:
    """Show terms, ask, fetch and unpack."""
    parser = Parser(
        "download",
        "Fetch a data set from its publisher into the layout that `equimodal prepare` reads. Its "
        "licence is shown first. Files are checked before they are in their places; interrupted, "
        "the same command goes on where it was, in the middle of a file if the server can.",
    )
    parser.add("name", type=str, help=f"a data set: {', '.join(SETS)}")
    parser.add("--out", type=Path, default=None, help="folder for the files")
    parser.add(
        "--talkers", type=str, nargs="+", default=None, help="of grid, some, as s1 s2 [all 33]"
    )
    parser.add(
        "--mirror",
        type=str,
        default=None,
        help="address of a copy, below which the files have their names [the publisher's]",
    )
    parser.add("--yes", action="store_true", help="do not ask: the terms are known and accepted")
    parser.add(
        "--timeout", type=float, default=60.0, help="seconds without a byte until trying again"
    )
    parser.add("--retries", type=int, default=4, help="how often to try again when nothing comes")
    options = parser.read(arguments)
    if options is None:
        return 0
    _check(options.timeout, options.retries)
    published = find(options.name, options.talkers)
    if isinstance(published, Elsewhere):
        print(_elsewhere(published))
        return FAILED
    if options.out is None:
        raise SetupError("--out: expected a folder for the files, found none")
    if options.mirror is not None:
        published = published.mirrored(options.mirror)
    folder = new_or_existing_folder(options.out)
    print(_terms(published, folder, options.mirror), flush=True)
    if not options.yes and not _agreed():
        print("equimodal download: nothing was fetched", file=sys.stderr)
        return FAILED
    try:
        with progress(Console(stderr=True)) as show:
            summary = download(
                published, folder, timeout=options.timeout, retries=options.retries, show=show
            )
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(AGAIN) from interruption
    print(_report(published, folder, summary))
    return 0


def _check(timeout: float, retries: int) -> None:
    if not 0 < timeout < float("inf"):
        raise SetupError(f"--timeout: expected seconds above 0, found {timeout}")
    if retries < 0:
        raise SetupError(f"--retries: expected 0 or more, found {retries}")


def _terms(published: Published, folder: Path, mirror: str | None) -> str:
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = readable(shutil.disk_usage(place).free)
    size = f"about {readable(published.size)}"
    if published.space > published.size:
        size += f", about {readable(published.space)} on disk with what is unpacked"
    facts = [
        ("licence", published.licence),
        ("cite", published.citation),
        ("page", published.page),
        ("from", mirror or _host(published)),
        ("into", f"{folder}: {published.layout}"),
        ("size", f"{size}; {free} are free"),
    ]
    if published.note:
        facts.append(("note", published.note))
    return "\n".join([wrapped(published.title), described(facts, MARGIN)])


def _host(published: Published) -> str:
    files = (*((published.index,) if published.index else ()), *published.files)
    return ", ".join(dict.fromkeys(file.address.split("/")[2] for file in files))


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise SetupError(
            "expected --yes, as nobody can be asked here: it says that the terms above are known "
            "and accepted"
        )
    print("Fetch it under these terms? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _report(published: Published, folder: Path, summary: Summary) -> str:
    lines = [
        f"{published.name} is in {folder}: {len(summary.fetched)} files fetched, "
        f"{len(summary.kept)} were there."
    ]
    if summary.unchecked:
        names = ", ".join(summary.unchecked[:3])
        more = f" and {len(summary.unchecked) - 3} more" if len(summary.unchecked) > 3 else ""
        lines.append(
            f"The publisher states no checksum of {names}{more}: the SHA-256 of the first download "
            f"is kept in {folder / WORK}, and checked from now on."
        )
    if summary.archives:
        lines.append(
            f"The archives in {folder / WORK} ({readable(summary.archives)}) may be deleted: what "
            "was unpacked of them is noted there."
        )
    out = folder.with_name(f"{folder.name}-prepared")
    command = shlex.join(
        ["equimodal", "prepare", published.prepare, "--source", str(folder), "--out", str(out)]
    )
    return "\n".join([*(wrapped(line) for line in lines), f"Next: {command}"])


def _elsewhere(published: Elsewhere) -> str:
    lines = [
        f"{published.title}.",
        published.where,
        f"`equimodal prepare {published.prepare} --source RAW` then wants {published.layout}.",
    ]
    return "\n".join(wrapped(line) for line in lines)
