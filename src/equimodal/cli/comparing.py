"""The command that compares methods on the data of a run, with its settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
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
    spelt = [source.name, *_options(source), *other, *changed, "--seeds=5"]
    return shlex.join(["equimodal", "compare", *spelt])


def _options(source: data.Source) -> Iterator[str]:
    view = []
    for name, value in source.options.items():
        if name == "modalities":
            whole = source.name in data.available() and data.load(source.name).modalities
            if list(value) != list(whole or ()):
                yield f"--modalities=[{','.join(value)}]"
        elif name == "where":
            columns = [f"{column}={'|'.join(_several(of))}" for column, of in value.items()]
            yield f"--filter={','.join(columns)}"
        elif name == "channels":
            axes = [f"{m}={'none' if axis is None else axis}" for m, axis in value.items()]
            yield f"--channels={','.join(axes)}"
        elif name in ("groups", "validation", "target"):
            yield f"--{name}={value}"
        else:
            view.append(f"{name}={value}")
    if view:
        yield f"--view={','.join(view)}"


def _several(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list | tuple) else [value])]
