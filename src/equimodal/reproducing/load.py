"""Data under a protocol: as it was split, or as the article did it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from equimodal.data import Samples, Source, Splits
from equimodal.data.batches.clips import Clips
from equimodal.data.batches.shards import Shards
from equimodal.reproducing.ave_features import FILES, Segments, load_features
from equimodal.reproducing.paper import Protocol

MARK = "(published protocol)"
CAUTION = "The epoch is selected on the test split, and validation clips are trained on."


def load(source: Source, protocol: Protocol) -> Splits[Any]:
    """Load the data of a row.

    Args:
        source: a prepared folder, or one with AVE's features.
        protocol: "honest" as it is; "published" trains on the validation split too, and validates
            on the test split.
    """
    folder = Path(source.name)
    features = (folder / FILES[0]).exists()
    splits: Splits[Any] = load_features(folder) if features else source.load()
    if protocol == "honest":
        return splits
    card = splits.card  # what is called so in every table, figure and page
    card = replace(card, name=f"{card.name} {MARK}", caution=f"{CAUTION} {card.caution}".strip())
    train = joined(splits.train, splits.val)
    return replace(splits, train=train, val=splits.test, card=card)


def joined(one: Samples, other: Samples) -> Samples:
    """Return two splits as one; it is read as the first of them."""
    target = torch.cat([one.target, other.target])
    if isinstance(one, Segments) and isinstance(other, Segments):
        features = {
            name: torch.cat([each, other.features[name]]) for name, each in one.features.items()
        }
        return Segments(features, target, torch.cat([one.ids, other.ids]))
    first, second = cast("Clips", one), cast("Clips", other)
    stored = Shards(
        [*first.stored.files, *second.stored.files],
        [*_rows(first.stored), *_rows(second.stored)],
        [*first.stored.names, *second.stored.names],
        first.stored.kinds,
    )
    groups = torch.cat([each.groups for each in (first, second) if each.groups is not None])
    return Clips(stored, first.maker, target, groups, [*first.ids, *second.ids], first.classes)


def _rows(stored: Shards) -> list[int]:
    return [end - start for start, end in zip([0, *stored.ends], stored.ends, strict=False)]
