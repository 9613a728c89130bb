"""equimodal choose: which method to train with, on a model and its data."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.choosing import Told, choose
from equimodal.choosing.build import NEEDED, OPTIONAL
from equimodal.cli import INTERRUPTED
from equimodal.cli.engines import add_engine, add_limit, engine_from, seconds
from equimodal.cli.folders import new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.progress import progress
from equimodal.cli.source import add_data, folder_name, source_of
from equimodal.errors import SetupError
from equimodal.system.extras import require
from equimodal.training import Encoder, Settings

require("train", "rich")

from rich.console import Console  # noqa: E402


def run(arguments: Sequence[str]) -> int:
    """Choose, and print a recommendation."""
    parser = Parser(
        "choose",
        "Find out which method to train with, if any: baselines first, then a race of all methods "
        "and compositions on validation data, then fresh seeds, and test data once. For a model of "
        "your own, name a function, package.module:function, which returns a dict with "
        f"{', '.join(NEEDED)}, and {', '.join(OPTIONAL)} if you like; for a data set, a small "
        "model of ours is trained. Interrupted, the same command goes on.",
    )
    add_data(parser, function=True)
    parser.add("--out", type=Path, default=None, help="folder for the results [results/choose-...]")
    parser.add("--budget", type=int, default=None, help="trainings [what all methods take]")
    parser.add("--hours", type=float, default=None, help="instead of --budget")
    parser.add(
        "--methods", type=list[str], default=None, help="some, as [arl, ogm-ge+multi-loss] [all]"
    )
    parser.add("--encoder", type=Encoder, default="small", help="of a data set, what encodes")
    add_engine(parser)
    add_limit(parser)
    parser.add_settings(Settings, "training of a data set", "what suits it", skip={"seed"})
    options = parser.read(arguments)
    if options is None:
        return 0
    what, out = _what(options)
    folder = new_or_existing_folder(options.out or out)
    names = [name for name in Settings.__dataclass_fields__ if name != "seed"]
    start, finished = time.monotonic(), None
    try:
        with progress(Console(stderr=True)) as show:

            def tell(told: Told) -> None:
                show(told.done, max(told.total, 1), f"{told.stage}: {told.done} trainings")

            finished = choose(
                what,
                folder,
                budget=options.budget,
                hours=options.hours,
                methods=options.methods,
                engine=engine_from(options, folder) or "local",
                workers=options.workers,
                limit=seconds(options),
                settings=Settings(**{name: getattr(options, name) for name in names}),
                encoder=options.encoder,
                say=lambda text: print(text, file=sys.stderr, flush=True),
                show=tell,
            )
    except KeyboardInterrupt:
        print("equimodal choose: interrupted: the same command goes on", file=sys.stderr)
        return INTERRUPTED
    following = shlex.join(["equimodal", "predict", str(folder)])
    print(f"{finished}\n\n{time.monotonic() - start:.0f} s. Next: {following}")
    return 0


def _what(options: Any) -> tuple[Any, Path]:
    given = str(options.dataset)
    if ":" in given and not Path(given).exists():
        given_too = ("data", "view", "modalities", "filter", "groups", "validation", "channels")
        for name in given_too:
            if getattr(options, name) is not None:
                raise SetupError(f"--{name} is for data sets: {given} returns its own loaders")
        return given, Path("results", f"choose-{given.partition(':')[0]}")
    source = source_of(options)
    return source, Path("results", f"choose-{folder_name(source.load())}")
