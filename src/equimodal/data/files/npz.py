"""NumPy's ``.npz`` files: arrays named by modality and split."""

from __future__ import annotations

import zipfile
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

    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {key: file[key] for key in file}
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
