"""A comparison from its plan to its table and figure, interruptible at any moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from equimodal import data
from equimodal.compare import tables
from equimodal.compare.queue import RunQueue
from equimodal.compare.runs import Entry, planned
from equimodal.compare.summary import REFERENCE, Row, read, summarised
from equimodal.compare.worker import Task, work
from equimodal.errors import SetupError
from equimodal.report import learning_curves, save
from equimodal.training import Settings
from equimodal.training.fit import versions


@dataclass(frozen=True)
class Progress:
    """How far a comparison is.

    Attributes:
        done: epochs trained so far, in all runs.
        total: epochs of all runs.
        finished: runs finished.
        runs: all runs.
        current: names of the runs that are being trained.
    """

    done: int
    total: int
    finished: int
    runs: int
    current: tuple[str, ...]


class Comparison:
    """Methods on one data set over paired seeds, in a folder that holds all of it.

    Args:
        name: of the data set.
        entries: the rows.
        folder: for the results; one that holds the same comparison is continued.
        seeds: the same for every row, so that differences are paired.
        settings: how to train; the seed in it plays no part.
        modalities: some of the data set's, or None for all.

    Raises:
        SetupError: the folder holds another comparison.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[Entry],
        folder: Path,
        seeds: Sequence[int],
        settings: Settings | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        self.splits = data.load(name, modalities=modalities)
        self.entries = list(entries)
        self.folder = folder
        self.seeds = list(seeds)
        self.settings = replace((settings or Settings()).suited(name), seed=0)
        self.runs = planned(self.entries, self.seeds)
        self.given = None if modalities is None else tuple(modalities)
        self._claim()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the data."""
        return self.splits.modalities

    def run(
        self, workers: int | None = None, show: Callable[[Progress], None] | None = None
    ) -> dict[str, str]:
        """Do all runs that are not done yet, in several processes.

        Args:
            workers: processes; one for each core by default.
            show: is called whenever there is something to show.

        Returns:
            What went wrong, by the name of the run.
        """
        database = f"sqlite:///{(self.folder / 'study.db').resolve()}"
        queue = RunQueue(database, self.splits.card.name)
        finished = set(read(self.folder / "runs", self.runs))
        todo = [run for run in self.runs if run.name not in finished]
        queue.add(todo)
        if not todo:
            if show is not None:
                show(Progress(1, 1, len(finished), len(self.runs), ()))
            return {}
        cores = os.cpu_count() or 1
        number = min(workers or cores, len(todo))
        task = Task(
            self.splits.card.name,
            self.given,
            self.settings,
            self.folder / "runs",
            database,
            max(1, cores // number),
        )
        context = multiprocessing.get_context("spawn")
        messages: Any = context.Queue()
        processes = [
            context.Process(target=work, args=(task, messages), daemon=True) for _ in range(number)
        ]
        # Workers take over that interruptions are not for them, from their very first line.
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in processes:
            process.start()
        signal.signal(signal.SIGINT, heard)
        try:
            return self._watch(processes, messages, len(finished), show or (lambda progress: None))
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()

    def rows(self) -> list[Row]:
        """Return the rows of all runs that are finished."""
        results = read(self.folder / "runs", self.runs)
        return summarised(self.entries, self.seeds, results, self.modalities)

    def write(self) -> list[Path]:
        """Write table, runs and figure of what is finished, and return the paths."""
        rows = self.rows()
        if not rows:
            return []
        table, runs = self.folder / "table.md", self.folder / "runs.csv"
        head = f"{self.splits}\n\n{self._terms()}\n\n"
        _write(table, head + tables.markdown(rows, self.modalities))
        tables.write_csv(runs, rows, self.modalities)
        return [table, runs, *save(self.figure(rows), self.folder, "learning")]

    def figure(self, rows: Sequence[Row]) -> Any:
        """Draw how each modality learns within the joint models, beside its model alone."""
        joint = [row for row in rows if "modality" not in row.entry.options]
        joint = [row for row in joint if row.entry.label != "ensemble"]

        def curves(metric: str) -> dict[str, Any]:
            return {
                row.label: np.array([[e[metric] for e in r.history] for r in row.results.values()])
                for row in joint
            }

        panels = {"all modalities": curves("val/accuracy")}
        panels |= {
            f"{name}, through the joint head": curves(f"val/accuracy/{name}")
            for name in self.modalities
        }
        references = {}
        for row in rows:
            name = row.entry.options.get("modality")
            if name is not None:
                best = [r.val["accuracy"] for r in row.results.values()]
                references[f"{name}, through the joint head"] = sum(best) / len(best)
        title = (
            f"{self.splits.card.name}: mean over {len(self.seeds)} seeds; "
            f"the band is the range of {REFERENCE}"
        )
        return learning_curves(panels, references, title, banded=REFERENCE)

    def missing(self) -> int:
        """Return how many runs are not finished."""
        return len(self.runs) - len(read(self.folder / "runs", self.runs))

    def _terms(self) -> str:
        seeds = f"{len(self.seeds)} paired seeds"
        return (
            f"Test accuracy in per cent, mean over {seeds} with 95% bootstrap interval; paired "
            f"difference to `{REFERENCE}`. The epoch is chosen by validation accuracy in every "
            "run, the value in parentheses by its mean over the seeds. Columns of modalities: the "
            "accuracy of each read through the joint head; of models of that modality alone in the "
            "rows that are named so, and in the ensemble."
        )

    def _claim(self) -> None:
        """Note in the folder what it holds, or refuse one that holds something else."""
        plan = {
            "data": self.splits.card.name,
            "fingerprint": self.splits.fingerprint,
            "modalities": list(self.modalities),
            "settings": asdict(self.settings),
            "versions": versions(),
        }
        path = self.folder / "comparison.json"
        if path.exists():
            held = json.loads(path.read_text())
            for name in ("data", "fingerprint", "modalities", "settings"):
                if held[name] != plan[name]:
                    there, here = _differing(held[name], plan[name])
                    raise SetupError(
                        f"{self.folder} holds a comparison with {name} {there}, this one has "
                        f"{here}: name another folder"
                    )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(plan, indent=1) + "\n")

    def _watch(
        self,
        processes: Sequence[Any],
        messages: Any,
        finished: int,
        show: Callable[[Progress], None],
    ) -> dict[str, str]:
        epochs = self.settings.epochs or 0
        current: dict[str, int] = {}
        failed: dict[str, str] = {}
        ended = finished
        while True:
            done = ended * epochs + sum(current.values())
            total = len(self.runs) * epochs
            show(Progress(done, total, ended, len(self.runs), tuple(current)))
            try:
                kind, name, value = messages.get(timeout=0.5)
            except Empty:
                if not any(process.is_alive() for process in processes) and messages.empty():
                    break
                continue
            if kind == "epoch":
                current[name] = value
                continue
            current.pop(name, None)
            ended += 1
            if kind == "failed":
                failed[name] = value
        return failed


def _differing(one: Any, other: Any) -> tuple[Any, Any]:
    """Leave out of two dicts what they agree on."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one, other
    keys = [key for key in other if one.get(key) != other[key]]
    return {key: one.get(key) for key in keys}, {key: other[key] for key in keys}


def _write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
