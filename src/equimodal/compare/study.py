"""A comparison from its plan to its table and figure, interruptible at any moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from equimodal import data
from equimodal.compare import tables
from equimodal.compare.figure import learning
from equimodal.compare.plan import note_plan
from equimodal.compare.runs import Entry, planned
from equimodal.compare.subject import Subject, usual
from equimodal.compare.summary import Row, read, summarised
from equimodal.compare.task import task_of
from equimodal.compare.verdict import verdict
from equimodal.errors import SetupError
from equimodal.report import save
from equimodal.system.files import write_whole
from equimodal.tasks import Engine, Local, Lock, Task, carry_out, holding, place
from equimodal.training import Encoder, Settings
from equimodal.training.claim import Claim
from equimodal.training.diverged import reason
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

    The folder may hold runs of a comparison with other rows, values or seeds: those that belong to
    this one are used, the others stay where they are.

    Args:
        name: of the data set, or its source.
        entries: the rows.
        folder: for the results; made by `run`.
        seeds: the same for every row, so that differences are paired.
        settings: how to train; the seed in it plays no part.
        modalities: some of the data set's, or None for all.
        encoder: what encodes a modality, see `equimodal.training.model_for`.
        subject: data and model made otherwise than by `name` and `encoder`.

    Raises:
        SetupError: there is nothing to compare, or something twice; or the folder holds a
            comparison of other data or with other settings.
    """

    def __init__(
        self,
        name: str | data.Source,
        entries: Sequence[Entry],
        folder: Path,
        seeds: Sequence[int],
        settings: Settings | None = None,
        modalities: Sequence[str] | None = None,
        encoder: Encoder = "small",
        subject: Subject | None = None,
    ) -> None:
        self.entries = list(entries)
        self.seeds = list(seeds)
        _refuse_none_or_twice("entries", [entry.label for entry in self.entries])
        _refuse_none_or_twice("seeds", self.seeds)
        for entry in self.entries:
            for option, values in entry.grid.items():
                _refuse_none_or_twice(f"{option} of {entry.label}", values)
        source = data.Source(name) if isinstance(name, str) else name
        chosen = {} if modalities is None else {"modalities": tuple(modalities)}
        self.source = replace(source, options={**source.options, **chosen})
        self.subject = subject
        self.splits = (subject or usual(encoder)).load(self.source)
        if len(self.splits.modalities) < 2:
            raise SetupError(
                f"modalities: expected two or more, found {', '.join(self.splits.modalities)} alone"
            )
        self.folder = folder
        self.encoder = encoder
        self.settings = replace((settings or Settings()).suited(self.splits.card.name), seed=0)
        self.runs = planned(self.entries, self.seeds)
        self.claim = Claim(
            folder / "comparison.json",
            "a comparison",
            {
                "data": self.splits.card.name,
                "modalities": list(self.modalities),
                "fingerprint": self.splits.fingerprint,
                **_layout(self.source),
                "encoder": encoder,
                **({} if subject is None else {"subject": subject.described()}),
                "settings": asdict(self.settings),
                "versions": versions(),
            },
        )
        if (folder / "run.json").exists() or (folder / "result.json").exists():
            raise SetupError(f"{folder} holds a run, not a comparison: name another folder")
        self.claim.check("versions")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the data."""
        return self.splits.modalities

    def run(
        self,
        workers: int | None = None,
        show: Callable[[Progress], None] | None = None,
        engine: Engine | None = None,
        limit: float | None = None,
    ) -> dict[str, str]:
        """Do all runs that are not done yet, several at once.

        Args:
            workers: how many, each with its share of the cores; one for each core by default.
            show: is called whenever there is something to show.
            engine: where they run; in processes of this machine by default.
            limit: seconds that a run may take.

        Returns:
            What went wrong, by the name of the run.

        Raises:
            SetupError: runs of other versions of the software are there, which cannot be paired
                with those still to be done; or another process is at this comparison.
            KeyboardInterrupt: it was interrupted; another call goes on.
        """
        return run_all([self], self.folder, workers, show, engine, limit)

    def tasks(self, threads: int, limit: float | None = None, readers: int = 0) -> list[Task]:
        """Return all runs as tasks, done or not."""
        how = (self.source, self.settings, self.folder, self.encoder, threads, limit, self.subject)
        return [task_of(run, *how, readers) for run in self.runs]

    @contextlib.contextmanager
    def taken(self) -> Iterator[Lock]:
        """Claim the folder, as long as its runs are done.

        Raises:
            SetupError: see `run`.
        """
        self.claim.check()
        with holding(self.folder) as lock:
            self.claim.write()
            note_plan(self.folder, self.runs)
            yield lock

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
        text = [str(self.splits), self._terms(), tables.markdown(rows, self.modalities)]
        said = [verdict(rows)]
        if diverged := self.diverged():
            said.append(f"Diverged, and not in the table: {', '.join(sorted(diverged))}.")
        write_whole(table, "\n\n".join([*text, *said]) + "\n")
        write_whole(runs, tables.as_csv(rows, self.modalities))
        figure = learning(rows, self.modalities, self.splits.card.name)
        return [table, runs, *save(figure, self.folder, "learning")]

    def diverged(self) -> dict[str, str]:
        """Return why runs have diverged that have no result, by their names."""
        folders = {run.name: self.folder / "runs" / run.name for run in self.runs}
        said = {
            name: reason(folder)
            for name, folder in folders.items()
            if not (folder / "result.json").exists()
        }
        return {name: why for name, why in said.items() if why}

    def missing(self) -> int:
        """Return how many runs are not finished."""
        return len(self.runs) - len(read(self.folder / "runs", self.runs))

    def _terms(self) -> str:
        return (
            "Test accuracy in per cent: mean over paired seeds with 95% t interval, and paired "
            "difference to `joint`, with its interval for other seeds and then for other test "
            "samples too. The epoch is chosen by validation accuracy in every "
            "run, the value in parentheses by its mean over the seeds. Columns of modalities: the "
            "accuracy of each read through the joint head; of models of that modality alone in the "
            "rows that are named so, and in the ensemble. Cost: of one training in trainings of "
            "`joint`, counted in operations of forward and backward passes, validation left out; "
            "each value of a row to choose from took as much again."
        )


def run_all(
    comparisons: Sequence[Comparison],
    folder: Path,
    workers: int | None = None,
    show: Callable[[Progress], None] | None = None,
    engine: Engine | None = None,
    limit: float | None = None,
    readers: int = 0,
) -> dict[str, str]:
    """Do all runs of some comparisons that are not done yet, by one engine.

    Args:
        comparisons: with folders of their own.
        folder: that all of them are in, or that of the only one.
        workers: see `Comparison.run`, as all that follow.
        show: see there.
        engine: see there.
        limit: see there.
        readers: processes that read prepared clips for each run.

    Raises:
        SetupError: see `Comparison.run`.
        KeyboardInterrupt: see `Comparison.run`.
    """
    show = show or (lambda progress: None)
    if workers is not None and workers < 1:
        raise SetupError(f"workers: expected 1 or more, found {workers}")
    cores = os.cpu_count() or 1
    # From what was asked for, not from what is left: a resumed comparison shall do the same
    # arithmetic as an uninterrupted one.
    threads = max(1, cores // (workers or cores))
    epochs: dict[str, int] = {}
    tasks: list[Task] = []
    with contextlib.ExitStack() as stack:
        lock: Lock | None = None
        if any(each.folder != folder for each in comparisons):
            lock = stack.enter_context(holding(folder))
        left = False
        for each in comparisons:
            own = each.tasks(threads, limit, readers)
            within = "" if each.folder == folder else f"{each.folder.relative_to(folder)}/"
            own = [replace(task, name=f"{within}{task.name}") for task in own]
            epochs |= {task.name: each.settings.epochs or 0 for task in own}
            tasks += own
            if not all(task.done for task in own):
                left = True
                taken = stack.enter_context(each.taken())
                lock = lock or taken
        if not left:
            show(Progress(1, 1, len(tasks), len(tasks), ()))
            return {}
        with engine or Local(workers or cores, [task_of.__module__], lock) as engine:
            return _watched(engine, tasks, epochs, show)


def _watched(
    engine: Engine,
    tasks: Sequence[Task],
    epochs: Mapping[str, int],
    show: Callable[[Progress], None],
) -> dict[str, str]:
    ended = {task.name: "" for task in tasks if task.done}

    def tell() -> None:
        current = {t.name: place(t.folder) or 0 for t in engine.running()}
        done = sum(epochs[name] for name in ended) + sum(current.values())
        finished = sum(not reason for reason in ended.values())
        show(Progress(done, sum(epochs.values()), finished, len(tasks), tuple(current)))

    tell()
    for outcome in carry_out(engine, tasks):
        if outcome is not None:
            ended[outcome.task.name] = outcome.reason
        tell()
    return {name: reason for name, reason in ended.items() if reason}


def _layout(source: data.Source) -> dict[str, object]:
    """Return what the fingerprint of a data set does not know: it is over samples and labels."""
    channels = source.options.get("channels")
    return {} if channels is None else {"channels": dict(channels)}


def _refuse_none_or_twice(what: str, given: Sequence[object]) -> None:
    if not given or any(each in given[:place] for place, each in enumerate(given)):
        found = ", ".join(map(str, given)) or "none"
        raise SetupError(f"{what}: expected one or more, none twice, found {found}")
