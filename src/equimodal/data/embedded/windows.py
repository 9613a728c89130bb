"""Windows of equal length from recordings of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def window_starts(lengths: Tensor, length: int, step: int) -> tuple[Tensor, Tensor]:
    """Return where every whole window begins, and in which recording.

    The recordings lie one after the other; no window reaches from one into the next, and readings
    at the end that do not fill a window are left out.

    Args:
        lengths: readings per recording, int64, shape ``(R,)``.
        length: readings per window.
        step: readings from the begin of one window to the begin of the next.

    Returns:
        The first reading of each of W windows in the row of all recordings, and the recording it
        belongs to: two int64 tensors of shape ``(W,)``, in the order of the recordings.

    >>> window_starts(torch.tensor([7, 2, 5]), length=4, step=2)
    (tensor([0, 2, 9]), tensor([0, 0, 2]))
    """
    counts = ((lengths - length).div(step, rounding_mode="floor") + 1).clamp(min=0)
    recording = torch.repeat_interleave(torch.arange(len(lengths)), counts)
    rank = torch.arange(len(recording)) - (counts.cumsum(0) - counts)[recording]
    begin = lengths.cumsum(0) - lengths
    return begin[recording] + rank * step, recording


def cut(signal: Tensor, starts: Tensor, length: int) -> Tensor:
    """Return the windows that begin at `starts`: shape ``(W, C, length)`` from ``(C, N)``."""
    return signal.unfold(1, length, 1)[:, starts].transpose(0, 1).contiguous()
