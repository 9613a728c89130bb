"""Rows of an article as comparisons: one for each data set and model, run by one engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from equimodal import data
from equimodal.compare import Comparison, Entry, Progress, Subject, run_all
from equimodal.compare.figure import learning
from equimodal.compare.summary import Row as Outcome
from equimodal.report import save
from equimodal.reproducing import load, models
from equimodal.reproducing.paper import FIGURE, Paper, Protocol, Row
from equimodal.reproducing.table import as_csv, markdown
from equimodal.system.files import write_whole
from equimodal.tasks import Engine


@dataclass(frozen=True)
class Trial:
    """What is made smaller than in the article, to try whether all of it runs.

    Attributes:
        epochs: instead of the article's.
        view: how samples look, instead of the article's.
        width: channels of ResNet-18's first stage.
    """

    epochs: int | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    width: int = models.WIDTH

    def words(self) -> str:
        """Say what is smaller; "" if nothing is."""
        said = [] if self.epochs is None else [f"epochs {self.epochs}"]
        said += [f"{name} {value}" for name, value in self.view.items()]
        return ", ".join(said + ([] if self.width == models.WIDTH else [f"width {self.width}"]))


AS_PUBLISHED = Trial()


class Reproduction:
    """Tables of an article on your data.

    Args:
        paper: the article.
        tables: rows by the name of their table, those that are wanted.
        places: the folders of the data sets.
        folder: for the results; there is one for each protocol in it, data set and model. Rows of
            several tables that are the same share their trainings.
        seeds: of every row.
        protocol: "honest", or "published".
        trial: what is made smaller.

    Raises:
        SetupError: see `Comparison`.
    """

    def __init__(
        self,
        paper: Paper,
        tables: Mapping[str, Sequence[Row]],
        places: Mapping[str, Path],
        folder: Path,
        seeds: Sequence[int],
        protocol: Protocol = "honest",
        trial: Trial = AS_PUBLISHED,
    ) -> None:
        self.paper = paper
        self.tables = tables
        self.folder = folder / protocol
        self.protocol: Protocol = protocol
        self.trial = trial
        self.seeds = list(seeds)
        groups: dict[tuple[str, str], dict[str, Entry]] = {}
        for row in (row for rows in tables.values() for row in rows):
            entries = groups.setdefault((row.data, row.model), {})
            entries[row.label] = Entry(row.label, row.method, dict(row.options))
        self.comparisons = {
            key: self._comparison(*key, places[key[0]], list(entries.values()))
            for key, entries in groups.items()
        }

    def _comparison(self, name: str, model: str, place: Path, entries: list[Entry]) -> Comparison:
        settings = self.paper.settings
        if self.trial.epochs is not None:
            settings = replace(settings, epochs=self.trial.epochs)
        view = self.paper.views.get(name)
        options = {} if view is None else {**view, **self.trial.view}
        subject = Subject(
            f"{load.__name__}:load",
            f"{models.__name__}:model_of",
            {"protocol": self.protocol},
            {"model": model, "width": self.trial.width},
        )
        source = data.Source(str(place.resolve()), options)
        own = self.folder / name / model
        return Comparison(source, entries, own, self.seeds, settings, subject=subject)

    @property
    def trainings(self) -> int:
        """How many trainings there are."""
        return sum(len(each.runs) for each in self.comparisons.values())

    def missing(self) -> int:
        """Return how many of them are not finished."""
        return sum(each.missing() for each in self.comparisons.values())

    def run(
        self,
        workers: int | None = None,
        show: Callable[[Progress], None] | None = None,
        engine: Engine | None = None,
        limit: float | None = None,
        readers: int = 0,
    ) -> dict[str, str]:
        """Do what is left; see `equimodal.compare.run_all`."""
        comparisons = list(self.comparisons.values())
        return run_all(comparisons, self.folder, workers, show, engine, limit, readers)

    def outcomes(self) -> dict[str, Outcome]:
        """Return what has come of rows, by their names."""
        return {
            f"{name}/{model}/{outcome.entry.label}": outcome
            for (name, model), each in self.comparisons.items()
            for outcome in each.rows()
        }

    def remarks(self) -> list[str]:
        """Say what a reader of the numbers must know, the worst first."""
        said = []
        if self.protocol == "published":
            said.append(
                "PUBLISHED PROTOCOL: the epoch is the best on the test split, and validation clips "
                "are trained on. These numbers flatter; they are no estimates for unseen data."
            )
        if words := self.trial.words():
            said.append(f"TRIAL, not the article's settings: {words}.")
        if self.protocol == "honest":
            told = {name: each.splits.card for (name, _), each in self.comparisons.items()}
            said += [
                f"{name}: speakers of the test split are trained on, as its split is not "
                "--protocol speakers."
                for name, card in told.items()
                if name == "crema-d" and ": speakers" not in card.splits
            ]
        return said

    @cached_property
    def fingerprints(self) -> list[str]:
        """Return the data sets in words, each once."""
        return list(dict.fromkeys(str(each.splits) for each in self.comparisons.values()))

    def write(self) -> list[Path]:
        """Write the tables and the figure, as far as they are, and return the paths."""
        paths: list[Path] = []
        outcomes = self.outcomes()
        for name, rows in self.tables.items():
            if not any(row.name in outcomes for row in rows):
                continue
            if name == FIGURE:
                paths += self._drawn(rows, outcomes)
            text, numbers = self.folder / f"{name}.md", self.folder / f"{name}.csv"
            write_whole(text, self._document(name, rows, outcomes))
            write_whole(numbers, as_csv(rows, outcomes))
            paths += [text, numbers]
        return paths

    def _document(self, name: str, rows: Sequence[Row], outcomes: Mapping[str, Outcome]) -> str:
        differs = [f"- {point}" for point in self.paper.differing(self.protocol, rows)]
        parts = [
            f"# {name} of {self.paper.name}",
            f"{self.paper.title}. Settings: {self.paper.code}.",
            *(f"**{remark}**" for remark in self.remarks()),
            markdown(rows, outcomes, self.seeds),
            "Data: " + "; ".join(self.fingerprints),
            "\n".join(["Differs from the article:", "", *differs]),
            self.paper.untraced,
        ]
        return "\n\n".join(parts) + "\n"

    def _drawn(self, rows: Sequence[Row], outcomes: Mapping[str, Outcome]) -> list[Path]:
        paths: list[Path] = []
        for key, each in self.comparisons.items():
            own = [row.name for row in rows if (row.data, row.model) == key]
            there = [outcomes[name] for name in own if name in outcomes]
            if there:
                title = "; ".join([each.splits.card.name, *self.remarks()[:1]])[:90]
                figure = learning(there, each.modalities, title)
                paths += save(figure, self.folder, f"{FIGURE}-{'-'.join(key)}")
        return paths

    def finished(self) -> int:
        """Return how many trainings are finished."""
        return self.trainings - self.missing()
