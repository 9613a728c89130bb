"""What the fusion heads share: modalities by name and in order, and the width of each."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from equimodal.errors import SetupError, unknown
from equimodal.nn.refusals import refuse_names, refuse_sizes


class FusionHead(nn.Module):
    """A module from the features of all modalities, one after the other, to logits.

    Heads whose logits split exactly have a method ``unimodal_logits(features)`` from a dict of
    features to a dict of logits; `equimodal.Split` uses it. The others have none.

    Args:
        widths: for each modality the width of its features, in the order of the arguments of
            `forward`; two or more.
        classes: C, the number of logits.

    Attributes:
        widths: as given.
        classes: as given.

    Raises:
        SetupError: an argument is out of its range, or features do not fit the widths.
    """

    def __init__(self, widths: Mapping[str, int], classes: int) -> None:
        super().__init__()
        if not isinstance(widths, Mapping) or len(widths) < 2:
            raise SetupError(
                f"{type(self).__name__}(widths): expected a dict of two or more modalities and the "
                f'width of their features, such as {{"audio": 512, "visual": 512}}, found {widths}'
            )
        refuse_names(self, "widths", widths)
        refuse_sizes(self, **{f"widths[{name!r}]": width for name, width in widths.items()})
        refuse_sizes(self, classes=classes)
        self.widths = dict(widths)
        self.classes = classes

    def named(self, features: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return the positional arguments of `forward` by modality."""
        if len(features) != len(self.widths):
            raise SetupError(
                f"{type(self).__name__}: expected the features of {', '.join(self.widths)}, "
                f"found {len(features)} arguments"
            )
        return self._fitting(dict(zip(self.widths, features, strict=True)))

    def ordered(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a dict of features in the order of the widths."""
        where = type(self).__name__
        for name in features:
            if name not in self.widths:
                raise SetupError(f"{where}: " + unknown("modality", str(name), self.widths))
        missing = [name for name in self.widths if name not in features]
        if missing:
            raise SetupError(f"{where}: no features of {', '.join(missing)}")
        return self._fitting({name: features[name] for name in self.widths})

    def _fitting(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, width in self.widths.items():
            shape = tuple(features[name].shape)
            if shape[-1:] != (width,):
                raise SetupError(
                    f"{type(self).__name__}: expected features of {name} of shape "
                    f"(B, ..., {width}), found {shape}"
                )
        return features

    def _known(self, argument: str, name: str) -> str:
        """Return the name of a modality that an argument gives, or refuse it."""
        if name not in self.widths:
            where = f"{type(self).__name__}({argument}): "
            raise SetupError(where + unknown("modality", str(name), self.widths))
        return name
