"""equimodal blind: which modalities a language model uses, by asking it without them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.cli.folders import kept, new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.progress import progress
from equimodal.diagnostics.blind import Blind, blind, opened
from equimodal.diagnostics.blind.conditions import FILLS
from equimodal.diagnostics.blind.reading import Read
from equimodal.errors import SetupError
from equimodal.report.blindness import write_page
from equimodal.system.extras import require
from equimodal.system.files import write_whole
from equimodal.tasks.function import function_of

require("train", "rich")

from rich.console import Console  # noqa: E402

FILE, PAGE = "blind.json", "blind.html"


def run(arguments: Sequence[str]) -> int:
    """Ask a model, and print what was found."""
    parser = Parser(
        "blind",
        "Find out which modalities a model uses: it is asked about the same samples with each "
        "modality as it is, blank, the mean, another sample's, and removed. The model is one of "
        "Hugging Face, a folder or a name of the hub, that answers in words (LLaVA, Qwen-VL, "
        "Qwen-Audio, ...) or compares (CLIP, CLAP, ...); or your own: "
        "package.module:function names a function that returns one of (samples, condition), which "
        "scores samples.",
    )
    parser.add("model", type=str, help="folder, name, or package.module:function")
    parser.add(
        "--data",
        type=Path,
        required=True,
        help="JSON lines with image, images or audio (paths), text, answer, and choices or says if "
        "you like; or a folder of datasets.Dataset.save_to_disk",
    )
    parser.add(
        "--columns", type=list[str], default=None, help="what the data call them, as [text=query]"
    )
    parser.add("--fills", type=list[str], default=list(FILLS), help="what stands for a modality")
    parser.add("--samples", type=int, default=None, help="ask about so many, drawn by seed [all]")
    parser.add("--batch_size", type=int, default=8, help="samples at once")
    parser.add("--seed", type=int, default=0, help="of other samples, and of intervals")
    parser.add("--device", type=str, default=None, help="such as cpu [cuda, where there is one]")
    parser.add("--dtype", type=str, default="auto", help="of the weights, such as bfloat16")
    parser.add("--out", type=Path, default=None, help=f"folder for {FILE} and {PAGE} [none]")
    options = parser.read(arguments)
    if options is None:
        return 0
    columns = _columns(options.columns or [])
    if options.out is None:
        print(_asked(options, columns))
        return 0
    with kept(new_or_existing_folder(options.out)) as out:
        found = _asked(options, columns)
        print(found, flush=True)
        write_whole(out / FILE, json.dumps(found.to_dict(), indent=1) + "\n")
        print(f"\n{out / FILE}\n{write_page(found, out / PAGE)}")
    return 0


def _asked(options: Any, columns: dict[str, str]) -> Blind:
    samples = Read(options.data, columns, None, options.samples, options.seed)
    console = Console(stderr=True)
    if samples.passed:
        console.print(f"{options.data}: passed over: {', '.join(samples.passed)}", highlight=False)
    if ":" in options.model and not Path(options.model).exists():
        score: Any = function_of(options.model)()
    else:
        score = opened(
            options.model, device=options.device, dtype=options.dtype, choices=samples.answers()
        )
    samples.rate = getattr(score, "rate", None)
    with progress(console) as show:
        return blind(
            score,
            samples,
            fills=options.fills,
            batch_size=options.batch_size,
            seed=options.seed,
            data=options.data.name,
            say=lambda done, total: show(done, total, "samples"),
        )


def _columns(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.split("=", 1) for each in given]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise SetupError(f"--columns: expected [entry=name, ...], found {'='.join(pair)!r}")
    return dict(pairs)
