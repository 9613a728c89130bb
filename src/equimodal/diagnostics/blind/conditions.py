"""Under which conditions a model is asked: what stands for which modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equimodal.errors import SetupError, unknown
from equimodal.functional.valuation import coalitions

FILLS = ("blank", "mean", "other", "removed")
CONTENT = ("other", "blank", "mean")  # fills that leave a prompt's form as it is, best first
OF_WORDS = {"blank": "removed", "mean": "removed"}  # words have neither
EVERY_SUBSET = 5  # modalities up to which all subsets are asked; they have 32


@dataclass(frozen=True)
class Condition:
    """What stands for which modality.

    Attributes:
        fills: pairs of a modality and its fill; what is not named is as it is.

    >>> print(Condition((("image", "blank"),)), "|", Condition())
    image blank | as is
    """

    fills: tuple[tuple[str, str], ...] = ()

    def of(self, modality: str) -> str | None:
        """Return the fill of a modality, or None where it is as it is."""
        return dict(self.fills).get(modality)

    def __str__(self) -> str:
        """Spell it."""
        return ", ".join(f"{name} {fill}" for name, fill in self.fills) or "as is"


AS_IS = Condition()


@dataclass(frozen=True)
class Plan:
    """Which conditions are asked, and where each is read.

    Attributes:
        names: the modalities.
        words: those of them that are text.
        cells: the condition in which some modalities are as they are and all others have a fill,
            by that fill and by the modalities that stay.
    """

    names: tuple[str, ...]
    words: frozenset[str]
    cells: Mapping[tuple[str, frozenset[str]], Condition]

    @property
    def conditions(self) -> list[Condition]:
        """Each condition once: all as it is, then what changes one modality, two, and so on."""
        once = dict.fromkeys([AS_IS, *self.cells.values()])
        places = {name: place for place, name in enumerate(self.names)}
        return sorted(once, key=lambda c: (len(c.fills), [places[name] for name, _ in c.fills]))

    @property
    def fills(self) -> list[str]:
        """The fills that were asked for."""
        return list(dict.fromkeys(fill for fill, _ in self.cells))

    def without(self, fill: str, *names: str) -> Condition:
        """Return the condition in which these modalities have a fill."""
        return self.cells[fill, frozenset(self.names) - set(names)]

    def only(self, fill: str, *names: str) -> Condition:
        """Return the condition in which all but these modalities have a fill."""
        return self.cells[fill, frozenset(names)]

    def every(self, fill: str) -> list[Condition] | None:
        """Return the conditions of all subsets, in the order of `coalitions`; None if some lack."""
        kept = [
            frozenset(name for name, there in zip(self.names, row, strict=True) if there)
            for row in coalitions(len(self.names)).tolist()
        ]
        found = [self.cells.get((fill, each)) for each in kept]
        return None if None in found else [each for each in found if each is not None]


def plan(names: Sequence[str], fills: Sequence[str], words: frozenset[str]) -> Plan:
    """Return all conditions for some modalities.

    Up to `EVERY_SUBSET` modalities every subset is asked; of more, each alone, all but each, and
    none.

    Args:
        names: the modalities.
        fills: some of `FILLS`.
        words: modalities that are text, which is removed where others are blank or a mean.

    Raises:
        SetupError: a fill is unknown, or there is none.
    """
    if isinstance(fills, str) or not fills:
        raise SetupError(f"fills: expected some of {', '.join(FILLS)}, found {fills!r}")
    for fill in fills:
        if fill not in FILLS:
            raise SetupError(unknown("fill", fill, FILLS))
    whole = frozenset(names)
    kept = [frozenset(), *({n} for n in names), *(whole - {n} for n in names), whole]
    if len(names) <= EVERY_SUBSET:
        kept = [
            {name for name, there in zip(names, row, strict=True) if there}
            for row in coalitions(len(names)).tolist()
        ]
    cells = {}
    for fill in fills:
        for each in kept:
            out = [name for name in names if name not in each]
            stands = [OF_WORDS.get(fill, fill) if name in words else fill for name in out]
            cells[fill, frozenset(each)] = Condition(tuple(zip(out, stands, strict=True)))
    return Plan(tuple(names), words, cells)
