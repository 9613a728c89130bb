"""The result of a run, if it holds what the report reads from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from equimodal.report.picture import joined
from equimodal.report.reading import UnreadableError, finite, number_in, numbers_in
from equimodal.training.result import Result

SEVERAL = 6  # names that a message lists


def usable(found: dict[str, Any], modalities: Sequence[str]) -> Result:
    """Take a result from JSON.

    Raises:
        UnreadableError: something that is read from it later is missing or of another kind.
    """
    names = [each.name for each in fields(Result) if each.name in found]
    lacking = [
        each.name for each in fields(Result) if each.name not in names and each.default is MISSING
    ]
    if lacking:
        raise UnreadableError(f"it has no {joined(lacking)}")
    for name in ("val", "test"):
        wanted = ["accuracy", *(["macro_f1"] if name == "test" else [])]
        if name == "test":
            wanted += [f"accuracy/{modality}" for modality in modalities]
        values = numbers_in(found[name])
        lacking = [metric for metric in wanted if metric not in values]
        if lacking:
            raise UnreadableError(f"its {name} metrics have no {joined(lacking[:SEVERAL])}")
        found[name] = values
    if not isinstance(found["history"], list) or not isinstance(found["settings"], dict):
        raise UnreadableError("its history is no list, or its settings are no object")
    found["history"] = [numbers_in(epoch) for epoch in found["history"]]
    found["seconds"] = number_in(found["seconds"]) or 0.0
    found["best_epoch"] = int(number_in(found["best_epoch"]) or 0)
    versions = found["versions"] if isinstance(found["versions"], dict) else {}
    found["versions"] = {name: str(version) for name, version in versions.items()}
    found["operations"] = number_in(found.get("operations"))
    for name in ("data", "fingerprint", "method"):
        found[name] = str(found[name])
    return Result(**{name: found[name] for name in (*names, "operations") if name in found})


def odd(result: Result) -> dict[str, str]:
    """Return which metrics are no numbers, and where they were so first.

    Ratios and norms may be: a model of one modality has none for the others.
    """
    found: dict[str, str] = {}
    for number, epoch in enumerate(result.history):
        for name, value in epoch.items():
            if name.startswith(("val/", "train/loss")) and not finite(value):
                found.setdefault(name, f" in epoch {number + 1}")
    for part, values in (("val", result.val), ("test", result.test)):
        for name, value in values.items():
            if not finite(value):
                found.setdefault(f"{part}/{name}", "")
    return found
