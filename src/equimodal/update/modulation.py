"""Coefficients and noise: on the gradients of a step, or on the update that follows from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equimodal.attach.sharding import Sharding, local, placed_like
from equimodal.errors import SetupError
from equimodal.functional.noise import as_real
from equimodal.method import Method, Space
from equimodal.modalities import Modalities, OwnedParameter, selector
from equimodal.noise import Noise, NoiseJob, NoiseSource
from equimodal.update.optimizers import Optimizer
from equimodal.update.sparse import refuse_sparse


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


class Wanted(NamedTuple):
    """Noise to add to a tensor, as strong as the noise says that it is for its source."""

    noise: Noise
    member: Member
    tensor: Tensor
    source: Tensor


@dataclass
class Modulated:
    """A step between `modulate` and `optimizer.step`: what the update is scaled by.

    Attributes:
        coefficients: by method.
        step: its number.
        stepped: the optimizers that have stepped.
        told: whether `modulate` was given the gradient scaler.
        void: those whose update did not follow from the judged gradients: these were dropped, or
            had overflowed.
    """

    coefficients: dict[int, Tensor]
    step: int
    stepped: set[Optimizer]
    told: bool = False
    void: set[Optimizer] = field(default_factory=set)


class Modulation:
    """Which parameters each method acts on, and acting on them once per optimizer step.

    Coefficients of several methods are multiplied; noise is drawn once.

    Args:
        methods: those that compose.
        modalities: the encoders and their parameters.
        source: of the noise.
        sharding: how the parameters are sharded, None if they are not.

    Raises:
        SetupError: a method has nothing to act on, two methods want different noise, or the noise
            cannot be drawn for slices of the parameters.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        modalities: Modalities,
        source: NoiseSource,
        sharding: Sharding | None = None,
    ) -> None:
        self.methods = methods
        self.modalities = modalities
        self.source = source
        self.sharding = sharding
        self.state: dict[str, dict[str, Tensor]] = {}
        self._snapshot: dict[nn.Parameter, Tensor] = {}
        self._before: dict[str, dict[str, Tensor]] = {}  # the state, for a step that is left out
        noises = {method.noise for method in methods if method.noise is not None}
        if len(noises) > 1:
            raise SetupError(
                f"noise is drawn once, but the methods want different noise: {noises}. Give all "
                "of them the same, or all but one none"
            )
        self.groups: dict[Space, list[Group]] = {
            space: self._groups(space) for space in ("gradient", "update")
        }
        self._starts = {m.number: self._start(noise, m) for noise, m in self._noisy()}

    def _groups(self, space: Space) -> list[Group]:
        acting = [
            (index, method)
            for index, method in enumerate(self.methods)
            if method.space == space
            and (
                method.noise is not None or (method.modulates and method.overrides("coefficients"))
            )
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
        owned = self.modalities.owned[name]
        chosen = [each for each in owned if selector(method.selection)(each)]
        if chosen:
            return chosen  # the frozen ones too: they may be unfrozen later
        where = f"encoders['{name}']"
        leave = (
            f"or leave it out of the method's modalities: {type(method).__name__}(modalities=...)"
        )
        if owned:
            raise SetupError(
                f"{where} has {len(owned)} parameters, but none that {type(method).__name__} acts "
                f'on (parameters={method.selection!r}): choose parameters="all", {leave}'
            )
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

    def unreached(self, active: set[int]) -> list[str]:
        """Return the modalities that are acted on, but of which nothing has a gradient now.

        Args:
            active: indices of the methods that act in this epoch.
        """
        trained, reached = set(), set()
        for group in itertools.chain(*self.groups.values()):
            for member in group.members if active.intersection(group.scaling) else ():
                if member.owned.parameter.requires_grad:
                    trained.add(group.modality)
                    if member.owned.parameter.grad is not None:
                        reached.add(group.modality)
                        break
        return [self.modalities.names[index] for index in sorted(trained - reached)]

    def on_gradients(self, coefficients: Mapping[int, Tensor], active: set[int], step: int) -> None:
        """Multiply gradients by the coefficients, then add noise.

        Args:
            coefficients: by index of the method, shape ``(M,)``.
            active: indices of the methods that act in this epoch.
            step: optimizer steps so far, which the noise depends on.
        """
        wanted: list[Wanted] = []
        scaled: list[tuple[list[Tensor], Tensor]] = []
        each = {index: factors.unbind() for index, factors in coefficients.items()}
        for group in self.groups["gradient"]:
            members = [m for m in group.members if m.owned.parameter.grad is not None]
            if not members:
                continue
            gradients = [self._gradient(member.owned.parameter) for member in members]
            noise = self._noise(group, active)
            if noise is not None:
                for member in members:
                    refuse_sparse(member.owned, f"{noise} is added to whole gradients")
                wanted += [
                    Wanted(noise, member, gradient, gradient)
                    for member, gradient in zip(members, gradients, strict=True)
                ]
            scale = _scale(group, each)
            if scale is not None:
                scaled.append((gradients, scale))
        jobs = self._jobs(wanted)  # as strong as the gradient is before it is scaled
        multiply(scaled)
        self.source.add_(jobs, step)

    def before_update(
        self, parameters: set[nn.Parameter], active: set[int], cleared: Collection[str] = ()
    ) -> None:
        """Remember the parameters an optimizer is about to change, where updates are scaled.

        Args:
            parameters: what the optimizer holds.
            active: indices of the methods that act in this epoch.
            cleared: modalities whose judged gradients are there no more.
        """
        for group in self.groups["update"]:
            if self.modalities.names[group.modality] in cleared:
                continue
            if active.intersection(group.scaling):
                for member in group.members:
                    parameter = member.owned.parameter
                    if parameter in parameters and parameter.requires_grad:
                        self._snapshot[parameter] = self._real(parameter).clone()

    @torch.no_grad()
    def on_updates(self, coefficients: Mapping[int, Tensor], active: set[int], step: int) -> None:
        """Scale the update that the optimizer has just made, then add noise to it."""
        if not self.in_update_space:
            return
        jobs: list[NoiseJob] = []
        slices: list[Wanted] = []
        each = {index: factors.unbind() for index, factors in coefficients.items()}
        for group in self.groups["update"]:
            scale = _scale(group, each)
            noise = self._noise(group, active)
            for member in group.members:
                old = self._snapshot.pop(member.owned.parameter, None)
                if old is None or member.owned.parameter.grad is None:
                    continue
                parameter = self._real(member.owned.parameter)
                if noise is not None:
                    wanted = Wanted(noise, member, parameter, parameter - old)
                    if self._is_slice(member):
                        slices.append(wanted)
                    else:  # at once: all updates together would take as much as the parameters
                        jobs += self._jobs([wanted])
                if scale is not None:  # lerp, and not old + k * update: exact for k = 1
                    parameter.copy_(torch.lerp(old, parameter, scale.to(old.dtype)))
        self.source.add_([*jobs, *self._jobs(slices)], step)
        self._snapshot.clear()

    def keep(self) -> None:
        """Make permanent what the noise has learned: the optimizer has stepped."""
        self._before.clear()

    def revert(self) -> None:
        """Take back what the noise has learned from gradients that no step has used."""
        for name, values in self._before.items():
            for key, value in values.items():
                self._held(self.state[name][key]).copy_(value)
        self._before.clear()

    def forget(self) -> None:
        """Drop what was remembered of parameters that were not updated."""
        self._snapshot.clear()

    def complete_state(self) -> None:
        """Make the state of all noise that has not been drawn yet."""
        for noise, member in self._noisy():
            if member.owned.name not in self.state:
                like = as_real(member.owned.parameter.detach())
                self.state[member.owned.name] = noise.state(like)

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the state of the noise."""
        parameters = {
            owned.name: owned.parameter for of in self.modalities.owned.values() for owned in of
        }
        self.state = {
            name: {
                key: self._placed(parameters[name], value).to(parameters[name].device)
                for key, value in values.items()
            }
            for name, values in state.items()
        }

    def _noisy(self) -> Iterator[tuple[Noise, Member]]:
        """Yield the parameters that get noise."""
        for groups in self.groups.values():
            for group in groups:
                noise = None if group.noise is None else self.methods[group.noise].noise
                if noise is not None:
                    yield from ((noise, member) for member in group.members)

    def _held(self, tensor: Tensor) -> Tensor:
        """Return what this rank holds of a tensor."""
        return tensor if self.sharding is None else local(tensor)

    def _real(self, parameter: nn.Parameter) -> Tensor:
        """Return what this rank holds of a parameter; complex numbers as two real ones."""
        return as_real(self._held(parameter).detach())

    def _placed(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        return value if self.sharding is None else placed_like(parameter, value)

    def _gradient(self, parameter: nn.Parameter) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_complex() and gradient.is_conj():
            gradient = parameter.grad = gradient.resolve_conj()
        return as_real(gradient._values() if gradient.is_sparse else self._held(gradient))

    def _is_slice(self, member: Member) -> bool:
        return self.sharding is not None and self.sharding.is_slice(member.owned.parameter)

    def _start(self, noise: Noise, member: Member) -> int:
        """Return where in the flattened parameter this rank's part of it starts."""
        if self.sharding is None or not self._is_slice(member):
            return 0
        if type(noise).sliced_stds is Noise.sliced_stds:
            raise SetupError(
                f"{noise} says how strong it is for whole gradients, but the model is sharded and "
                "a rank has slices of them: give it a method sliced_stds, see equimodal.Noise"
            )
        return self.sharding.start(member.owned.name, member.owned.parameter)

    def _noise(self, group: Group, active: set[int]) -> Noise | None:
        if group.noise is None or group.noise not in active:
            return None
        return self.methods[group.noise].noise

    def _jobs(self, wanted: Sequence[Wanted]) -> list[NoiseJob]:
        """Decide how strong the noise is; of what is sliced, for all of it in one collective."""
        whole = [each for each in wanted if not self._is_slice(each.member)]
        sliced = [each for each in wanted if self._is_slice(each.member)]
        jobs = []
        if whole:
            states = [self._state(each.noise, each.member, each.source) for each in whole]
            deviations = whole[0].noise.stds([each.source for each in whole], states)
            jobs = [
                NoiseJob(each.tensor, std, each.member.number)
                for each, std in zip(whole, deviations, strict=True)
            ]
        if sliced:
            assert self.sharding is not None
            states = [
                self._state(each.noise, each.member, each.member.owned.parameter.detach())
                for each in sliced
            ]
            stds = sliced[0].noise.sliced_stds(
                [each.source for each in sliced], states, self.sharding.gather
            )
            jobs += [
                NoiseJob(
                    each.tensor,
                    std,
                    each.member.number,
                    self._starts[each.member.number],
                    each.member.owned.parameter.numel(),
                )
                for each, std in zip(sliced, stds, strict=True)
            ]
        return jobs

    def _state(self, noise: Noise, member: Member, like: Tensor) -> dict[str, Tensor]:
        """Return what this rank holds of the noise's state for a parameter, to be changed."""
        name = member.owned.name
        if name not in self.state:
            self.state[name] = noise.state(like)
        held = {key: self._held(value) for key, value in self.state[name].items()}
        if name not in self._before:
            self._before[name] = {key: value.clone() for key, value in held.items()}
        return held


def multiply(scaled: Sequence[tuple[list[Tensor], Tensor]]) -> None:
    """Multiply lists of tensors in place, each by a factor of shape ``()`` of its own.

    On a CPU an operation is a loop over tensors, and one takes all lists; elsewhere it is one
    launch where a single factor is for all of its tensors, so that each list has its own.
    """
    on_cpu = all(tensor.device.type == "cpu" for tensors, _ in scaled for tensor in tensors)
    if on_cpu and len(scaled) > 1:
        factors = [factor for tensors, factor in scaled for _ in tensors]
        torch._foreach_mul_([tensor for tensors, _ in scaled for tensor in tensors], factors)
        return
    for tensors, factor in scaled:
        torch._foreach_mul_(tensors, factor)


def _scale(group: Group, coefficients: Mapping[int, Sequence[Tensor]]) -> Tensor | None:
    factors = [coefficients[i][group.modality] for i in group.scaling if i in coefficients]
    return math.prod(factors[1:], start=factors[0]) if factors else None
