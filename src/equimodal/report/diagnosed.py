"""The sections of the page that a diagnosis fills."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from equimodal.report import classes, contributions, progress
from equimodal.report.findings import Findings, Measured
from equimodal.report.page import Advice, Section
from equimodal.report.picture import Cell, Table, number, share

MEASURED = {  # parts of a diagnosis that are shown as they are
    "together": "One linear head on all features, in per cent",
    "utilisation": "Conditional utilisation, in per cent",
    "discrepancy": "Discrepancy",
    "gradients": "Gradients",
    "cost": "Cost: flops of a sample, seconds of a batch",
}
WORDS = {  # for names that say too little without their documentation
    "together": {
        "alone": "of encoders trained alone",
        "joint": "of the model's encoders",
        "promise": "better encoders would bring",
        "refit": "another head would bring",
        "over best": "more than the best encoder alone",
    },
    "cost": {
        "head": "parameters head",
        "shared": "parameters shared",
        "rest": "parameters rest",
        "seconds": "seconds of a forward",
        "seconds step": "seconds of a training step",
        "batch": "samples of the batch",
    },
}


def advice(examined: Findings) -> Section:
    """Return what the diagnosis ends with."""
    verdict_ = examined.text("advice", "verdict")
    found = Advice(
        verdict_.capitalize(),
        examined.text("advice", "summary"),
        examined.texts("advice", "ignored"),
        examined.reasons(),
        examined.texts("advice", "next"),
    )
    shown = found if verdict_ or found.summary else None
    return Section("advice", "Advice", f"From the diagnosis of {_model(examined)}.", advice=shown)


def _model(examined: Findings) -> str:
    samples = examined.number("samples")
    model = examined.text("model") or "a model"
    split = examined.text("split")
    of = f" of the {split} split" if split else ""
    return model if samples is None else f"{model} on {samples:.0f} samples{of}"


def contributed(examined: Findings, known: Collection[str]) -> list[Section]:
    """Return what the modalities contribute, as far as it was measured.

    Args:
        examined: the diagnosis.
        known: curves that the page has already.
    """
    tables = [
        Table(
            title,
            ["what", "value"],
            [
                [Cell(label := WORDS.get(key, {}).get(name, name), label), _plain(value, title)]
                for name, value in examined.flat(key)
            ],
        )
        for key, title in MEASURED.items()
        if examined.flat(key)
    ]
    text = f"Measured on {_model(examined)}, with 95% bootstrap intervals over its samples."
    untimed = examined.text("cost", "untimed")
    failed = [f"No training step was timed: {untimed}."] if untimed else []
    text = " ".join([text, *examined.texts("notes"), *failed])
    curves = progress.measured(
        {name: each for name, each in examined.curves().items() if name not in known},
        examined.modalities,
    )
    return [
        Section(
            "contributions",
            "What each modality contributes",
            text,
            [*contributions.pictures(examined), *([] if curves is None else [curves])],
            [*classes.leads(examined), *tables],
        )
    ]


def _plain(value: Measured, title: str) -> Cell:
    if title.endswith("per cent"):
        return share(value.value, (value.low, value.high))
    spec = ",.0f" if abs(value.value) >= 1000 else ".4g"
    cell = number(value.value, spec)
    if value.low == value.low and value.high == value.high:
        return replace(cell, aside=f"[{value.low:.3g}, {value.high:.3g}]")
    return cell
