"""equimodal predict: what the chosen model answers."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from equimodal.choosing import predictions
from equimodal.cli.parser import Parser
from equimodal.errors import SetupError
from equimodal.system.files import partial_of, publish


def run(arguments: Sequence[str]) -> int:
    """Write the answers of the chosen model for a split, one line for each sample."""
    parser = Parser(
        "predict",
        "Write what the model that `equimodal choose` has left answers for each sample of a split: "
        "the class and its probability, or the outputs as they are where the target is no class.",
    )
    parser.add("folder", type=Path, help="of equimodal choose")
    parser.add("--split", type=Literal["train", "val", "test"], default="test", help="whose")
    parser.add("--out", type=Path, default=None, help="a CSV file [printed]")
    options = parser.read(arguments)
    if options is None:
        return 0
    if options.out is not None and options.out.is_dir():
        raise SetupError(f"--out: {options.out} is a folder, expected a file")
    outputs, targets = predictions(options.folder, options.split)
    classes = not targets.is_floating_point() and outputs.ndim == 2
    rows: list[list[object]] = []
    if classes:
        rows.append(["sample", "target", "class", "probability"])
        likely, found = outputs.softmax(dim=1).max(dim=1)
        for n, (target, label, p) in enumerate(
            zip(targets.tolist(), found.tolist(), likely.tolist(), strict=True)
        ):
            rows.append([n, target, label, f"{p:.4f}"])
    else:
        flat = outputs.flatten(1) if outputs.ndim > 1 else outputs[:, None]
        rows.append(["sample", *(f"output_{n}" for n in range(flat.shape[1]))])
        rows += [[n, *(f"{v:.6g}" for v in row)] for n, row in enumerate(flat.tolist())]
    if options.out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return 0
    with partial_of(options.out).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    publish(options.out)
    print(options.out)
    return 0
