"""The data sets that come with the package, by name."""

from __future__ import annotations

from collections.abc import Sequence

from equimodal.data.embedded import mfeat, synthetic, watch
from equimodal.data.splits import Splits
from equimodal.errors import SetupError, unknown

_READERS = {
    "mfeat": (mfeat.VIEWS, mfeat.read),
    "synthetic": (synthetic.DEFAULT.modalities, synthetic.read),
    "watch": (tuple(watch.CHANNELS), watch.read),
}


def available() -> tuple[str, ...]:
    """Return the names that `load` takes.

    >>> available()
    ('mfeat', 'synthetic', 'watch')
    """
    return tuple(_READERS)


def load(name: str, *, modalities: Sequence[str] | None = None) -> Splits:
    """Return an embedded data set of one of these names; see `equimodal.data.load`."""
    known, read = _READERS[name]
    return read(known if modalities is None else _checked(modalities, known))


def _checked(modalities: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    for name in modalities:
        if name not in known:
            raise SetupError(unknown("modality", name, known))
    if not modalities or len(set(modalities)) < len(modalities):
        found = ", ".join(modalities) or "none"
        raise SetupError(f"modalities: expected at least one name, none twice, found {found}")
    return tuple(modalities)
