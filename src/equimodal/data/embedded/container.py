"""The packed file: named integer tensors in one compressed file, read with torch alone.

A packed file is, in this order,

- a line ``equimodal-pack 1 <SHA-256 of everything after this line>``;
- a line of JSON: ``about`` (where the numbers come from) and ``arrays`` (name, shape and bytes per
  value of each tensor);
- one zlib stream: the tensors one after the other. A signed value v is written as 2v, or -2v - 1
  if negative, so that small numbers have zero high bytes; then the lowest byte of all values, the
  next byte of all values, and so on. Bytes of one significance resemble each other, which is what
  zlib needs, and the order of bytes in the machine's integers plays no part.

zlib and not xz: on the embedded data xz is 3 % smaller, but Pythons built without liblzma cannot
read it, while every Python that can install a wheel has zlib.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections.abc import Mapping
from importlib import resources
from math import prod
from typing import Any

import torch
from torch import Tensor

MAGIC, VERSION = "equimodal-pack", "1"


class PackError(RuntimeError):
    """A packed file is missing, damaged, or of another version."""


def pack(arrays: Mapping[str, Tensor], about: Mapping[str, object]) -> bytes:
    """Return the bytes of a packed file; `unpack` gives back what went in.

    Args:
        arrays: integer tensors by name, of any shape, with at least one value; magnitudes below
            2**62.
        about: anything JSON can hold.

    Raises:
        TypeError: a tensor is not of integers.
        ValueError: a tensor has no value.
    """
    layout, planes = [], []
    for name, tensor in arrays.items():
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise TypeError(f"arrays['{name}']: expected integers, found {tensor.dtype}")
        if not tensor.numel():
            raise ValueError(f"arrays['{name}']: expected at least one value, found none")
        value = tensor.to(torch.int64).flatten()
        code = (value << 1) ^ (value >> 63)
        width = max(1, (int(code.max()).bit_length() + 7) // 8)
        layout.append({"name": name, "shape": list(tensor.shape), "width": width})
        planes += [bytes(((code >> 8 * place) & 255).tolist()) for place in range(width)]
    header = json.dumps({"about": dict(about), "arrays": layout}, sort_keys=True)
    # Z_FILTERED is zlib's setting for small values of a random kind: 1 % smaller here.
    deflate = zlib.compressobj(level=9, strategy=zlib.Z_FILTERED)
    rest = header.encode() + b"\n" + deflate.compress(b"".join(planes)) + deflate.flush()
    return f"{MAGIC} {VERSION} {hashlib.sha256(rest).hexdigest()}\n".encode() + rest


def unpack(packed: bytes, name: str = "the file") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a packed file, as int64 of their shapes, and what it says about them.

    Args:
        packed: the whole file.
        name: what an error calls it.

    Raises:
        PackError: the file is no packed file, of another version, cut short or altered.
    """
    first, _, rest = packed.partition(b"\n")
    words = first.split(b" ")
    if words[0] != MAGIC.encode() or len(words) != 3:
        raise PackError(f"{name}: expected a file that begins with '{MAGIC}', found {first[:24]!r}")
    if words[1] != VERSION.encode():
        found = words[1].decode(errors="replace")
        raise PackError(f"{name}: expected version {VERSION} of the packed format, found {found}")
    if hashlib.sha256(rest).hexdigest() != words[2].decode(errors="replace"):
        raise PackError(
            f"{name}: cut short or altered, its SHA-256 is not the one it states "
            f"({len(packed):,} bytes found): install equimodal again"
        )
    text, _, stream = rest.partition(b"\n")
    header = json.loads(text)
    body = zlib.decompress(stream)
    arrays, start = {}, 0
    for item in header["arrays"]:
        size = prod(item["shape"])
        # Bytes are put in place by slices, not by shifting tensors: quicker than some seventy
        # tensor operations, the more so where torch's threads wait for busy cores.
        raw = bytearray(8 * size)
        for place in range(item["width"]):
            raw[place if sys.byteorder == "little" else 7 - place :: 8] = body[start : start + size]
            start += size
        code = torch.frombuffer(raw, dtype=torch.int64)
        arrays[item["name"]] = ((code >> 1) ^ -(code & 1)).view(item["shape"])
    return arrays, header["about"]


def read(name: str) -> dict[str, Tensor]:
    """Return the tensors of an embedded packed file, for instance ``"watch"``.

    Raises:
        PackError: it is missing, cut short or altered.
    """
    path = resources.files("equimodal.data.embedded") / f"{name}.pack"
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}: install equimodal again") from error
    return unpack(packed, str(path))[0]
