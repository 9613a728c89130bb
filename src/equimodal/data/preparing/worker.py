"""One shard as a task: its specification, and what a process makes of it."""

from __future__ import annotations

import base64
import contextlib
import faulthandler
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from equimodal.data.layouts.clip import Clip
from equimodal.data.preparing.plan import KINDS, Shard, Stamp
from equimodal.data.preparing.recipe import Recipe
from equimodal.data.preparing.shard import Task, make
from equimodal.tasks import note

STACKS = "stacks.txt"  # left by a process that crashed, or was at one clip for too long


def spelt(shard: Shard, task: Task, crashed: Mapping[str, str], limit: float) -> dict[str, Any]:
    """Return what a process is to be told.

    Args:
        shard: which.
        task: how shards are made.
        crashed: ids of clips to leave out, because their decoder crashed or hung, with the reason.
        limit: seconds that a clip may take.
    """
    return {
        "root": str(task.root.absolute()),
        "folder": str(task.folder.absolute()),
        "recipe": asdict(task.recipe),
        "labels": dict(task.labels),
        "schema": base64.b64encode(task.schema.serialize().to_pybytes()).decode(),
        "name": shard.name,
        "clips": [
            {**asdict(clip), "kinds": {n: KINDS[type(p)] for n, p in clip.pieces.items()}}
            for clip in shard.clips
        ],
        "stamps": {path: asdict(stamp) for path, stamp in shard.stamps.items()},
        "crashed": dict(crashed),
        "limit": limit,
    }


def make_shard(spec: dict[str, Any], folder: Path) -> None:
    """Make the shard of a specification. A clip that takes too long ends the process."""
    pa: Any = import_module("pyarrow")  # untyped
    pa.set_cpu_count(1)
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(spec["schema"])))
    recipe = Recipe(**spec["recipe"])
    task = Task(Path(spec["root"]), Path(spec["folder"]), recipe, spec["labels"], schema)
    stamps = {path: Stamp(**stamp) for path, stamp in spec["stamps"].items()}
    shard = Shard(spec["name"], tuple(_clip(**clip) for clip in spec["clips"]), stamps)
    with contextlib.ExitStack() as stack:
        stacks = stack.enter_context((folder / STACKS).open("w"))
        faulthandler.enable(stacks)  # to be told of a crash in the same words on every engine
        stack.callback(faulthandler.disable)
        stack.callback(faulthandler.cancel_dump_traceback_later)

        def begin(place: int) -> None:
            note(folder, place)
            if place < len(shard.clips):
                faulthandler.dump_traceback_later(spec["limit"], exit=True, file=stacks)
            else:
                faulthandler.cancel_dump_traceback_later()

        make(shard, task, spec["crashed"], begin)


def blame(folder: Path, limit: float, how: str) -> str:
    """Return why a process has ended at a clip: the same words on every engine.

    Args:
        folder: of the task.
        limit: seconds that a clip may take.
        how: the process has ended, as the engine says it.
    """
    first = (folder / STACKS).read_text(errors="replace").partition("\n")[0]
    if first.startswith("Timeout"):
        return f"took too long: more than {limit:g} s"
    return f"decoder crashed: {first.partition('Fatal Python error: ')[2] or how}"


def _clip(kinds: Mapping[str, str], pieces: Mapping[str, Any], **others: Any) -> Clip:
    by_kind = {kind: piece for piece, kind in KINDS.items()}
    return Clip(pieces={n: by_kind[kinds[n]](**piece) for n, piece in pieces.items()}, **others)
