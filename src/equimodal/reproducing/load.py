"""Data under a protocol: as it was split, or as the article did it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from equimodal.data import Source, Splits
from equimodal.reproducing.ave_features import FILES, load_features
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
    return replace(splits.refitted(), val=splits.test, card=card)
