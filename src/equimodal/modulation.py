"""Coefficients and noise: on the gradients of a step, or on the update that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.method import Method, Space
from equimodal.modalities import Modalities, OwnedParameter, selector
from equimodal.noise import Noise, NoiseJob, NoiseSource
from equimodal.optimizers import Optimizer


@dataclass(frozen=True)
class Member:
    """A parameter to modulate, and the number that its noise is drawn by."""

    owned: OwnedParameter
    number: int


@dataclass(frozen=True)
class Group:
    """Parameters of one modality that the same methods act on."""

    modality: int
    scaling: tuple[int, ...]
    noise: int | None
    members: tuple[Member, ...]


@dataclass
class Modulated:
    """A step between `modulate` and `optimizer.step`: what the update is scaled by."""

    coefficients: dict[int, Tensor]
    step: int
    stepped: set[Optimizer]


class Modulation:
    """Which parameters each method acts on, and acting on them once per optimizer step.

    Coefficients of several methods are multiplied; noise is drawn once.

    Args:
        methods: those that compose.
        modalities: the encoders and their parameters.
        source: of the noise.

    Raises:
        SetupError: a method has nothing to act on, or two methods want different noise.
    """

    def __init__(
        self, methods: Sequence[Method], modalities: Modalities, source: NoiseSource
    ) -> None:
        self.methods = methods
        self.modalities = modalities
        self.source = source
        self.state: dict[str, dict[str, Tensor]] = {}
        self._snapshot: dict[nn.Parameter, Tensor] = {}
        noises = {method.noise for method in methods if method.noise is not None}
        if len(noises) > 1:
            raise SetupError(
                f"noise is drawn once, but the methods want different noise: {noises}. Give all "
                "of them the same, or all but one none"
            )
        self.groups: dict[Space, list[Group]] = {
            space: self._groups(space) for space in ("gradient", "update")
        }

    def _groups(self, space: Space) -> list[Group]:
        acting = [
            (index, method)
            for index, method in enumerate(self.methods)
            if method.space == space
            and (method.overrides("coefficients") or method.noise is not None)
        ]
        groups, number = [], 0
        for position, name in enumerate(self.modalities.names):
            keyed: dict[tuple[tuple[int, ...], int | None], list[Member]] = {}
            selected = {
                index: self._selected(method, name)
                for index, method in acting
                if method.modalities is None or name in method.modalities
            }
            for owned in self.modalities.owned[name]:
                scaling = tuple(i for i, chosen in selected.items() if owned in chosen)
                noisy = [i for i in scaling if self.methods[i].noise is not None]
                if scaling:
                    key = (scaling, noisy[0] if noisy else None)
                    keyed.setdefault(key, []).append(Member(owned, number))
                number += 1
            groups += [
                Group(position, scaling, noise, tuple(members))
                for (scaling, noise), members in keyed.items()
            ]
        return groups

    def _selected(self, method: Method, name: str) -> list[OwnedParameter]:
        owned, trainable = self.modalities.owned[name], self.modalities.trainable(name)
        chosen = [each for each in owned if selector(method.selection)(each)]
        if any(each.parameter.requires_grad for each in chosen):
            return chosen  # the frozen ones too: they may be unfrozen later
        where = f"encoders['{name}']"
        leave = (
            f"or leave it out of the method's modalities: {type(method).__name__}(modalities=...)"
        )
        if trainable:
            raise SetupError(
                f"{where} has {len(trainable)} trainable parameters, but none that "
                f"{type(method).__name__} acts on (parameters={method.selection!r}): choose "
                f'parameters="all", {leave}'
            )
        if owned:
            raise SetupError(f"{where} has no trainable parameter: unfreeze it, {leave}")
        if self.modalities.shared:
            raise SetupError(
                f"{where} shares all its parameters with other modules, and shared parameters are "
                f"not modulated: give it layers of its own, {leave}"
            )
        raise SetupError(f"{where} has no parameter: name the module that holds them, {leave}")

    def members(self) -> set[str]:
        """Return the names of all parameters that any method acts on."""
        return {
            member.owned.name
            for groups in self.groups.values()
            for group in groups
            for member in group.members
        }

    @property
    def in_update_space(self) -> bool:
        """Whether any method acting on updates acts at all."""
        return bool(self.groups["update"])

    def on_gradients(self, coefficients: Mapping[int, Tensor], active: set[int], step: int) -> None:
        """Multiply gradients by the coefficients, then add noise.

        Args:
            coefficients: by index of the method, shape ``(M,)``.
            active: indices of the methods that act in this epoch.
            step: optimizer steps so far, which the noise depends on.
        """
        jobs: list[NoiseJob] = []
        for group in self.groups["gradient"]:
            members = [m for m in group.members if m.owned.parameter.grad is not None]
            if not members:
                continue
            gradients = [_values(member.owned.parameter) for member in members]
            noise = self._noise(group, active)
            if noise is not None:  # its strength is that of the gradient before it is scaled
                jobs += [
                    self._job(noise, member, gradient, gradient)
                    for member, gradient in zip(members, gradients, strict=True)
                    if not member.owned.parameter.grad.is_sparse  # type: ignore[union-attr]
                ]
            scale = _scale(group, coefficients)
            if scale is not None:
                torch._foreach_mul_(gradients, scale)
        self.source.add_(jobs, step)

    def before_update(self, parameters: set[nn.Parameter], active: set[int]) -> None:
        """Remember the parameters an optimizer is about to change, where updates are scaled."""
        for group in self.groups["update"]:
            if active.intersection(group.scaling):
                for member in group.members:
                    parameter = member.owned.parameter
                    if parameter in parameters and parameter.requires_grad:
                        self._snapshot[parameter] = parameter.detach().clone()

    @torch.no_grad()
    def on_updates(self, coefficients: Mapping[int, Tensor], active: set[int], step: int) -> None:
        """Scale the update that the optimizer has just made, then add noise to it."""
        jobs: list[NoiseJob] = []
        for group in self.groups["update"]:
            scale = _scale(group, coefficients)
            noise = self._noise(group, active)
            for member in group.members:
                parameter = member.owned.parameter
                old = self._snapshot.pop(parameter, None)
                if old is None or parameter.grad is None:
                    continue
                if noise is not None:
                    jobs.append(self._job(noise, member, parameter, parameter - old))
                if scale is not None:  # lerp, and not old + k * update: exact for k = 1
                    parameter.copy_(torch.lerp(old, parameter, scale.to(old.dtype)))
        self.source.add_(jobs, step)
        self._snapshot.clear()

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the state of the noise."""
        parameters = {
            owned.name: owned.parameter for of in self.modalities.owned.values() for owned in of
        }
        self.state = {
            name: {key: value.to(parameters[name].device) for key, value in values.items()}
            for name, values in state.items()
        }

    def _noise(self, group: Group, active: set[int]) -> Noise | None:
        if group.noise is None or group.noise not in active:
            return None
        return self.methods[group.noise].noise

    def _job(self, noise: Noise, member: Member, tensor: Tensor, source: Tensor) -> NoiseJob:
        """Return the noise for a tensor, as strong as the noise says that it is for its source."""
        name = member.owned.name
        if name not in self.state:
            self.state[name] = noise.state(source)
        return NoiseJob(tensor, noise.std(source, self.state[name]), member.number)


def _values(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    return gradient._values() if gradient.is_sparse else gradient


def _scale(group: Group, coefficients: Mapping[int, Tensor]) -> Tensor | None:
    factors = [coefficients[i][group.modality] for i in group.scaling if i in coefficients]
    return math.prod(factors[1:], start=factors[0]) if factors else None
