"""How clips are decoded and stored."""

from __future__ import annotations

from dataclasses import dataclass

from equimodal.errors import SetupError


@dataclass(frozen=True)
class Recipe:
    """How clips are decoded and stored.

    Args:
        fps: frames to keep for each second of a clip, taken from the middle of equal parts of it;
            one at least.
        side: shorter side of stored frames, in pixels; smaller ones are not enlarged.
        quality: of JPEG, 1 to 95.
        rate: of stored sound (mono, 16 bit), in Hz.
        keep_partial: keep a clip of which some modalities, but not all, can be had: batches say
            which samples have which.

    Raises:
        SetupError: a number is out of its range.
    """

    fps: float = 1.0
    side: int = 256
    quality: int = 90
    rate: int = 16_000
    keep_partial: bool = False

    def __post_init__(self) -> None:
        ranges = {"fps": (0.01, 240), "side": (16, 4096), "quality": (1, 95), "rate": (4000, 96000)}
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise SetupError(f"{name}: expected {least} to {most}, found {value}")
