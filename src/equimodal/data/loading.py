"""Data sets by name, or by the path of a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equimodal.data import embedded
from equimodal.data.batches.read import read as read_prepared
from equimodal.data.files.read import READERS, read
from equimodal.data.files.where import Where
from equimodal.data.splits import Splits
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
    **view: Any,
) -> Splits[Any]:
    """Return a data set that comes with the package, that of a file, or a prepared one.

    Embedded ones take well under a second and no network. A file holds arrays named by modality and
    split, such as ``audio_train``, ``video_test`` and ``y_train``; `docs/data.md` says how. A
    folder of prepared clips is what `equimodal prepare` wrote; `docs/raw-data.md` says how.

    Args:
        name: ``"watch"`` (accelerometer and gyroscope of a smartwatch, 7 exercises), ``"mfeat"``
            (six views of handwritten digits), ``"synthetic"`` (of which the best accuracies are
            known), the path of a ``.npz``, ``.parquet`` or ``.pkl`` file, or of a prepared
            folder;
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
        view: of a prepared folder, how its clips shall look: fields of `equimodal.data.View`, such
            as ``frames=3, size=112``.

    Returns:
        Training, validation and test split; arrays are standardised with the training split only.
        Targets are int64, numbered from 0.

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
    known = str(name) in embedded.available()
    if path.is_dir() and not known:
        _refuse(given, f"{path}: ", "for files of arrays alone; a prepared folder has its splits")
        return read_prepared(path, modalities=modalities, **view)
    _refuse(view, f"{name}: ", "of prepared clips alone, which this is not")
    if path.suffix in READERS:
        return read(path, modalities=modalities, **given)  # type: ignore[arg-type]
    if not known:
        _refuse_unprepared(str(name))
        *formats, last = READERS
        raise SetupError(
            unknown("data set", str(name), embedded.available())
            + f"; or the path of a {', '.join(formats)} or {last} file, or of a folder that "
            "equimodal prepare wrote"
        )
    _refuse(given, f"{name}: ", "for files alone; the embedded data sets have fixed splits")
    return embedded.load(str(name), modalities=modalities)


def _refuse_unprepared(name: str) -> None:
    from equimodal.data.layouts import LAYOUTS

    if name in LAYOUTS:
        raise SetupError(
            f"{name} has to be prepared first, from its raw files in RAW: equimodal prepare {name} "
            "--source RAW --out PREPARED, and then name PREPARED in place of it"
        )


def _refuse(options: Mapping[str, Any], what: str, why: str) -> None:
    if options:
        raise SetupError(f"{what}{', '.join(options)}: {why}")
