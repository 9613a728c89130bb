"""Data sets by name, or by the path of a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from equimodal.data import embedded
from equimodal.data.files import READERS, read
from equimodal.data.splits import Splits
from equimodal.data.where import Where
from equimodal.errors import SetupError, unknown


def load(
    name: str | os.PathLike[str],
    *,
    modalities: Sequence[str] | None = None,
    where: Where | None = None,
    groups: str | None = None,
    validation: float | None = None,
    channels: Mapping[str, int | None] | None = None,
    target: str | None = None,
    seed: int | None = None,
) -> Splits:
    """Return a data set that comes with the package, or that of a file.

    Embedded ones take well under a second and no network. A file holds arrays named by modality and
    split, such as ``audio_train``, ``video_test`` and ``y_train``; `docs/data.md` says how.

    Args:
        name: ``"watch"`` (accelerometer and gyroscope of a smartwatch, 7 exercises), ``"mfeat"``
            (six views of handwritten digits), or the path of a ``.npz`` or ``.parquet`` file;
            `Splits.card` says more.
        modalities: some of its modalities, in the order a sample shall have; all if left out.
        where: of a file, the samples with this value, or one of several, in a column, by its name:
            ``{"slot": 3}``.
        groups: of a file, the column that says which samples belong together: none of them are in
            two splits.
        validation: of a file without a validation split, the share of the training samples to hold
            out for one, 0.2 by default: of every class alike, or whole groups.
        channels: of a file, which axis of a modality holds channels, counted from the samples as
            0; None for none. Arrays of two axes beyond the samples, or more, have none unless said.
        target: of a file, the name of the array with the classes, ``"y"`` by default.
        seed: of a file, another one holds out others; 0 by default.

    Returns:
        Training, validation and test split, standardised with the training split only. Features
        are float32, targets int64, numbered from 0.

    Raises:
        SetupError: a name is unknown, or the file does not hold what is asked for.
        PackError: an embedded file is missing or damaged.
        ImportError: the library that reads the file is missing.

    >>> splits = load("mfeat", modalities=("pix", "mor"))
    >>> print(splits)
    mfeat c65005e25379: train 1200, val 300, test 500; pix, mor
    >>> for pix, mor, target in splits.train.loader(batch_size=400):
    ...     print(tuple(pix.shape), tuple(mor.shape), tuple(target.shape))
    (400, 240) (400, 6) (400,)
    (400, 240) (400, 6) (400,)
    (400, 240) (400, 6) (400,)
    """
    of_file = {
        "where": where,
        "groups": groups,
        "validation": validation,
        "channels": channels,
        "target": target,
        "seed": seed,
    }
    given = {option: value for option, value in of_file.items() if value is not None}
    path = Path(name)
    if isinstance(modalities, str):
        raise SetupError(f"modalities: expected several names, found one: use ('{modalities}',)")
    if path.suffix in READERS:
        return read(path, modalities=modalities, **given)  # type: ignore[arg-type]
    if str(name) not in embedded.available():
        formats = " or ".join(READERS)
        raise SetupError(
            unknown("data set", str(name), embedded.available())
            + f"; or the path of a {formats} file"
        )
    if given:
        raise SetupError(
            f"{name}: {', '.join(given)}: for files alone; the embedded data sets have fixed splits"
        )
    return embedded.load(str(name), modalities=modalities)
