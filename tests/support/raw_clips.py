"""A small source folder of clips, listings of it, and processes that prepare them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Failure, Frames, Listing, Sound
from equimodal.data.preparing import Recipe, Summary, prepare
from equimodal.tasks import local
from support.clips import write_clip

RECIPE = Recipe(fps=10, side=24, quality=80, rate=8000)
CLASSES = ("left", "right")
DIFFERENT = 6  # clips that are encoded; the others are copies


def make_source(folder: Path, clips: int) -> Path:
    """Write clips `c000.mpg` with their sound in `c000.wav`, each 0.2 s or a little longer."""
    folder.mkdir(parents=True)
    for number in range(clips):
        wav, mpg = folder / f"c{number:03d}.wav", folder / f"c{number:03d}.mpg"
        first = number % DIFFERENT
        if number < DIFFERENT:
            seconds = 0.2 + 0.04 * number
            write_clip(wav, seconds=seconds, hz=300.0 + 100 * number, rate=8000)
            write_clip(mpg, seconds=seconds, size=(32, 24), sound=False)
        else:
            shutil.copyfile(folder / f"c{first:03d}.wav", wav)
            shutil.copyfile(folder / f"c{first:03d}.mpg", mpg)
    return folder


def split_of(place: int) -> str:
    """Three of five in train, one each in val and test."""
    return ("train", "train", "val", "train", "test")[place % 5]


def listed(root: Path, *, times: int = 1, failures: Sequence[Failure] = ()) -> Listing:
    """List the clips of a source, each so many times under different ids."""
    names = sorted(path.stem for path in root.glob("*.mpg"))
    clips = [
        Clip(
            id=f"{name}-{copy}",
            label=CLASSES[(place // 5) % 2],
            split=split_of(place),
            pieces={"audio": Sound(f"{name}.wav"), "visual": Frames(f"{name}.mpg")},
            group=f"speaker {place % 3}",
            columns={"take": float(copy), "said": f"wörd {place}"},
        )
        for copy in range(times)
        for place, name in enumerate(names)
    ]
    return Listing(
        name="tiny",
        root=root,
        clips=tuple(clips),
        classes=CLASSES,
        protocol="every fifth clip in val, every fifth in test",
        failures=tuple(failures),
        about={"source": "made by the tests", "licence": "CC0"},
    )


def prepared(listing: Listing, out: Path, **options: Any) -> Summary:
    """Prepare with the recipe of the tests, by one process unless said otherwise."""
    recipe = options.pop("recipe", RECIPE)
    return prepare(listing, out, recipe, View(), **{"workers": 1, "shard_size": 8, **options})


def files_of(folder: Path) -> dict[str, str]:
    """Return the hash of every file in a prepared folder, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass
class Run:
    """Preparing in a process of its own, which tells through a pipe how far it is, and the end.

    Its workers are forked where it was, unless they shall import something else: a process to fork
    them from takes two seconds to begin.
    """

    listing: Listing
    out: Path
    options: dict[str, Any]
    site: Path | None = None  # a folder that the processes of this one import from
    server: str | None = None  # the address of what it was forked from

    def __call__(self, pipe: Connection) -> None:
        if self.site is not None:
            path = [str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])]
            os.environ["PYTHONPATH"] = os.pathsep.join(path)
        else:
            forkserver._forkserver._forkserver_address = self.server
            forkserver._forkserver.ensure_running = lambda: None
            local._serve = lambda modules: None
        try:
            summary = prepared(
                self.listing, self.out, show=lambda state: pipe.send(state.done), **self.options
            )
        except Exception as error:
            pipe.send(error)
        else:
            pipe.send(summary)
