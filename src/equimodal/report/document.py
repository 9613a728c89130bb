"""From a folder of results to its report: the page, and the figures beside it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from equimodal.compare.runs import chosen
from equimodal.compare.verdict import verdict
from equimodal.errors import SetupError
from equimodal.report import findings, paper, progress, standing
from equimodal.report.alone import FILE, diagnosis_alone, page_of_diagnosis
from equimodal.report.cards import cards, title
from equimodal.report.command import command_of, versions_of
from equimodal.report.diagnosed import advice, contributed
from equimodal.report.fared import per_class
from equimodal.report.findings import Findings
from equimodal.report.lines import Line, lines_of
from equimodal.report.page import Page, Section, rendered
from equimodal.report.picture import INK, Cell, Picture, Table, joined, number, share
from equimodal.report.results import Held, Results, read
from equimodal.system.files import write_whole

TERMS = (
    "Test accuracy is the mean over the seeds with its 95% t interval, which holds for few seeds. "
    "Differences are paired by seed; beside their interval over seeds stands one for other seeds "
    "and other test samples alike. The epoch is chosen by validation accuracy in every run, and a "
    "value in parentheses by its mean over the seeds; the test split plays no part in any choice.",
    "Columns of modalities: the accuracy of each read through the joint head; in rows of one "
    "modality, and of the ensemble, that of models of their own.",
    "Cost: of one training in trainings of joint, counted in operations of forward and backward "
    "passes (matrix products, convolutions, attention) with all that a method does between epochs "
    "and its teachers; validation is left out.",
)


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        page: the HTML file.
        figures: their files.
        verdict: its first sentence.
        notices: what is missing or wrong.
    """

    page: Path
    figures: list[Path]
    verdict: str
    notices: list[str]


def write_report(folder: Path, out: Path | None = None, diagnosis: Path | None = None) -> Written:
    """Write the report on a folder of results.

    Args:
        folder: of `equimodal compare`, finished or not, or of `equimodal train --out`; or with a
            diagnosis alone, or the file of one.
        out: the page; ``report.html`` in the folder by default. Figures go to a folder beside it
            that is named after it.
        diagnosis: of `equimodal diagnose`; ``diagnosis.json`` in the folder by default, if there
            is one.

    Raises:
        SetupError: the folder holds no results, or the diagnosis that is named is not there.
    """
    if diagnosis is not None and not diagnosis.is_file():
        raise SetupError(f"{diagnosis}: expected a diagnosis in JSON, found no file")
    lone = diagnosis_alone(folder)
    if lone is not None:
        page = page_of_diagnosis(findings.read(lone))
        out = out or lone.with_name("report.html")
    else:
        found = diagnosis or folder / FILE
        page = page_of(read(folder), findings.read(found) if found.exists() else Findings({}))
        out = out or folder / "report.html"
    pictures = [picture for section in page.sections for picture in section.pictures]
    figures = out.with_name(f"{out.stem}-figures")
    out.parent.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if pictures:
            figures.mkdir(exist_ok=True)
            paths = [path for picture in pictures for path in paper.save(picture, figures)]
        page = replace(page, files=figures.name if paths else "")
        html = rendered(page)
    if any("missing from font" in str(each.message) for each in caught):
        page = replace(page, notices=[*page.notices, _letters()])
        html = rendered_quietly(page)
    write_whole(out, html)
    return Written(out, paths, page.verdict, list(page.notices))


def rendered_quietly(page: Page) -> str:
    """Render a page whose letters a font lacks, which has been said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rendered(page)


def _letters() -> str:
    return (
        "The font of the figures' files (DejaVu Sans) lacks letters of some names: boxes stand in "
        "their place there. This page is not affected."
    )


def page_of(results: Results, examined: Findings) -> Page:
    """Say all that there is to say about results and a diagnosis."""
    command, remark = command_of(results)
    notices = [*results.notices, *examined.notices]
    other = examined.text("data")
    if other and other != results.data:
        notices.append(f"The diagnosis is of other data: {other}, not {results.data}.")
    parts = _of_comparison(results) if results.comparison else _of_run(results, examined)
    return Page(
        **parts,
        notices=notices,
        subtitle=_subtitle(results),
        sections=[
            advice(examined),
            *_measured(results, examined),
            *contributed(
                examined, () if results.comparison else ("ratio", "coefficient", "accuracy")
            ),
            *([] if results.comparison else per_class(results.folder)),
            Section("runs", "Runs", tables=[_runs(results)], folded=True),
        ],
        command=command,
        remark=remark,
        terms=TERMS if results.comparison else (),
        made=_made(results, examined),
    )


def _of_comparison(results: Results) -> dict[str, Any]:
    rows = results.rows
    sentence = verdict(rows) if rows else "No run is finished yet: there is nothing to compare."
    first, _, rest = sentence.partition(". ")
    return {
        "title": title(results.data, rows, len(results.seeds)),
        "verdict": f"{first.rstrip('.')}.",
        "elaboration": rest,
        "facts": cards(rows),
        "caution": standing.by_chance(rows),
    }


def _of_run(results: Results, examined: Findings) -> dict[str, Any]:
    method = str(results.about.get("method") or next((r.method for r in results.finished), ""))
    name = " + ".join(part.partition("(")[0].strip() for part in method.split(" + ")) or "a method"
    title = f"{results.data}: one run of {name}"
    if not results.finished:
        diverged = results.runs[0].state == "diverged"
        said = "This run has diverged: it has no result." if diverged else ""
        return {"title": title, "verdict": said or "There is no result of this run yet."}
    result = results.finished[0]
    weakest = min(results.modalities, key=lambda m: result.test[f"accuracy/{m}"], default=None)
    said = "" if weakest is None else (
        f", {100 * result.test[f'accuracy/{weakest}']:.1f}% by {weakest} alone, its weakest"
    )  # fmt: skip
    return {
        "title": title,
        "verdict": f"{100 * result.test['accuracy']:.1f}% on the test split{said}.",
        "elaboration": "It is one run with one seed: whether its method is better than another, "
        "equimodal compare can tell.",
        "facts": [
            ("test accuracy", share(result.test["accuracy"])),
            ("test macro-F1", share(result.test["macro_f1"])),
            (f"validation accuracy, epoch {result.best_epoch + 1}", share(result.val["accuracy"])),
            *(
                (f"test accuracy of {m}, read alone", share(result.test[f"accuracy/{m}"]))
                for m in results.modalities
            ),
        ],
    }


def _measured(results: Results, examined: Findings) -> list[Section]:
    """Return the sections on the runs themselves."""
    rows, names = results.rows, results.modalities
    levels = {
        row.entry.options["modality"]: fmean(r.val["accuracy"] for r in row.results.values())
        for row in rows
        if row.entry.method == "unimodal"
    }
    if results.comparison:
        lines = lines_of(rows)
    else:
        label = results.runs[0].run.label
        lines = [Line(label, results.finished, INK)] if results.finished else []
        levels = {name: of.value for name, of in examined.measured("alone").items()}
    differences = standing.differences(rows)
    learning = progress.learning(lines, names, levels) if lines else None
    return [
        Section(
            "results",
            "Results",
            pictures=_there(differences),
            tables=[standing.results_table(rows, names)] if rows else [],
        ),
        Section("learning-curves", "Learning", pictures=_there(learning)),
        Section("balance", "Ratio and coefficient", pictures=progress.balancing(lines, names)),
    ]


def _there(picture: Picture | None) -> list[Picture]:
    return [] if picture is None else [picture]


def _runs(results: Results) -> Table:
    names = [f"test {name}" for name in results.modalities]
    return Table(
        f"All runs ({len(results.runs)}), in per cent",
        ["run", "seed", "state", "epoch", "validation", "test", "macro-F1", *names, "seconds"],
        [_run(held, results.modalities) for held in results.runs],
    )


def _run(held: Held, modalities: Sequence[str]) -> list[Cell]:
    label = chosen(held.run.label, held.run.options)
    known = [Cell(label, label), number(held.run.seed, ".0f"), Cell(held.state, held.state)]
    if held.result is None:
        return [*known, *[Cell("")] * (5 + len(modalities))]
    result = held.result
    return [
        *known,
        number(result.best_epoch + 1, ".0f"),
        share(result.val["accuracy"]),
        share(result.test["accuracy"]),
        share(result.test["macro_f1"]),
        *(share(result.test[f"accuracy/{name}"]) for name in modalities),
        number(result.seconds, ".1f"),
    ]


def _subtitle(results: Results) -> str:
    splits = f", splits {results.fingerprint}" if results.fingerprint else ""
    return f"Data {results.data}{splits}. Modalities: {joined(results.modalities or ['unknown'])}."


def _made(results: Results, examined: Findings) -> list[tuple[str, list[tuple[str, str]]]]:
    about = results.about
    first = next(iter(results.finished), None)
    data = [
        ("data", results.data),
        ("fingerprint of the splits", results.fingerprint),
        ("modalities", ", ".join(results.modalities)),
    ]
    if results.comparison:
        data.append(("seeds", ", ".join(map(str, results.seeds))))
    if not results.comparison:
        data.append(("method", str(about.get("method") or (first.method if first else ""))))
    model = about.get("model")
    if isinstance(model, dict):
        data += [(f"model: {name}", str(value)) for name, value in model.items()]
    if examined.text("model"):
        data.append(("diagnosed model", examined.text("model")))
    settings = about.get("settings") or (first.settings if first else {})
    shown = settings.items() if isinstance(settings, dict) else ()
    skipped = {"seed"} if results.comparison else set()
    tables = [
        ("Data", data),
        ("Settings", [(name, str(value)) for name, value in shown if name not in skipped]),
        ("Versions", list(versions_of(results).items())),
    ]
    return [(caption, entries) for caption, entries in tables if entries]
