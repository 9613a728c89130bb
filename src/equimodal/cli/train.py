"""equimodal train: one model, one method."""

from __future__ import annotations

import copy
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from equimodal import data
from equimodal.cli.folders import kept, new_or_existing_folder, numbered
from equimodal.cli.parser import Parser
from equimodal.cli.progress import Lines
from equimodal.cli.source import add_data, folder_name, several, source_of
from equimodal.errors import SetupError
from equimodal.methods import OGMGE
from equimodal.methods.supplied import TEACHERS, Recipe, takes_teachers
from equimodal.system.extras import require
from equimodal.training import (
    Encoder,
    Fusion,
    Result,
    Settings,
    fit,
    model_for,
    refit,
    train_teachers,
)
from equimodal.training.fit import begun
from equimodal.training.refit import FOLDER, refuse_held_out

require("train", "rich", "tensorboard")

from rich.console import Console  # noqa: E402

from equimodal.cli.epochs import EpochLines  # noqa: E402


def run(arguments: Sequence[str]) -> int:
    """Train, and print what came of it."""
    parser = Parser(
        "train",
        "Train a small model on a data set by one method, choose the epoch by validation accuracy, "
        "and evaluate it on the test split once. A method that needs teachers gets models of every "
        "modality alone, which are trained first, as the model itself.",
        configurable=True,
    )
    add_data(parser)
    parser.add_method(OGMGE)
    parser.add("--encoder", type=Encoder, default="small", help="what encodes a modality")
    parser.add("--fusion", type=Fusion, default="concat", help="how features are fused")
    parser.add(
        "--out", type=Path, default=None, help="folder for the run [runs/DATA-METHOD-NUMBER]"
    )
    parser.add(
        "--workers",
        type=int,
        default=None,
        help="processes that read prepared clips [one per core]",
    )
    parser.add(
        "--refit",
        action="store_true",
        help="then train anew on training and validation data, up to the chosen epoch",
    )
    parser.add("--resume", action="store_true", help="go on with the run in --out")
    parser.add_settings(Settings, "training", "what suits the data")
    options = parser.read(arguments)
    if options is None:
        return 0
    names = list(Settings.__dataclass_fields__)
    settings = Settings(**{name: getattr(options, name) for name in names})
    if options.resume and options.out is None:
        raise SetupError("--resume: expected --out with the folder of the run, found none")
    source = source_of(options)
    splits = source.load()
    several(splits)
    method = options.method
    kind = method.kind if isinstance(method, Recipe) else type(method)
    out = new_or_existing_folder(options.out or numbered(f"{folder_name(splits)}-{kind.name}"))
    if options.workers is not None and options.workers < 0:
        raise SetupError(f"--workers: expected 0 or more, found {options.workers}")
    settings = settings.suited(splits.card.name)
    model = model_for(splits, options.fusion, settings.seed, options.encoder)
    errors = Console(stderr=True)
    how: dict[str, Any] = {
        "resume": options.resume,
        "progress": errors.is_terminal and Console().is_terminal,
        "workers": _workers(splits, options.workers),
        "source": source,
    }

    def lines(who: str = "") -> list[EpochLines]:
        return [] if errors.is_terminal else [EpochLines(Lines(errors), who)]

    def teachers() -> Mapping[str, nn.Module]:
        _refuse_other_run(out)
        folder = out / TEACHERS
        errors.print(_about_teachers(splits, settings, folder), highlight=False, soft_wrap=True)
        return train_teachers(
            splits, settings, model, out=folder, callbacks=lines("teachers"), **how
        )

    try:
        with kept(out):
            taught = None
            if isinstance(method, Recipe):
                taught = out / TEACHERS if takes_teachers(method.kind) else None
                method = method.make(settings.epochs or 1, splits.modalities, teachers)
            again: Result | None = None
            if options.refit:
                refuse_held_out(method)
                fresh = copy.deepcopy((method, model))
            how["taught"] = taught
            result = fit(splits, method, settings, model, out=out, callbacks=lines(), **how)
            if options.refit:
                how["out"] = out / FOLDER
                again = refit(splits, fresh[0], settings, fresh[1], result, **how)
    except KeyboardInterrupt as error:
        if begun(out) or begun(out / TEACHERS):
            raise KeyboardInterrupt(f"go on with: {_resuming(arguments, options, out)}") from error
        raise
    print(splits)
    print(_report(result, out, again))
    return 0


def _resuming(arguments: Sequence[str], options: Any, out: Path) -> str:
    """Return the command that goes on with a run."""
    more = [
        *([] if options.out else ["--out", str(out)]),
        *([] if options.resume else ["--resume"]),
    ]
    return shlex.join(["equimodal", "train", *arguments, *more])


def _refuse_other_run(out: Path) -> None:
    """Refuse a folder whose run has no teachers, before they are trained for nothing."""
    if begun(out) and not (out / TEACHERS / "result.json").exists():
        raise SetupError(f"{out} holds a run without teachers: name another folder")


def _about_teachers(splits: data.Splits[data.Samples], settings: Settings, folder: Path) -> str:
    if (folder / "result.json").exists():
        return f"the teachers are those in {folder}"
    alone = f"{', '.join(splits.modalities)}, each alone for {settings.epochs} epochs"
    return f"first its teachers are trained: {alone}"


def _workers(splits: data.Splits[data.Samples], asked: int | None) -> int:
    """Return how many processes read: none for what is in memory already."""
    if isinstance(splits.train, data.Arrays):
        return 0
    return (os.cpu_count() or 1) if asked is None else asked


def _report(result: Result, out: Path, again: Result | None) -> str:
    lines = [
        f"{result.method.split('(')[0]}, best of {len(result.history)} epochs on validation: "
        f"{result.best_epoch + 1} ({100 * result.val['accuracy']:.1f}%)",
        "",
        f"  {'test accuracy':<28}{100 * result.test['accuracy']:5.1f}%",
        f"  {'test macro-F1':<28}{100 * result.test['macro_f1']:5.1f}%",
    ]
    for name, value in result.test.items():
        if name.startswith("accuracy/"):
            what = f"{name.removeprefix('accuracy/')}, read alone"
            lines.append(f"  {what:<28}{100 * value:5.1f}%")
    if again is not None:
        lines += [
            "",
            f"trained anew on training and validation data, up to epoch {again.best_epoch + 1}",
            "",
            f"  {'test accuracy':<28}{100 * again.test['accuracy']:5.1f}%",
            f"  {'test macro-F1':<28}{100 * again.test['macro_f1']:5.1f}%",
        ]
    lines += ["", f"checkpoints, logs and result.json are in {out}"]
    lines += ["", f"Next: {shlex.join(['equimodal', 'diagnose', str(out)])}"]
    return "\n".join(lines)
