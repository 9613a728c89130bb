"""Preparing a data set, from a listing of clips to a folder of shards: the whole on one page."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Failure, Listing
from equimodal.data.preparing import failures as left_out
from equimodal.data.preparing import remarks as odd
from equimodal.data.preparing.card import card
from equimodal.data.preparing.dataset import described
from equimodal.data.preparing.folder import (
    CARD,
    DATASET,
    claim,
    clear,
    explained,
    locked,
    sweep,
)
from equimodal.data.preparing.misfits import refuse_misfits
from equimodal.data.preparing.plan import Plan, Shard, planned, text
from equimodal.data.preparing.recipe import Recipe
from equimodal.data.preparing.record import Record, finished
from equimodal.data.preparing.rows import schema
from equimodal.data.preparing.shard import Task
from equimodal.data.preparing.summary import Summary
from equimodal.data.preparing.workers import NEEDED, Workers
from equimodal.errors import SetupError
from equimodal.system.extras import require
from equimodal.system.files import write_whole
from equimodal.tasks import Engine, Local

AHEAD = 1000  # shards that an engine of many machines is given at once


@dataclass(frozen=True)
class Progress:
    """How far preparing is.

    Attributes:
        done: clips decoded or left out, in this call or before.
        total: clips of the plan.
        failed: clips left out, of the shards that are finished.
        shards: finished.
    """

    done: int
    total: int
    failed: int
    shards: int


Show = Callable[[Progress], None]


def prepare(
    listing: Listing,
    out: Path,
    recipe: Recipe,
    view: View,
    *,
    workers: int | None = None,
    allow_missing: float = 0.01,
    shard_size: int = 256,
    time_limit: float = 600.0,
    fresh: bool = False,
    show: Show | None = None,
    engine: Engine | None = None,
) -> Summary:
    """Decode the clips of a listing into a folder of Parquet shards.

    Whatever stops it, a kill or a full disk, the same call goes on: finished shards are not made
    again, and all files get the bytes that an uninterrupted call would have written (with the same
    versions of the libraries that decode). Shards that are missing or damaged are made again.

    Args:
        listing: the clips.
        out: the folder: new, empty, or one in which the same was begun.
        recipe: how clips are decoded.
        view: how samples look, unless said otherwise; noted in the folder.
        workers: processes; one for each core that may be used by default. Of another engine,
            shards that it is given at once; `AHEAD` by default.
        allow_missing: the share of all clips that may be left out.
        shard_size: clips in a shard, at most.
        time_limit: seconds that decoding a clip may take. One that takes longer, twice, is left
            out.
        fresh: remove first what was prepared in the folder.
        show: is called whenever there is something to show.
        engine: where shards are made; in processes of this machine by default. Other machines
            have to see both folders under the same names.

    Returns:
        What came of it.

    Raises:
        SetupError: the listing cannot be prepared; or the folder holds something else, such as the
            same data set from a source that has changed since; or another process is at it.
        MissingClipsError: too many clips are missing, or all of a class or split. The shards stay.
        OSError: the disk is full, or a file cannot be read or written. The shards stay.
        RuntimeError: a worker has failed for a reason that is no fault of a clip.
        ImportError: a library is missing.
    """
    require("data", "av", "datasets", "numpy", "PIL", "pyarrow")
    if workers is not None and workers < 1:
        raise SetupError(f"workers: expected 1 or more, found {workers}")
    if not 0 <= allow_missing < 1:
        raise SetupError(f"allow_missing: expected 0 to below 1, found {allow_missing}")
    if not time_limit > 0:
        raise SetupError(f"time_limit: expected seconds above 0, found {time_limit}")
    if recipe.keep_partial:
        listing = listing.with_partial()
    refuse_misfits(listing)
    plan = planned(listing, recipe, view, shard_size)
    workers = workers or (_cores() if engine is None else AHEAD)
    with explained(out), locked(out) as lock:
        if fresh:
            clear(out)
        claim(out, plan)
        if engine is None:  # jobs on other machines may still write, and be found again
            sweep(out)
        work = Work(plan, out, show)
        work.find(_cores())
        work.judge(allow_missing)  # before days of decoding, if it is clear already
        try:
            decoded = work.make(engine or Local(workers, NEEDED, lock), workers, time_limit)
        finally:
            sweep(out)
        failures = work.judge(allow_missing)
        records = work.in_order()
        dataset = described(plan, records, failures)
        said = json.dumps(dataset, indent=1) + "\n"
        reasons = left_out.reasons(failures)
        remarks = [remark for record in records.values() for remark in record.remarks]
        odd.write(out, remarks)
        write_whole(out / CARD, card(dataset, said, reasons))
        write_whole(out / DATASET, said)
    size = sum(record.bytes for record in records.values())
    return Summary(out, dataset, reasons, size, decoded, odd.counts(remarks))


class Work:
    """The shards of a plan: those that are there, and those to be made.

    Args:
        plan: to be carried out.
        out: the folder.
        show: see `prepare`.
    """

    def __init__(self, plan: Plan, out: Path, show: Show | None) -> None:
        self.plan = plan
        self.out = out
        self.show = show
        self.shards = plan.shards()
        self.records: dict[str, Record] = {}
        self.places = {shard.name: 0 for shard in self.shards}
        self.failed = 0

    def find(self, threads: int) -> None:
        """Find the shards that are there, whole and undamaged."""
        # Threads: hashing leaves the interpreter to others.
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda shard: finished(self.out, shard), self.shards)
            for shard, record in zip(self.shards, found, strict=True):
                if record is not None:
                    self._tell(shard, len(shard.clips), record)

    def make(self, engine: Engine, number: int, limit: float) -> int:
        """Make the others, and return how many clips they are planned to have."""
        missing = [shard for shard in self.shards if shard.name not in self.records]
        if missing:
            (self.out / DATASET).unlink(missing_ok=True)  # until all shards are there again
            listing = self.plan.listing
            labels = {name: label for label, name in enumerate(listing.classes)}
            task = Task(listing.root, self.out, self.plan.recipe, labels, schema(listing))
            key = hashlib.sha256(text(self.plan.content()).encode()).hexdigest()[:12]
            with Workers(task, missing, engine, number, limit, key) as pool:
                for step in pool.steps():
                    self._tell(step.shard, step.place, step.record)
        return sum(len(shard.clips) for shard in missing)

    def judge(self, allow_missing: float) -> list[Failure]:
        """List the failures that are known, and refuse too many.

        Raises:
            MissingClipsError: there are.
        """
        failures = left_out.in_order(self.plan, self.in_order().values())
        left_out.write(self.out, failures)
        left_out.judge(self.out, self.plan, failures, allow_missing)
        return failures

    def in_order(self) -> dict[str, Record]:
        """Return the records of finished shards by name, in the order of the plan."""
        return {s.name: self.records[s.name] for s in self.shards if s.name in self.records}

    def _tell(self, shard: Shard, place: int, record: Record | None) -> None:
        self.places[shard.name] = place
        if record is not None:
            self.records[shard.name] = record
            self.failed += len(record.failures)
        if self.show is not None:
            total = len(self.plan.listing.clips)
            self.show(Progress(sum(self.places.values()), total, self.failed, len(self.records)))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
