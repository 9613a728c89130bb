"""Which samples of a file are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from equimodal.data.files.stored import Stored
from equimodal.errors import SetupError

if TYPE_CHECKING:
    from equimodal.data.files.stored import Array

Value = str | int | bool
Where = Mapping[str, Value | Sequence[Value]]
SHOWN = 8  # values that an error lists


def rows(stored: Stored, where: Where, target: str) -> tuple[dict[str, Array], Where]:
    """Return which samples have the wanted values, bool, shape ``(N,)``, by split.

    And what was wanted, however it was asked for: names where there are, in order.

    Args:
        stored: the file.
        where: for each column a value or several. A value is meant by its name, where the file
            names what the integers of the column stand for, else by itself.
        target: of the target, a column like the others.

    Raises:
        SetupError: a column is unknown, a value does not occur, or a split would be empty.
    """
    import numpy as np

    splits = stored.splits(target)
    chosen = {split: np.ones(len(stored.arrays[target][split]), bool) for split in splits}
    names: dict[str, list[Value]] = {}
    for name, given in sorted(where.items()):
        column = stored.column("where", name, target)
        wanted = [given] if isinstance(given, str | int) else list(given)
        values = np.unique(np.concatenate([column[split] for split in splits]))
        meant, names[name] = _meant(stored, name, target, wanted, values)
        for split in splits:
            chosen[split] &= np.isin(column[split], values[meant])
    for split, kept in chosen.items():
        if not kept.any():
            raise SetupError(f"{stored.path}: where {spelt(names)}: no sample of {split} is left")
    return chosen, names


def spelt(where: Where) -> str:
    """Return a selection in one line, as the command takes it.

    >>> spelt({"slot": 3, "talker": ["s1", "s2"]})
    'slot=3, talker=s1|s2'
    """
    return ", ".join(
        f"{name}={given if isinstance(given, str | int) else '|'.join(map(str, given))}"
        for name, given in where.items()
    )


def _meant(
    stored: Stored, name: str, target: str, wanted: Sequence[Value], values: Array
) -> tuple[list[bool], list[Value]]:
    """Return which of the values of a column are wanted, and how they are called."""
    names = stored.names_of(name, target) or ()
    whole = [str(each) if values.dtype.kind in "US" else f"{each:g}" for each in values.tolist()]
    called = [names[int(v)] if v.isdigit() and int(v) < len(names) else v for v in whole]
    meant = [False] * len(values)
    for each in wanted:
        text = str(int(each)) if isinstance(each, bool) else str(each)
        spelling = str(names.index(text)) if text in names else text
        if spelling not in whole:
            shown = [v if v == of else f"{v} ({of})" for v, of in zip(whole, called, strict=True)]
            more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
            raise SetupError(
                f"{stored.path}: where: {name} is never {text}: it is "
                f"{', '.join(shown[:SHOWN])}{more}"
            )
        meant[whole.index(spelling)] = True
    return meant, [of for of, is_meant in zip(called, meant, strict=True) if is_meant]
