"""equimodal predict: what a trained model answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from equimodal.cli import answers
from equimodal.cli.parser import Parser
from equimodal.cli.source import add_data, source_of
from equimodal.errors import SetupError
from equimodal.system.extras import require


def run(arguments: Sequence[str]) -> int:
    """Write the answers of a model for a split, one line for each sample."""
    parser = Parser(
        "predict",
        "Write what a model answers for each sample of a split: the model of the best epoch of "
        "`equimodal train`, or the one that `equimodal choose` has left. The class and its "
        "probability, of a run also those of all classes and what each modality says alone; or the "
        "outputs as they are where the target is no class.",
    )
    parser.add("folder", type=Path, help="of equimodal train or equimodal choose")
    add_data(parser, optional=True)
    parser.add("--split", type=Literal["train", "val", "test"], default="test", help="whose")
    parser.add("--workers", type=int, default=None, help="processes that read prepared clips")
    parser.add("--out", type=Path, default=None, help="a .csv or .parquet file [printed as CSV]")
    options = parser.read(arguments)
    if options is None:
        return 0
    answers.refuse_file(options.out)
    if not options.folder.is_dir():
        raise SetupError(
            f"{options.folder}: expected the folder of equimodal train or equimodal choose, found "
            f"{'a file' if options.folder.exists() else 'nothing'}"
        )
    of_run = (options.folder / "run.json").exists()
    columns = _of_run(options) if of_run else _of_choice(options)
    answers.write(columns, options.out)
    if options.out is not None:
        print(options.out)
    return 0


def _of_choice(options: Any) -> answers.Columns:
    from equimodal.choosing import predictions

    if options.dataset is not None:
        raise SetupError(
            f"{options.dataset}: a data set is named for the folder of a run alone; "
            f"{options.folder} knows its own"
        )
    outputs, targets = predictions(options.folder, options.split)
    if targets.is_floating_point() or outputs.ndim != 2:
        return answers.plain(outputs)
    return answers.classified(outputs, targets)


def _of_run(options: Any) -> answers.Columns:
    require("train", "lightning")
    from equimodal.cli.examined import Examined, readers

    workers = readers(options.workers)
    source = None if options.dataset is None else source_of(options)
    examined = Examined(options.folder, source, workers)
    splits = examined.splits
    outputs, targets = [], []
    alone: dict[str, list[torch.Tensor]] = {name: [] for name in splits.modalities}
    with examined.subject() as subject:
        for step in subject.steps(examined.loader(options.split)):
            outputs.append(step.logits.cpu())
            targets.append(step.target.cpu())
            for name, logits in step.unimodal.items():
                alone[name].append(logits.cpu())
    return answers.classified(
        torch.cat(outputs),
        torch.cat(targets),
        splits.classes,
        getattr(splits, options.split).names,
        {name: torch.cat(parts) for name, parts in alone.items() if parts},
    )
