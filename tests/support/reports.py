"""Folders of results that were never trained, in any state."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from equimodal.compare.plan import note_plan
from equimodal.compare.runs import Entry, Run, main_job, planned
from equimodal.training import Result, Settings

FINGERPRINT = "0123456789ab"
VERSIONS = {"equimodal": "0.1.0", "torch": "2.13.0", "lightning": "2.6.6", "python": "3.11.7"}
VOID = {"meta", "br", "hr", "img", "link", "input"}


def settings(data: str, **changes: Any) -> dict[str, Any]:
    return asdict(replace(Settings(**changes).suited(data), seed=0))


def result(run: Run, modalities: Sequence[str], epochs: int = 3, data: str = "watch") -> Result:
    """Return a result with random numbers, the same for the same run."""
    rng = random.Random(f"{run.label} {run.options} {run.seed}")
    names = ["accuracy", "macro_f1", *(f"accuracy/{name}" for name in modalities)]
    history = []
    for _ in range(epochs):
        epoch = {f"val/{name}": rng.uniform(0.5, 0.9) for name in names} | {"val/loss": 0.5}
        for name in modalities:
            epoch[f"train/ratio/{name}"] = rng.uniform(0.5, 2.0)
            if "ogm" in run.method:
                epoch[f"train/coefficient/{name}"] = rng.uniform(0.3, 1.0)
        history.append(epoch)
    best = max(range(epochs), key=lambda n: history[n]["val/accuracy"])
    test = {name: rng.uniform(0.5, 0.9) for name in names} | {"loss": 0.7}
    return Result(
        data=data,
        fingerprint=FINGERPRINT,
        method=f"{run.method}()",
        settings={**settings(data), "seed": run.seed},
        best_epoch=best,
        val={name: history[best][f"val/{name}"] for name in names},
        test=test,
        history=history,
        seconds=4.0,
        versions=VERSIONS,
        right="".join("1" if rng.random() < test["accuracy"] else "0" for _ in range(100)),
    )


def comparison(
    folder: Path,
    modalities: Sequence[str] = ("accelerometer", "gyroscope"),
    entries: Sequence[Entry] | None = None,
    seeds: Sequence[int] = (0, 1),
    *,
    data: str = "watch",
    plan: bool = False,
    left: Iterable[str] = (),
    trained: int = 3,
    **changes: Any,
) -> list[Run]:
    """Write a comparison, and return its runs; those whose label is in `left` have no result."""
    entries = main_job(modalities, (0.1, 0.3)) if entries is None else entries
    runs = planned(entries, seeds)
    about = {
        "data": data,
        "modalities": list(modalities),
        "fingerprint": FINGERPRINT,
        "settings": settings(data, **changes),
        "versions": VERSIONS,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(about))
    for run in runs:
        if run.label not in left:
            place = folder / "runs" / run.name
            place.mkdir(parents=True)
            result(run, modalities, trained, data).save(place / "result.json")
    if plan:
        note_plan(folder, runs)
    return runs


def change(path: Path, **changes: Any) -> None:
    """Change what a JSON file holds; a name of two parts, as ``test__accuracy``, leads inside."""
    found = json.loads(path.read_text())
    for name, value in changes.items():
        *way, last = name.split("__")
        place = found
        for part in way:
            place = place[part]
        place[last] = value
    path.write_text(json.dumps(found))


def interval(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def diagnosis(
    modalities: Sequence[str] = ("accelerometer", "gyroscope"),
    classes: Sequence[str] = ("row", "squat", "press"),
    data: str = "watch",
) -> dict[str, Any]:
    """Return a diagnosis, as `equimodal diagnose` writes it."""
    first, *others = modalities
    subsets = ["", *modalities, "+".join(modalities)]
    only = {name: 0.2 / (n + 1) for n, name in enumerate(modalities)}
    by_modality = {name: interval(0.6 - 0.1 * n) for n, name in enumerate(modalities)}
    share = {"samples": 20, "both": 0.3, "only": only, "neither": 0.7 - sum(only.values())}
    return {
        "format": 1,
        "model": "Multimodal(Concat)",
        "data": data,
        "samples": 60,
        "classes": list(classes),
        "modalities": list(modalities),
        "chance": 1 / len(classes),
        "accuracy": interval(0.8),
        "subsets": {
            fill: {name: interval(0.3 + 0.05 * len(name.split("+"))) for name in subsets}
            for fill in ("zero", "mean", "shuffled")
        },
        "shapley": dict.fromkeys(("zero", "mean"), by_modality),
        "probes": by_modality,
        "alone": {name: interval(0.7) for name in modalities},
        "gap": {name: interval(0.05) for name in modalities},
        "agreement": {
            **share,
            "per_class": dict.fromkeys(classes, share),
            "leads": {first: [{"class": classes[0], "samples": 20, "gap": interval(0.2)}]},
            "smallest": 10,
        },
        "utilisation": {"mean": by_modality},
        "robustness": {
            "clean": interval(0.8),
            "missing": by_modality,
            "noised": by_modality,
            "corrupted": {},
            "drop": {"missing": by_modality},
        },
        "calibration": {
            "ece": 0.05,
            "bins": [
                {"low": 0.0, "high": 0.5, "samples": 0, "confidence": None, "accuracy": None},
                {"low": 0.5, "high": 1.0, "samples": 60, "confidence": 0.7, "accuracy": 0.8},
            ],
        },
        "cost": {
            "parameters": dict.fromkeys(modalities, 8000),
            "flops_head": 96.0,
            "seconds_step": 0.0031,
            "untimed": "",
        },
        "curves": {"update_norm": {name: [0.1, None, 0.2] for name in modalities}},
        "advice": {
            "verdict": "try balancing",
            "summary": f"The model hardly uses {others[-1]}.",
            "ignored": [others[-1]],
            "because": [{"text": "Its probe is weak.", "evidence": {"probe": interval(0.5)}}],
            "next": ["equimodal compare watch"],
        },
    }


class Markup(HTMLParser):
    """A page as a browser sees it: elements with their attributes, and their text.

    Raises:
        AssertionError: tags do not nest.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            (self.scripts if self.open[-1] == "script" else self.styles).append(data)
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data

    def of(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]
