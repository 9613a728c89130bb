"""equimodal diagnose: which modality a model ignores, and whether to balance."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from equimodal import data
from equimodal.cli.comparing import comparing
from equimodal.cli.entry import NEEDED, OPTIONAL, entry_of
from equimodal.cli.examined import Examined, readers
from equimodal.cli.folders import kept, new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.source import add_data, source_of
from equimodal.data import Arrays
from equimodal.diagnostics.advice.diagnose import diagnose
from equimodal.diagnostics.advice.diagnosis import Diagnosis
from equimodal.diagnostics.encoders.threads import one_thread
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError
from equimodal.system.extras import require
from equimodal.system.files import write_whole

require("train", "rich")

from rich.console import Console  # noqa: E402

FILE = "diagnosis.json"


def run(arguments: Sequence[str]) -> int:
    """Diagnose a model, print what was found, and end with advice."""
    parser = Parser(
        "diagnose",
        "Measure what each modality contributes to a trained model, what joint training took from "
        "it, and advise whether to balance. The model is that of a run, the folder of equimodal "
        "train --out, or of your own function, package.module:function, which returns a dict with "
        f"{', '.join(NEEDED)}, and {', '.join(OPTIONAL)} if you like.",
    )
    parser.add("model", type=str, help="folder of a run, or package.module:function")
    add_data(parser, optional=True)
    parser.add(
        "--split",
        type=Literal["val", "test"],
        default="val",
        help="of a run, what to examine it on; advice is a choice, hence not test",
    )
    parser.add(
        "--no_alone",
        action="store_true",
        help="of a run, do not train each encoder alone: quicker, and no advice on balancing",
    )
    parser.add(
        "--json", action="store_true", help="print JSON in place of the page: see docs/json.md"
    )
    parser.add("--workers", type=int, default=None, help="processes that read prepared clips")
    parser.add(
        "--out", type=Path, default=None, help=f"folder for {FILE} [the run; of a function, none]"
    )
    options = parser.read(arguments)
    if options is None:
        return 0
    of_run = not _is_entry(options.model)
    out = None if options.out is None else new_or_existing_folder(options.out)
    if out is None and of_run and os.access(options.model, os.W_OK | os.X_OK):
        out = Path(options.model)
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if not of_run:
        _refuse_of_run(options)
    elif not Path(options.model).is_dir():
        out = None  # it is the run that is wrong, which is said below
    with contextlib.nullcontext() if out is None else kept(out):
        found = _of_run(options, say) if of_run else _of_entry(options.model, say)
        text = json.dumps(found.to_dict(), indent=1)
        # First: whatever becomes of the file, minutes of work are kept.
        print(text if options.json else found, flush=True)
        if out is not None:
            write_whole(out / FILE, f"{text}\n")
        if out is not None and not options.json:
            print(f"\n{out / FILE}")
            if of_run and out == Path(options.model):
                print(f"\nNext: {shlex.join(['equimodal', 'report', str(out)])}")
    return 0


def _is_entry(given: str) -> bool:
    return ":" in given and not Path(given).exists()


def _of_run(options: Any, say: Any) -> Diagnosis:
    folder = Path(options.model)
    if not folder.is_dir():
        raise SetupError(
            f"{folder}: expected the folder of a run, or package.module:function, found "
            f"{'a file' if folder.exists() else 'nothing'}"
        )
    workers = readers(options.workers)
    given = None if options.dataset is None else source_of(options)
    if given is None:
        _refuse_without_dataset(options)
    examined = Examined(folder, given, workers)
    splits, notes = examined.splits, []
    with examined.subject() as subject, one_thread(isinstance(splits.train, Arrays)):
        if options.split == "val":
            notes.append(
                "The epochs of the model, and of the encoders trained alone, were chosen on these "
                "very samples: accuracies are a little too good. --split test has no such bias, "
                "and is for the end."
            )
        return diagnose(
            subject,
            examined.loader("train"),
            examined.loader(options.split),
            alone=None if options.no_alone else partial(examined.alone, subject, options.split),
            classes=splits.classes,
            model=f"{type(subject.model).__name__} by {examined.method}",
            data=splits.card.name,
            split=options.split,
            curves=examined.curves(),
            compare=comparing(examined.noted, splits, examined.settings, examined.parts[1]),
            again=_with_alone(options, given) if options.no_alone else "",
            notes=notes,
            say=say,
        )


def _with_alone(options: Any, given: data.Source | None) -> str:
    """Return the command again, which trains each encoder alone this time."""
    words = [options.model, *([] if given is None else given.words())]
    split = [] if options.split == "val" else [f"--split={options.split}"]
    out = [] if options.out is None else [f"--out={options.out}"]
    return shlex.join(["equimodal", "diagnose", *words, *split, *out])


def _of_entry(path: str, say: Any) -> Diagnosis:
    given = entry_of(path)
    settings = ("features", "criterion", "outputs", "scores", "forward")
    described = {name: given[name] for name in settings if name in given}
    train_loader, loader = given.get("train_loader"), given["loader"]
    with Subject(given["model"], given["encoders"], given["head"], **described) as subject:
        alone = given.get("alone")
        if callable(alone):
            known = {"subject": subject, "train_loader": train_loader, "loader": loader}
            alone = partial(alone, *[known[name] for name in _asked(path, alone, known)])
        return diagnose(
            subject,
            train_loader,
            loader,
            alone=alone,
            classes=given.get("classes"),
            model=given.get("name"),
            data=given.get("data", ""),
            compare=_choosing(path, given["trained"]),
            say=say,
        )


def _choosing(path: str, trained: frozenset[str]) -> str:
    """Return the command that chooses for the same model; "" if it lacks what training takes."""
    whole = {"optimizer", "train", "val", "test", "epochs"} <= trained
    return shlex.join(["equimodal", "choose", path]) if whole else ""


def _asked(path: str, function: Any, known: dict[str, Any]) -> list[str]:
    names = list(inspect.signature(function).parameters)
    if any(name not in known for name in names):
        raise SetupError(
            f"{path}(): alone: expected a function of some of {', '.join(known)}, found one of "
            f"{', '.join(names)}"
        )
    return names


def _refuse_of_run(options: Any) -> None:
    if options.dataset is not None or options.no_alone or options.split != "val":
        raise SetupError(
            f"{options.model}: a data set, --split and --no-alone are for the folder of a run: the "
            "function returns loader and alone"
        )
    _refuse_without_dataset(options)


def _refuse_without_dataset(options: Any) -> None:
    names = ("data", "view", "modalities", "filter", "groups", "validation", "channels", "target")
    for name in names:
        if getattr(options, name) is not None:
            raise SetupError(f"--{name}: expected a data set after {options.model}, found none")
