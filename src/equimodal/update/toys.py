"""A small copy of an optimizer, with its class and settings, that may be tried out."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from equimodal.errors import SetupError
from equimodal.update.wrappers import steps

SIDE = 8  # of a toy parameter
COARSE = 0.5  # a learning rate whose steps show in half precision
SLOWEST = 1e-3  # smaller steps would drown in rounding
PER_GROUP = 2  # so that each can be seen beside another


class Toy:
    """A copy of an optimizer that holds two small parameters for each group of the original.

    It is made by the class of the original, as the settings say; where that fails, attribute by
    attribute. The original, its parameters and its state are only read.

    Args:
        optimizer: the original, which may wrap another.
        decays: whether weights decay as in the original.
        coarse: parameters are of the original's precision, and take steps that show in it;
            otherwise they are of single precision at least.

    Attributes:
        optimizer: the copy.
        parameters: those of the first group first.

    Raises:
        SetupError: there is no way to copy it.
    """

    def __init__(self, optimizer: Any, *, decays: bool = True, coarse: bool = False) -> None:
        self.parameters: list[nn.Parameter] = []
        self._memo: dict[int, Any] = {}
        generator = torch.Generator().manual_seed(0)
        for group in optimizer.param_groups:
            for parameter in _distinct(group["params"])[:PER_GROUP]:
                shape = (SIDE, SIDE) if parameter.ndim > 1 else (SIDE,)
                start = 0.1 * torch.randn(shape, generator=generator)
                toy = nn.Parameter(start.to(parameter.device, _precision(parameter, coarse)))
                self._memo[id(parameter)] = toy
                self.parameters.append(toy)
        self.optimizer: Any = self._made(optimizer)
        for group in self.optimizer.param_groups:
            _liven(group, getattr(optimizer, "defaults", {}), decays)
            if coarse and "lr" in group:
                _set_rate(group, COARSE)

    def _made(self, optimizer: Any) -> Any:
        memo = dict(self._memo)
        try:
            return self._constructed(optimizer)
        except Exception:
            self._memo = memo
        try:
            return self._cloned(optimizer)
        except Exception as error:
            raise SetupError(f"{type(optimizer).__name__} cannot be copied: {error}") from error

    def _constructed(self, optimizer: Any) -> Any:
        kind: Any = type(optimizer)
        settings = dict(getattr(optimizer, "defaults", {}))
        accepted = inspect.signature(kind).parameters
        arguments: dict[str, Any] = {}
        inner = [value for value in vars(optimizer).values() if steps(value)]
        first = next(iter(accepted))
        for name in accepted:
            if name == first:
                wrapped = inner and not isinstance(settings.get(name), type)
                base = wrapped and not name.startswith("param")
                arguments[name] = self._made(inner[0]) if base else self._groups(optimizer)
            elif name in settings:
                arguments[name] = copy.deepcopy(settings[name], self._memo)
            elif hasattr(optimizer, name):
                value = getattr(optimizer, name)
                arguments[name] = type(value) if steps(value) else copy.deepcopy(value, self._memo)
        if any(each.kind is each.VAR_KEYWORD for each in accepted.values()):
            arguments |= {k: v for k, v in settings.items() if k not in arguments and not inner}
        return kind(**arguments)

    def _cloned(self, optimizer: Any) -> Any:
        if id(optimizer) in self._memo:
            return self._memo[id(optimizer)]
        made = self._memo[id(optimizer)] = object.__new__(type(optimizer))
        for name, value in vars(optimizer).items():
            if name == "state":
                vars(made)[name] = defaultdict(dict)
            elif name.endswith("_hooks"):
                vars(made)[name] = OrderedDict()
            elif name == "param_groups":
                vars(made)[name] = self._groups(optimizer)
            else:
                vars(made)[name] = self._value(value)
        return made

    def _value(self, value: Any) -> Any:
        if steps(value):
            return self._cloned(value)
        if type(value) in (list, tuple):
            return type(value)(self._value(each) for each in value)
        return copy.deepcopy(value, self._memo)

    def _groups(self, optimizer: Any) -> list[dict[str, Any]]:
        return [
            {
                name: self._toys(value) if name == "params" else copy.deepcopy(value, self._memo)
                for name, value in group.items()
            }
            for group in optimizer.param_groups
        ]

    def _toys(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        return [self._memo[id(p)] for p in _distinct(parameters) if id(p) in self._memo]


def _distinct(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return parameters so that the toys of a group have the dimensions that it has."""
    matrices = [p for p in parameters if p.ndim > 1]
    return matrices if len(matrices) >= PER_GROUP else [*matrices, *_vectors(parameters)]


def _vectors(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    return [p for p in parameters if p.ndim <= 1]


def _precision(parameter: nn.Parameter, coarse: bool) -> torch.dtype:
    real = parameter.dtype.to_real()
    return real if coarse else torch.promote_types(real, torch.float32)


def _set_rate(group: dict[str, Any], rate: float) -> None:
    """Set a learning rate; one that is a tensor has to stay one."""
    known = group["lr"]
    group["lr"] = torch.full_like(known, rate) if isinstance(known, torch.Tensor) else rate


def _liven(group: dict[str, Any], defaults: dict[str, Any], decays: bool) -> None:
    """Let a group move that waits for its schedule, and its weights decay only where asked."""
    if "lr" in group:
        rates = (group["lr"], group.get("initial_lr"), defaults.get("lr"))
        fastest = max(SLOWEST, *(float(rate) for rate in rates if rate is not None))
        _set_rate(group, fastest)
    for name, value in group.items():
        decay = "decay" in name or name == "wd"
        if not decays and decay and type(value) in (int, float):
            group[name] = type(value)(0)
