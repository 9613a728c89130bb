"""equimodal export: a trained model as a file that needs no equimodal to run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch

from equimodal.cli.folders import new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.source import add_data, source_of
from equimodal.errors import SetupError
from equimodal.system.extras import require
from equimodal.system.files import partial_of, publish

ENDING = ".pt2"


def run(arguments: Sequence[str]) -> int:
    """Write the model of a run's best epoch by `torch.export`."""
    parser = Parser(
        "export",
        "Write the model of the best epoch of `equimodal train` as one file, by torch.export: "
        "torch.export.load(FILE).module() runs it, for any number of samples, where equimodal is "
        "not installed. Its inputs are those of the data set, as training reads them.",
    )
    parser.add("folder", type=Path, help="of equimodal train")
    add_data(parser, optional=True)
    parser.add("--out", type=Path, default=None, help=f"a {ENDING} file [model{ENDING} in the run]")
    options = parser.read(arguments)
    if options is None:
        return 0
    require("train", "lightning")
    from equimodal.cli.examined import Examined

    out = options.out or options.folder / f"model{ENDING}"
    if out.suffix != ENDING or out.is_dir():
        raise SetupError(f"--out: expected a file in {ENDING}, found {out}")
    if options.folder.is_dir():  # else it is the run that is wrong
        new_or_existing_folder(out.parent)
    examined = Examined(
        options.folder, None if options.dataset is None else source_of(options), workers=0
    )
    splits, model = examined.splits, examined.model().cpu().eval()
    batch = next(iter(splits.val.loader(2)))
    *inputs, _ = splits.train.transform(batch)
    size = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: size} for _ in inputs)
    with torch.no_grad():
        program = torch.export.export(
            model, tuple(inputs), dynamic_shapes={"inputs": dynamic}, strict=False
        )
    held = io.BytesIO()  # torch.export warns of another ending than its own
    torch.export.save(program, held)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial_of(out).write_bytes(held.getvalue())
    publish(out)
    print(out)
    for name, each in zip(splits.modalities, inputs, strict=True):
        shape = ", ".join(map(str, ("B", *each.shape[1:])))
        print(f"  {name}: {str(each.dtype).removeprefix('torch.')} ({shape})")
    print(f"  returns logits (B, {len(splits.classes)}): {', '.join(splits.classes)}")
    return 0
