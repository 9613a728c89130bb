"""What an optimizer makes of a coefficient, seen on a small copy of it."""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from equimodal.method import Space
from equimodal.update.toys import Toy
from equimodal.update.wrappers import innermost, within

STEPS = 24
FACTOR = 0.25  # the coefficient that is tried


@dataclass(frozen=True)
class Character:
    """What of a coefficient arrives in the weights, by the space that it acts in.

    Each number is how far weights moved, along the way that they go without a coefficient, in
    units of that way.

    Attributes:
        gradient: of a constant factor 0.25 on gradients; 0.25 where nothing is cancelled.
        update: of the same on updates.
        resumed: of a factor on updates that is 0 for half of the steps, and 1 then.
        expected: what of that should arrive.
        others_gradient: how far other weights moved in the first case, 1 where they are left alone.
        others_update: in the second.
    """

    gradient: float
    update: float
    resumed: float
    expected: float
    others_gradient: float
    others_update: float

    @property
    def keeps_weights(self) -> bool:
        """Whether weights come from the state, so that a scaled update does not stay."""
        if abs(self.others_update - 1) > 0.05:  # one step size for all: compare with the others
            return abs(self.update / self.others_update / FACTOR - 1) > 0.15
        return abs(self.update / FACTOR - 1) > 0.05 or abs(self.resumed - self.expected) > 0.04

    @property
    def cancels(self) -> bool:
        """Whether a constant factor on gradients arrives as another one."""
        return not 0.7 < self.gradient / FACTOR < 1.5

    def coupling(self, spaces: Iterable[Space]) -> float | None:
        """Return how many times as far other weights move where one modality is throttled.

        Args:
            spaces: in which it is.

        Returns:
            The number that is furthest from 1; None where they move as far as without.
        """
        moved = {"gradient": self.others_gradient, "update": self.others_update}
        far = max((moved[space] for space in spaces), key=lambda each: abs(each - 1), default=1.0)
        return far if abs(far - 1) > 0.05 else None


def character(optimizer: Any) -> Character | None:
    """Try an optimizer out on copies with two small parameters.

    The optimizer is not touched, and random numbers are drawn as if nothing had happened.

    Args:
        optimizer: the user's, with its wrappers.

    Returns:
        None where a copy cannot be made, or does not step by gradients alone.
    """
    key = _key(optimizer)
    if key not in _KNOWN:
        _KNOWN[key] = _tried_out(optimizer)
    return _KNOWN[key]


_KNOWN: dict[str, Character | None] = {}


def _key(optimizer: Any) -> str:
    """Spell the classes and settings that decide how an optimizer behaves."""
    plain = (bool, int, float, str, type(None))
    spelt = [
        f"{type(each).__module__}.{type(each).__qualname__} "
        f"{sorted((k, v) for k, v in vars(each).items() if isinstance(v, plain))}"
        for each in within(optimizer)
    ]
    for group in optimizer.param_groups:
        kinds = {(min(p.ndim, 2), p.dtype, p.device) for p in group["params"]}
        spelt.append(f"{sorted(map(str, kinds))} { {k: group[k] for k in group if k != 'params'} }")
    return "; ".join(spelt)


def _tried_out(optimizer: Any) -> Character | None:
    if any(_communicates(each) for each in within(optimizer)):
        return None  # a copy would wait for other ranks
    inner = innermost(optimizer)
    for closure in (False, True):
        with contextlib.suppress(Exception), _undisturbed(optimizer):
            found = _tried(optimizer, closure)
            if any(p.dtype in HALF for group in optimizer.param_groups for p in group["params"]):
                coarse = _tried(optimizer, closure, coarse=True)
                found = replace(
                    found, update=coarse.update, resumed=coarse.resumed, expected=coarse.expected
                )
            if inner is optimizer:
                return found
            # What is wrapped around an optimizer makes of a scaled update what it makes of any:
            # whether a scaled one stays is up to the optimizer within.
            alone = _tried(inner, closure=False)
            return replace(found, resumed=alone.resumed, expected=alone.expected)
    return None if inner is optimizer else character(inner)


def _communicates(optimizer: Any) -> bool:
    """Whether a step of an optimizer calls other ranks."""
    kind = type(optimizer)
    return kind.__module__.startswith("torch.distributed") or "Distributed" in kind.__name__


HALF = (torch.float16, torch.bfloat16)


def _tried(optimizer: Any, closure: bool, coarse: bool = False) -> Character:
    def way(on_gradients: float, on_updates: Callable[[int], float]) -> tuple[Tensor, Tensor]:
        toy = Toy(optimizer, decays=False, coarse=coarse)
        return _way(toy, on_gradients, on_updates, closure)

    def share(moved: Tensor, whole: Tensor, since: int = 0) -> float:
        of, all_of = moved[-1] - moved[since], whole[-1] - whole[since]
        return float(of @ all_of) / float(all_of @ all_of)

    plain, others = way(1.0, lambda step: 1.0)
    whole = plain[-1] - plain[0]
    done = (plain - plain[0]) @ whole / (whole @ whole)
    again = int((done[:-1] >= 0.5).nonzero()[0]) if (done[:-1] >= 0.5).any() else STEPS // 2
    gradient, others_gradient = way(FACTOR, lambda step: 1.0)
    update, others_update = way(1.0, lambda step: FACTOR)
    resumed, _ = way(1.0, lambda step: float(step >= again))
    found = Character(
        gradient=share(gradient, plain, STEPS // 2),
        update=share(update, plain),
        resumed=share(resumed, plain),
        expected=1 - float(done[again]),
        others_gradient=share(others_gradient, others),
        others_update=share(others_update, others),
    )
    if _alone(Toy(optimizer)):
        found = replace(found, others_gradient=1.0, others_update=1.0)
    if not all(math.isfinite(value) for value in vars(found).values()):
        raise ValueError("nothing moved")
    return found


def _alone(toy: Toy) -> bool:
    """Whether there is no other of the shape of the first to be moved beside it."""
    throttled, *beside = toy.parameters
    return all(other.shape != throttled.shape for other in beside)


def _way(
    toy: Toy, on_gradients: float, on_updates: Callable[[int], float], closure: bool
) -> tuple[Tensor, Tensor]:
    """Return where two parameters of a copy are after each step, shape ``(STEPS + 1, N)``.

    The first is throttled, the second is not. The last place is the one of evaluation.
    """
    throttled, *beside = toy.parameters
    other = next((p for p in beside if p.shape == throttled.shape), throttled)
    generator = torch.Generator().manual_seed(1)
    constant = [torch.randn(p.shape, generator=generator) for p in toy.parameters]
    places: list[Sequence[Tensor]] = [[p.detach().clone() for p in (throttled, other)]]

    def now() -> int:
        return len(places) - 1

    def fill() -> Tensor:
        draws = torch.Generator().manual_seed(2 + now())
        for parameter, gradient in zip(toy.parameters, constant, strict=True):
            noise = 0.3 * torch.randn(parameter.shape, generator=draws)
            factor = on_gradients if parameter is throttled else 1.0
            steady = gradient if parameter is throttled else gradient + noise
            parameter.grad = (factor * steady).to(parameter)
        return torch.zeros((), device=throttled.device)

    before = throttled.detach().clone()

    def remember(*_: Any) -> None:
        before.copy_(throttled.detach())

    def scale(*_: Any) -> None:
        with torch.no_grad():
            throttled.copy_(torch.lerp(before, throttled, on_updates(now())))

    hooked = innermost(toy.optimizer)
    hooked.register_step_pre_hook(remember)
    hooked.register_step_post_hook(scale)
    _switch(toy.optimizer, "train")
    for _ in range(STEPS):
        fill()
        toy.optimizer.step(*[fill] if closure else [])
        places.append([p.detach().clone() for p in (throttled, other)])
    _switch(toy.optimizer, "eval")
    places[-1] = [p.detach().clone() for p in (throttled, other)]
    first, second = (
        torch.stack([p.double().flatten() for p in of]) for of in zip(*places, strict=True)
    )
    return first, second


def _switch(optimizer: Any, mode: str) -> None:
    """Call `train()` or `eval()` of an optimizer with weights for each, also within wrappers."""
    for each in within(optimizer):
        switch = getattr(each, mode, None)
        if callable(switch):
            switch()
            return


def _accelerators(optimizer: Any) -> list[torch.device]:
    devices = {p.device for group in optimizer.param_groups for p in group["params"]}
    return [device for device in devices if device.type == "cuda"]


@contextlib.contextmanager
def _undisturbed(optimizer: Any) -> Iterator[None]:
    """Draw and say nothing that anybody else would notice, and compile nothing."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(_accelerators(optimizer)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if (
            "torch._dynamo" in sys.modules
        ):  # some optimizers compile their step, which takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield
