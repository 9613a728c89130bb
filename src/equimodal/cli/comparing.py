"""The command that compares methods on the data of a run, with its settings."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from equimodal import data
from equimodal.training import Encoder, Settings


def comparing(
    source: data.Source, splits: data.Splits[Any], settings: Settings, encoder: Encoder
) -> str:
    """Return the command, to which ``--methods`` may be added.

    Args:
        source: of the data.
        splits: what it holds.
        settings: of the run; what suits the data anyway is left out, and so is the seed.
        encoder: of the run.
    """
    usual = asdict(Settings(optimizer=settings.optimizer).suited(splits.card.name))
    changed = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in asdict(settings).items()
        if name != "seed" and (value != usual[name] or (name == "optimizer" and value != "sgd"))
    ]
    other = [] if encoder == "small" else [f"--encoder={encoder}"]
    spelt = [*source.words(), *other, *changed, "--seeds=5"]
    return shlex.join(["equimodal", "compare", *spelt])
