"""The arrays of a modality as one tensor, with its channels where torch expects them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equimodal.data.files.stored import Stored
from equimodal.errors import SetupError

if TYPE_CHECKING:
    from equimodal.data.files.stored import Array

FEW = 4  # an axis as short as this may be one of channels


def joined(parts: Mapping[str, Array], kept: Mapping[str, Array]) -> Array:
    """Return the wanted samples of all splits, one after the other."""
    import numpy as np

    return np.concatenate([parts[split][mask] for split, mask in kept.items()])


def numbers(stored: Stored, name: str, kept: Mapping[str, Array]) -> Tensor:
    """Return a modality as float32, or float64 if it is stored so; shape ``(N, ...)``.

    Raises:
        SetupError: samples differ in shape, are no numbers, or not finite.
    """
    import numpy as np

    what, parts = f"{stored.path}: {name}", stored.arrays[name]
    if len({part.shape[1:] for part in parts.values()}) > 1:
        found = ", ".join(f"{split} {part.shape[1:]}" for split, part in parts.items())
        raise SetupError(f"{what}: expected samples of one shape in all splits, found {found}")
    whole = joined(parts, kept)
    if whole.dtype.kind not in "biuf":
        found = "text" if whole.dtype.kind in "USO" else str(whole.dtype)
        more = ": save features of it instead" if found == "text" else ""
        raise SetupError(f"{what}: expected numbers, found {found}{more}")
    precise = whole.dtype.kind == "f" and whole.dtype.itemsize > 4
    whole = np.ascontiguousarray(whole, np.float64 if precise else np.float32)
    finite = np.isfinite(whole).reshape(len(whole), -1).all(axis=1)
    if not finite.all():
        raise SetupError(
            f"{what}: expected finite numbers, found NaN or infinity in {(~finite).sum()} of "
            f"{len(whole)} samples"
        )
    return torch.from_numpy(whole)


def with_channels(
    path: Path, name: str, feature: Tensor, channels: Mapping[str, int | None] | None
) -> Tensor:
    """Return the feature with its channels as the second axis: one of size 1 if it has none.

    Vectors stay as they are.

    Args:
        path: of the file, for errors.
        name: of the modality.
        feature: shape ``(N, ...)``.
        channels: for modalities which axis it is, or None for none; see `equimodal.data.load`.

    Raises:
        SetupError: there is no such axis; or none is given, and one is short enough to be it.
    """
    if feature.ndim == 1:
        return feature[:, None]
    stated = channels is not None and name in channels
    axis = None if channels is None else channels.get(name)
    if axis is not None:
        if not 1 <= axis < feature.ndim:
            raise SetupError(
                f"{path}: {name}: channels: expected an axis from 1 to {feature.ndim - 1} (0 are "
                f"the samples), found {axis}"
            )
        return feature.movedim(axis, 1).contiguous()
    if feature.ndim == 2 or (feature.shape[1] == 1 and not stated):
        return feature
    short = [number for number in (1, feature.ndim - 1) if feature.shape[number] <= FEW]
    if short and not stated:
        raise SetupError(
            f"{path}: {name}: samples of shape {tuple(feature.shape[1:])} may have channels in "
            f"axis {short[0]}: say so with channels={{{name!r}: {short[0]}}}, or that there are "
            f"none with channels={{{name!r}: None}}"
        )
    return feature[:, None]
