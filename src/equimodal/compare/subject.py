"""What is trained in a comparison, as names and JSON values: any process can make it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from equimodal import data
from equimodal.nn import Multimodal
from equimodal.training import Encoder, model_for


@dataclass(frozen=True)
class Subject:
    """Data and model of a comparison that are not the usual ones.

    Args:
        splits: ``module:function``, from a `data.Source` and `options` to splits.
        model: ``module:function``, from splits, ``seed=`` and `built` to the model before training:
            what has `encoders` and `head`, as `equimodal.nn.Multimodal`.
        options: of the former, by name; what JSON can hold.
        built: of the latter, likewise.
    """

    splits: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    built: Mapping[str, Any] = field(default_factory=dict)

    def load(self, source: data.Source) -> data.Splits[Any]:
        """Load the data."""
        loaded: data.Splits[Any] = _function(self.splits)(source, **self.options)
        return loaded

    def make(self, splits: data.Splits[Any], seed: int) -> Multimodal:
        """Return the model of a seed."""
        made: Multimodal = _function(self.model)(splits, seed=seed, **self.built)
        return made

    def described(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def usual(encoder: Encoder) -> Subject:
    """Return the subject of `equimodal compare`: a data set by name, encoders and concatenation."""
    return Subject(f"{__name__}:loaded", f"{__name__}:built", built={"encoder": encoder})


def loaded(source: data.Source) -> data.Splits[Any]:
    """Load a source as it is."""
    return source.load()


def built(splits: data.Splits[Any], seed: int, encoder: Encoder) -> Multimodal:
    """Return the model of `equimodal.training.model_for`."""
    return model_for(splits, seed=seed, encoder=encoder)


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
