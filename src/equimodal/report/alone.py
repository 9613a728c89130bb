"""The page of a diagnosis without results: of a user's own model, in the user's own loop."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from equimodal import __version__
from equimodal.report.diagnosed import advice, contributed
from equimodal.report.findings import Findings
from equimodal.report.page import Page
from equimodal.report.picture import joined, share
from equimodal.report.results import holds_comparison, holds_run

FILE = "diagnosis.json"


def diagnosis_alone(place: Path) -> Path | None:
    """Return the diagnosis that a place is or holds, where it holds no results beside it."""
    if place.is_file() and place.suffix == ".json":
        return place
    held = holds_comparison(place) or holds_run(place)
    return place / FILE if not held and (place / FILE).is_file() else None


def page_of_diagnosis(examined: Findings) -> Page:
    """Say all that there is to say about a diagnosis."""
    model = examined.text("model") or "a model"
    data = examined.text("data")
    verdict = examined.text("advice", "verdict")
    read = {
        name: measured for name, measured in examined.read().items() if name in examined.modalities
    }
    about = [
        ("model", model),
        ("data", data),
        ("split", examined.text("split")),
        ("modalities", ", ".join(examined.modalities)),
        ("classes", ", ".join(examined.classes)),
    ]
    versions = [
        ("equimodal, of this page", __version__),
        ("torch", torch.__version__),
        ("Python", platform.python_version()),
    ]
    return Page(
        title=f"Diagnosis of {model}" + (f" on {data}" if data else ""),
        subtitle=f"Modalities: {joined(examined.modalities or ['unknown'])}.",
        verdict=f"{verdict.capitalize()}." if verdict else "The diagnosis has no advice.",
        elaboration=examined.text("advice", "summary"),
        notices=list(examined.notices),
        facts=[
            (f"accuracy of {name}, read alone", share(of.value, (of.low, of.high)))
            for name, of in read.items()
        ],
        sections=[advice(examined), *contributed(examined, ())],
        made=[("Diagnosis", [pair for pair in about if pair[1]]), ("Versions", versions)],
    )
