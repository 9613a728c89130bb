"""Which data set, and what of it: what can be loaded again, in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equimodal.data.embedded import available
from equimodal.data.loading import load
from equimodal.data.splits import Splits


@dataclass(frozen=True)
class Source:
    """A data set that is not loaded yet.

    Args:
        name: see `equimodal.data.load`.
        options: of `equimodal.data.load`, those that are given.

    >>> Source("mfeat", {"modalities": ("pix", "mor")}).load().modalities
    ('pix', 'mor')
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Splits[Any]:
        """Load it."""
        return load(self.name, **self.options)

    def words(self) -> list[str]:
        """Return what names it in a command: the name, and an option for every choice.

        >>> Source("clips.npz", {"where": {"slot": [3, 4]}, "groups": "who", "size": 112}).words()
        ['clips.npz', '--filter=slot=3|4', '--groups=who', '--view=size=112']
        """
        words, view = [self.name], []
        for name, value in self.options.items():
            if name == "modalities":
                if self.name not in available() or tuple(value) != load(self.name).modalities:
                    words.append(f"--modalities=[{', '.join(value)}]")
            elif name == "where":
                columns = [f"{column}={'|'.join(_several(of))}" for column, of in value.items()]
                words.append(f"--filter={','.join(columns)}")
            elif name == "channels":
                axes = [f"{m}={'none' if axis is None else axis}" for m, axis in value.items()]
                words.append(f"--channels={','.join(axes)}")
            elif name in ("groups", "validation", "target"):
                words.append(f"--{name}={value}")
            else:
                view.append(f"{name}={value}")
        return [*words, f"--view={','.join(view)}"] if view else words


def _several(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list | tuple) else [value])]
