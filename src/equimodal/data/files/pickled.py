"""Feature files of CMU-MOSI and CMU-MOSEI: pickles, read without running what they hold.

A pickle is a program. Only that of NumPy's arrays is run here: whatever else one asks for is
refused by name.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equimodal.data.files.stored import SPELT, Stored
from equimodal.errors import SetupError
from equimodal.system.extras import require

if TYPE_CHECKING:
    from equimodal.data.files.stored import Array

MODALITIES = ("text", "audio", "vision")
LABELS = ("regression_labels", "labels")
ARRAYS = ("numpy.core", "numpy._core")  # NumPy 1, and 2
ABOUT = {
    "source": "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK (features as published)",
    "authors": "A. Zadeh and others",
    "citation": (
        "Zadeh et al., MOSI, IEEE Intelligent Systems 31(6), 2016; Zadeh et al., CMU-MOSEI, ACL "
        "2018"
    ),
}


def stored(path: Path) -> Stored:
    """Return what a file holds.

    A mapping of ``train``, ``valid`` and ``test`` to mappings of arrays: ``text``, ``audio`` and
    ``vision`` of shape ``(N, T, D)``; ``labels`` or ``regression_labels``, a sentiment of -3 to 3
    for each sample; ``id``. The target ``y`` is the sentiment as one of seven whole numbers;
    ``polarity`` is 0 for a negative one and 1 for any other; ``video`` is the first part of the id.
    Features that are no numbers become 0: COVAREP gives -inf for silence.

    Raises:
        SetupError: it cannot be read, holds anything but arrays, or has another layout.
    """
    require("data", "numpy")
    content = _read(path)
    if not isinstance(content, Mapping) or not {"train", "test"} <= set(content):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content)
        raise SetupError(
            f"{path}: expected the splits train, valid and test as the features of CMU-MOSI and "
            f"CMU-MOSEI are published, found {found}"
        )
    arrays: dict[str, dict[str, Array]] = {}
    for key, parts in content.items():
        if str(key) not in SPELT:
            continue
        for name, array in _arrays(path, str(key), parts).items():
            arrays.setdefault(name, {})[SPELT[str(key)]] = array
    listed = tuple(name for name in MODALITIES if name in arrays)
    # Sequences: what was measured at each step are the channels.
    return Stored(path, arrays, {}, listed, dict(ABOUT), dict.fromkeys(listed, 2))


def _arrays(path: Path, split: str, parts: Any) -> dict[str, Array]:
    """Return the arrays of a split: modalities, target and columns."""
    import numpy as np

    if not isinstance(parts, Mapping):
        raise SetupError(f"{path}: {split}: expected arrays by name, found {type(parts).__name__}")
    found: dict[str, Array] = {}
    for name in MODALITIES:
        if name in parts:
            features = np.asarray(parts[name], np.float32)
            found[name] = np.nan_to_num(features, nan=0.0, posinf=0.0, neginf=0.0)
    label = next((name for name in LABELS if name in parts), None)
    if label is None or not found:
        raise SetupError(
            f"{path}: {split}: expected {', '.join(MODALITIES)} and one of {', '.join(LABELS)}, "
            f"found {', '.join(map(str, parts))}"
        )
    sentiment = np.asarray(parts[label], np.float64).reshape(-1)
    found["y"] = np.rint(sentiment.clip(-3, 3)).astype(np.int64)
    found["polarity"] = (sentiment >= 0).astype(np.int64)
    found["sentiment"] = sentiment
    if "id" in parts:
        found["video"] = np.array([_video(each) for each in parts["id"]])
    for name in ("audio_lengths", "vision_lengths"):
        if name in parts:
            found[name] = np.asarray(parts[name], np.int64).reshape(-1)
    return found


def _video(name: Any) -> str:
    r"""Return the video of a segment.

    >>> _video("03bSnISJMiM$_$11"), _video([b"2WGyTLYerpo", b"1.0", b"2.0"]), _video("abc[3]")
    ('03bSnISJMiM', '2WGyTLYerpo', 'abc')
    """
    if not isinstance(name, str | bytes):
        name = name[0]
    text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
    return re.split(r"\$_\$|\[", text)[0]


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Arrays(file, encoding="latin1").load()  # those of Python 2 too
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


class _Arrays(pickle.Unpickler):
    """Reads arrays of NumPy and what Python is made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle asks for by name.

        Raises:
            SetupError: that is not one of NumPy's arrays.
        """
        import numpy as np
        from numpy._core import multiarray, numeric

        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encoded,
            **{
                (f"{room}.{file}", called): getattr(where, called)
                for room in ARRAYS
                for file, where, called in (
                    ("multiarray", multiarray, "_reconstruct"),
                    ("multiarray", multiarray, "scalar"),
                    ("numeric", numeric, "_frombuffer"),
                )
            },
        }
        if (module, name) not in allowed:
            raise SetupError(
                f"a pickle asks for {module}.{name}: expected arrays of NumPy alone, as running "
                "anything else could do anything. Save it with numpy.savez_compressed"
            )
        return allowed[module, name]


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Do what `codecs.encode` does for the bytes of arrays in old pickles."""
    return text.encode("latin1" if encoding == "latin1" else "utf-8")
