"""What stands for a modality, made from the raw values: pictures, waveforms, arrays and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.blind.conditions import Condition
from equimodal.errors import SetupError

SIDE = 64  # of the pictures whose mean is taken
POOL = 128  # samples whose mean is taken


def kind_of(value: Any) -> str:
    """Return what a value is: "text", "picture", "audio", "array" or "list".

    Raises:
        SetupError: it is something else.
    """
    if isinstance(value, str):
        return "text"
    if _picture(value):
        return "picture"
    if isinstance(value, Tensor) or hasattr(value, "__array_interface__"):
        return "audio" if value.ndim == 1 else "array"
    if isinstance(value, list | tuple) and value:
        return "list"
    raise SetupError(
        "a modality: expected text, a PIL image, an array, a tensor or a list of them, found "
        f"{type(value).__name__}"
    )


def blank(value: Any) -> Any:
    """Return nothing in the form of something: a black picture, silence, zeros."""
    kind = kind_of(value)
    if kind == "picture":
        from PIL import Image

        return Image.new(value.mode, value.size)
    if kind == "list":
        return type(value)(map(blank, value))
    return torch.zeros_like(value) if isinstance(value, Tensor) else _zeros(value)


class Mean:
    """The mean of a modality over some samples, in the form of a given one.

    Pictures are compared at `SIDE` by `SIDE` and stretched to the size of the one they replace;
    waveforms are averaged from their beginnings, each moment over those that last so long; arrays
    must be of one shape.

    Args:
        name: of the modality, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._sum: Tensor | list[Mean] | None = None
        self._times: Tensor = torch.zeros(())

    def add(self, value: Any) -> None:
        """Count a value in.

        Raises:
            SetupError: it has another shape than those before.
        """
        if kind_of(value) == "list":
            parts = [Mean(self.name) for _ in value] if self._sum is None else self._sum
            assert isinstance(parts, list)
            for mean, part in zip(parts, value, strict=False):
                mean.add(part)
            self._sum = parts
            return
        numbers = _numbers(value)
        once = torch.ones_like(numbers)
        if self._sum is None:
            self._sum, self._times = numbers, once
            return
        assert isinstance(self._sum, Tensor)
        if numbers.ndim == 1:
            longest = max(len(numbers), len(self._sum))
            grow = [_grown(each, longest) for each in (self._sum, numbers, self._times, once)]
            self._sum, self._times = grow[0] + grow[1], grow[2] + grow[3]
            return
        if numbers.shape != self._sum.shape:
            raise SetupError(
                f"{self.name}: the mean needs arrays of one shape, found {tuple(numbers.shape)} "
                f"after {tuple(self._sum.shape)}: leave out the fill 'mean'"
            )
        self._sum, self._times = self._sum + numbers, self._times + once

    def __call__(self, value: Any) -> Any:
        """Return the mean in the form of a value."""
        if isinstance(self._sum, list):
            return type(value)(
                self._sum[min(place, len(self._sum) - 1)](part) for place, part in enumerate(value)
            )
        assert self._sum is not None
        mean = self._sum / self._times
        if _picture(value):
            from PIL import Image

            pixels = mean.round().clamp(0, 255).to(torch.uint8).numpy()
            return Image.fromarray(pixels).convert(value.mode).resize(value.size)
        if mean.ndim == 1:
            mean = _grown(mean, len(value))[: len(value)]
        if isinstance(value, Tensor):
            return mean.to(value)
        return mean.numpy().astype(value.dtype)


def filled(
    sample: Mapping[str, Any],
    partner: Mapping[str, Any] | None,
    means: Mapping[str, Mean],
    condition: Condition,
) -> dict[str, Any]:
    """Return a sample under a condition; a modality that is removed is no entry of it.

    Args:
        sample: by modality, and whatever else it holds.
        partner: another sample, for the fill "other".
        means: by modality, for the fill "mean".
        condition: what stands for what.
    """
    made = dict(sample)
    for name, fill in condition.fills:
        if fill == "removed":
            del made[name]
        elif fill == "blank":
            made[name] = blank(sample[name])
        elif fill == "mean":
            made[name] = means[name](sample[name])
        else:
            assert partner is not None
            made[name] = partner[name]
    return made


def means_of(
    samples: Sequence[Mapping[str, Any]], names: Sequence[str], seed: int
) -> dict[str, Mean]:
    """Return the means of some modalities over at most `POOL` samples, drawn by a seed."""
    drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    means = {name: Mean(name) for name in names}
    for row in drawn[:POOL].sort().values.tolist() if names else ():
        sample = samples[row]
        for name, mean in means.items():
            mean.add(sample[name])
    return means


def partners(samples: int, seed: int) -> list[int]:
    """Return another sample for each, every one once: a permutation without fixed points.

    >>> found = partners(5, seed=0)
    >>> sorted(found), any(place == other for place, other in enumerate(found))
    ([0, 1, 2, 3, 4], False)
    """
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    found = torch.empty(samples, dtype=torch.int64)
    found[order] = order.roll(-1)
    return [int(each) for each in found]


def _picture(value: Any) -> bool:
    return hasattr(value, "getbands") and hasattr(value, "convert")


def _numbers(value: Any) -> Tensor:
    if _picture(value):
        import numpy as np

        small = value.convert("RGB").resize((SIDE, SIDE))
        return torch.from_numpy(np.asarray(small, dtype=np.float64))
    return torch.as_tensor(value).double()


def _zeros(value: Any) -> Any:
    import numpy as np

    return np.zeros_like(value)


def _grown(values: Tensor, length: int) -> Tensor:
    return torch.cat([values, values.new_zeros(max(0, length - len(values)))])
