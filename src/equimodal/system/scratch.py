"""Room for many small tensors side by side, so that one operation is enough for all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PLACES = 2**15  # of the room: what fits into the cache of a processor
WIDTH = 64  # of a row: every tensor begins at one
LARGEST = 2**13  # elements of a tensor that counts as small
LAYOUTS = 64  # that are remembered


@dataclass(frozen=True)
class Layout:
    """Where tensors lie in the room.

    Attributes:
        views: one for each tensor, of its shape.
        rows: the whole room, shape ``(R + 1, WIDTH)``; nothing lies in the last row.
        index: the rows of each tensor, shape ``(N, K)``, and the last one where it has fewer.
        sizes: numbers of elements, shape ``(N,)``, in the dtype of the room.
    """

    views: list[Tensor]
    rows: Tensor
    index: Tensor
    sizes: Tensor

    def sums(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the sum of each tensor, shape ``(N,)``: a tensor's NaN is in its own alone."""
        self.rows.zero_()
        torch._foreach_copy_(self.views, list(tensors))
        return self.rows.sum(dim=1)[self.index].sum(dim=1)


class Scratch(threading.local):
    """Finds room for small tensors; one room for each kind of tensor, used again and again.

    Every thread has rooms of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rooms: dict[Any, Tensor] = {}
        self._layouts: dict[Any, Layout] = {}

    def layout(self, tensors: Sequence[Tensor]) -> Layout:
        """Return a layout of tensors that fit, see `shares`; what lay in the room is lost."""
        first = tensors[0]
        kind = (first.dtype, first.device)
        key = (kind, tuple(tensor.shape for tensor in tensors))
        if key not in self._layouts:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            if kind not in self._rooms:
                self._rooms[kind] = first.new_zeros(PLACES // WIDTH + 1, WIDTH)
            self._layouts[key] = _laid_out(self._rooms[kind], tensors)
        return self._layouts[key]


def _laid_out(rows: Tensor, tensors: Sequence[Tensor]) -> Layout:
    flat, empty = rows.view(-1), len(rows) - 1
    views, places, row = [], [], 0
    for tensor in tensors:
        start, count = row * WIDTH, -(-tensor.numel() // WIDTH)
        views.append(flat[start : start + tensor.numel()].view(tensor.shape))
        places.append(range(row, row + count))
        row += count
    longest = max(len(place) for place in places)
    index = [[*place, *[empty] * (longest - len(place))] for place in places]
    sizes = [tensor.numel() for tensor in tensors]
    return Layout(
        views,
        rows,
        torch.tensor(index).to(rows.device, non_blocking=True),
        torch.tensor(sizes, dtype=rows.dtype).to(rows.device, non_blocking=True),
    )


def shares(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return positions of small tensors, in lists of which each fits into the room at once.

    Small are tensors of 2 to `LARGEST` elements in single or double precision; none of a class of
    their own.
    """
    found: list[list[int]] = []
    left: dict[Any, tuple[list[int], int]] = {}
    for position, tensor in enumerate(tensors):
        if not 2 <= tensor.numel() <= LARGEST:
            continue
        plain = type(tensor) in (Tensor, nn.Parameter)
        if not plain or tensor.dtype not in (torch.float32, torch.float64):
            continue
        kind, needed = (tensor.dtype, tensor.device), -(-tensor.numel() // WIDTH)
        share, room = left.get(kind, ([], 0))
        if needed > room:
            share, room = [], PLACES // WIDTH
            found.append(share)
        share.append(position)
        left[kind] = (share, room - needed)
    return found
