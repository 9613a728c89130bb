"""The data sets that come with the package, by name."""

from __future__ import annotations

from collections.abc import Sequence

from equimodal.data import mfeat, watch
from equimodal.data.splits import Splits
from equimodal.errors import SetupError, unknown

_READERS = {
    "mfeat": (mfeat.VIEWS, mfeat.read),
    "watch": (tuple(watch.CHANNELS), watch.read),
}


def available() -> tuple[str, ...]:
    """Return the names that `load` takes.

    >>> available()
    ('mfeat', 'watch')
    """
    return tuple(_READERS)


def load(name: str, *, modalities: Sequence[str] | None = None) -> Splits:
    """Return an embedded data set, in well under a second and without a network.

    Args:
        name: ``"watch"`` (accelerometer and gyroscope of a smartwatch, 7 exercises) or ``"mfeat"``
            (six views of handwritten digits); `Splits.card` says more.
        modalities: some of its modalities, in the order a sample shall have; all if left out.

    Returns:
        Training, validation and test split, standardised with the training split only. Features
        are float32, targets int64.

    Raises:
        SetupError: a name is unknown, or a modality is named twice or not at all.
        PackError: the packed file is missing or damaged.

    >>> splits = load("mfeat", modalities=("pix", "mor"))
    >>> print(splits)
    mfeat c65005e25379: train 1200, val 300, test 500; pix, mor
    >>> for pix, mor, target in splits.train.loader(batch_size=400):
    ...     print(tuple(pix.shape), tuple(mor.shape), tuple(target.shape))
    (400, 240) (400, 6) (400,)
    (400, 240) (400, 6) (400,)
    (400, 240) (400, 6) (400,)
    """
    if name not in _READERS:
        raise SetupError(unknown("data set", name, available()))
    known, read = _READERS[name]
    return read(known if modalities is None else _checked(modalities, known))


def _checked(modalities: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(modalities, str):
        raise SetupError(f"modalities: expected several names, found one: use ('{modalities}',)")
    for name in modalities:
        if name not in known:
            raise SetupError(unknown("modality", name, known))
    if not modalities or len(set(modalities)) < len(modalities):
        found = ", ".join(modalities) or "none"
        raise SetupError(f"modalities: expected at least one name, none twice, found {found}")
    return tuple(modalities)
