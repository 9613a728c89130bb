"""Coefficients, noise and freezing on a trunk that modalities share, by the tokens of each."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.attach.tokens import TokenReader, Tokens
from equimodal.errors import StepError
from equimodal.method import Method
from equimodal.modalities import Modalities, OwnedParameter, selector
from equimodal.noise import NoiseJob, NoiseSource
from equimodal.system import ranks
from equimodal.system.late import Late

ALIKE = 1e-3  # of factors: those of one clipping, or one unscaling, differ by rounding alone


class _Scaled(NamedTuple):
    """Parameters that the same methods act on, and a number for the noise of each."""

    methods: tuple[int, ...]
    members: list[tuple[int, OwnedParameter]]


class Trunk:
    """Exchanges gradients of a shared trunk for a weighted sum of what its tokens brought.

    Always in the space of gradients, also for methods that scale updates elsewhere: an optimizer
    makes one update of the gradients of all tokens, which no longer falls into parts. A factor that
    all modalities share cancels under Adam; how they differ does not.

    Args:
        tokens: what the user says.
        model: without the wrapper for several ranks.
        modalities: the encoders.
        methods: those that compose.
        source: of the noise.
        handles: hooks are noted here, for whoever takes them off.
    """

    def __init__(
        self,
        tokens: Tokens,
        model: nn.Module,
        modalities: Modalities,
        methods: Sequence[Method],
        source: NoiseSource,
        handles: list[RemovableHandle],
    ) -> None:
        self.reader = TokenReader(tokens, model, modalities, handles)
        self._names, self._methods, self._source = modalities.names, methods, source
        self._changed, self._stray = Late(self._refuse_changed), Late(self._refuse_stray)
        self._norms: tuple[list[nn.Parameter], Tensor] | None = None
        self._first = sum(map(len, modalities.owned.values()))  # of the numbers of the noise
        groups: dict[tuple[int, ...], list[tuple[int, OwnedParameter]]] = {}
        for number, member in enumerate(self.reader.members):
            groups.setdefault(self._acting(member), []).append((number, member))
        self._groups = [_Scaled(*group) for group in groups.items()]

    def _acting(self, member: OwnedParameter) -> tuple[int, ...]:
        return tuple(
            index
            for index, method in enumerate(self._methods)
            if (method.noise is not None or (method.modulates and method.overrides("coefficients")))
            and selector(method.selection)(member)
        )

    def forget(self) -> None:
        """Drop what was separated: the gradients that it is part of are no more."""
        self.reader.forget()
        self._norms = None

    # ------------------------------------------------------------------ with the gradients

    @contextlib.contextmanager
    def backward(self) -> Iterator[None]:
        """Separate the backward pass that runs within a `with` block."""
        self._drop_cleared()
        self._follow()
        parts = self.reader.parts
        there = [m for m in self.reader.members if m.parameter.grad is not None]
        called = [m.parameter for m in there if m.layer in self.reader.called]
        stray = [parameter for parameter in called if parameter not in parts]
        if stray:  # of zeros, where gradients are not set to None
            self._stray.note((_norms(stray) > 0).any()[None].float())
        self.reader.open = True
        try:
            yield
        finally:
            self.reader.open = False
        parameters = [p for p in self.reader.parts if p.grad is not None]
        self._norms = (parameters, _norms(parameters)) if parameters else None

    def _drop_cleared(self) -> None:
        parts = self.reader.parts
        for parameter in [p for p in parts if p.grad is None]:
            del parts[parameter]

    def _follow(self) -> None:
        """Multiply the parts by what the loop has multiplied the gradients by since.

        Raises:
            StepError: it did something else to them.
        """
        self._changed.settle()
        self._stray.settle()
        if self._norms is None:
            return
        (parameters, before), self._norms = self._norms, None
        now = _norms(parameters)
        factors = torch.where(before > 0, now / before, torch.nan)
        factor = factors.nanmean()
        usable = factor.isfinite()
        apart = ((factors - factor).abs() > ALIKE * factor.abs()).any() & usable
        self._changed.note(apart[None].float())
        torch._foreach_mul_(
            [self.reader.parts[p] for p in parameters], torch.where(usable, factor, 1.0)
        )

    def _refuse_changed(self, flags: list[float]) -> None:
        if any(flags):
            raise StepError(
                "balancer.modulate: gradients of the trunk were changed since balancer.backward by "
                "more than one factor, and their parts by tokens cannot follow: clip by value or "
                "add to them after balancer.modulate(), or add to the loss"
            )

    def _refuse_stray(self, flags: list[float]) -> None:
        if any(flags):
            raise StepError(
                "balancer.backward: the trunk has gradients of another backward pass, and nothing "
                "tells whose tokens they came through: add that loss to what balancer.loss "
                "returns, or call optimizer.zero_grad() after it"
            )

    # ------------------------------------------------------------------ once per step

    def settle(self, group: dist.ProcessGroup | None) -> list[str]:
        """Follow the loop's factor and average over ranks; return what could not be separated.

        Args:
            group: ranks that train together.

        Returns:
            Names of parameters that have a gradient, while their layer was not called as a module.
        """
        self._drop_cleared()
        self._follow()
        parts = self.reader.parts
        trained = [m for m in self.reader.members if m.parameter.requires_grad]
        if ranks.world_size(group) > 1 and trained:
            seen = torch.tensor(
                [float(m.parameter in parts) for m in trained], device=trained[0].parameter.device
            )
            flags = ranks.gather(seen, group).amax(dim=0).tolist()
            trained = [m for m, flag in zip(trained, flags, strict=True) if flag]
            count = len(self.reader.named)
            for member in trained:
                p = member.parameter
                if p not in parts:
                    parts[p] = p.new_zeros(count, *p.shape)
            ranks.average_([parts[member.parameter] for member in trained], group)
        members = self.reader.members
        return [
            m.name for m in members if m.parameter.grad is not None and m.parameter not in parts
        ]

    def norms(self) -> dict[str, Tensor]:
        """Return the norm of what the tokens of each modality brought to the gradient."""
        there = [p for p in self.reader.parts if p.grad is not None]
        if not there:
            return {}
        of = {name: self._part(name, there) for name in self._told()}
        return {
            f"trunk_norm/{name}": torch.linalg.vector_norm(torch.stack(torch._foreach_norm(each)))
            for name, each in of.items()
        }

    def on_gradients(
        self,
        coefficients: Mapping[int, Tensor],
        active: set[int],
        frozen: Collection[str],
        step: int,
    ) -> None:
        """Weigh what the tokens of each modality brought, then add noise.

        Args:
            coefficients: by index of the method, shape ``(M,)``.
            active: indices of the methods that act in this epoch.
            frozen: modalities whose tokens do not train the trunk in this step; of all of them
                together it is left alone.
            step: optimizer steps so far, which the noise depends on.
        """
        everything = set(frozen) >= set(self._names)
        jobs: list[NoiseJob] = []
        for methods, members in self._groups:
            there = [
                (number, m)
                for number, m in members
                if m.parameter in self.reader.parts and m.parameter.grad is not None
            ]
            if there and not everything:
                jobs += self._noise(set(methods) & active, there)
                self._weigh(self._factors(methods, coefficients, frozen), [m for _, m in there])
            elif everything:
                for _, member in members:
                    member.parameter.grad = None
        self._source.add_(jobs, step)
        self.forget()

    def _factors(
        self, methods: Sequence[int], coefficients: Mapping[int, Tensor], frozen: Collection[str]
    ) -> dict[str, Tensor | float]:
        """Return the factor of every modality on which something acts."""
        factors: dict[str, Tensor | float] = {}
        for position, name in enumerate(self._names):
            of = [
                coefficients[i][position]
                for i in methods
                if i in coefficients and self._acts(self._methods[i], name)
            ]
            if name in frozen:
                factors[name] = 0.0
            elif of:
                factors[name] = math.prod(of[1:], start=of[0])
        return factors

    def _weigh(self, factors: Mapping[str, Tensor | float], members: list[OwnedParameter]) -> None:
        if not factors:
            return
        gradients: list[Tensor] = [m.parameter.grad for m in members]  # type: ignore[misc]
        base = 1.0 if self.reader.others is None else factors.get(self.reader.others, 1.0)
        torch._foreach_mul_(gradients, base)
        for position, name in enumerate(self.reader.named):
            more = factors.get(name, 1.0) - base
            parts = [self.reader.parts[m.parameter][position] for m in members]
            torch._foreach_add_(gradients, torch._foreach_mul(parts, more))

    def _noise(
        self, methods: set[int], members: Sequence[tuple[int, OwnedParameter]]
    ) -> list[NoiseJob]:
        """Decide how strong noise is: as the part of each modality is, before it is weighed."""
        noisy = [self._methods[i] for i in sorted(methods) if self._methods[i].noise is not None]
        jobs = []
        for name in self._told() if noisy else ():
            if not self._acts(noisy[0], name):
                continue
            assert noisy[0].noise is not None
            parts = self._part(name, [member.parameter for _, member in members])
            position = self._names.index(name)
            for (number, member), part in zip(members, parts, strict=True):
                assert member.parameter.grad is not None
                place = self._first + number * len(self._names) + position
                std = noisy[0].noise.std(part, {})
                jobs.append(NoiseJob(member.parameter.grad, std, place))
        return jobs

    def _told(self) -> list[str]:
        """Return the modalities whose tokens are known, in the order of the encoders."""
        return [n for n in self._names if n in self.reader.named or n == self.reader.others]

    def _part(self, name: str, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Return what the tokens of a modality brought to gradients."""
        parts = [self.reader.parts[parameter] for parameter in parameters]
        if name in self.reader.named:
            return [part[self.reader.named.index(name)] for part in parts]
        gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
        return list(torch._foreach_sub(gradients, [part.sum(0) for part in parts]))

    @staticmethod
    def _acts(method: Method, name: str) -> bool:
        return method.modalities is None or name in method.modalities


def _norms(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norms of gradients, shape ``(P,)``, 0 where there is none any more."""
    gradients = [p.new_zeros(()) if p.grad is None else p.grad for p in parameters]
    return torch.stack(torch._foreach_norm(gradients)).float()
