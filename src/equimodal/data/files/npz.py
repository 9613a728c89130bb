"""NumPy's ``.npz`` files: arrays named by modality and split."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from equimodal.data.files.stored import Stored, split_name, told
from equimodal.errors import SetupError
from equimodal.system.extras import require

if TYPE_CHECKING:
    from equimodal.data.files.stored import Array


def stored(path: Path) -> Stored:
    """Return what a file holds.

    ``NAME_train``, ``NAME_val`` and ``NAME_test`` are arrays of samples; ``NAME_names`` says what
    the integers of NAME stand for (``class_names`` for the target); ``modality_names`` lists the
    modalities; ``meta`` holds words, or JSON with ``source`` and ``licence``.

    Raises:
        SetupError: it cannot be read, or holds Python objects.
    """
    require("data", "numpy")
    import numpy as np

    found: dict[str, Array] = {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            for key in file:
                found[key] = _plain(path, key, file)
    except SetupError:
        raise
    except (ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise SetupError(
            f"{path}: cannot be read: {error}. Expected plain arrays, as "
            "numpy.savez_compressed writes them"
        ) from error
    arrays: dict[str, dict[str, Array]] = {}
    names = {}
    for key, array in found.items():
        if split := split_name(key):
            arrays.setdefault(split[0], {})[split[1]] = array
        elif key.endswith("_names"):
            names[key.removesuffix("_names")] = tuple(map(str, array.tolist()))
    meta = found.get("meta")
    about = {} if meta is None or meta.ndim else told(str(meta))
    return Stored(path, arrays, names, names.pop("modality", None), about)


def _plain(path: Path, key: str, file: Mapping[str, Array]) -> Array:
    """Return an array that holds numbers or text, and no Python objects.

    Raises:
        SetupError: it holds some, such as arrays of several lengths.
    """
    try:
        return file[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise SetupError(
            f"{path}: {key} holds Python objects: for samples of several lengths pad them to one "
            "length, and save text as numbers (features) or, for labels, as an array of strings"
        ) from None
