"""Coefficients that an optimizer would not let through: said, or refused, before training."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import torch

from equimodal.errors import SetupError, warn
from equimodal.method import Method, Space
from equimodal.update.modulation import Modulation
from equimodal.update.optimizers import Optimizer, held
from equimodal.update.probing import FACTOR, Character, character
from equimodal.update.wrappers import outermost, within

# What recomputes weights, where no copy can be made to see it.
KEEPERS = ("lookahead", "schedulefree", "madgrad", "master")


def judge(optimizers: Sequence[Optimizer], modulation: Modulation) -> None:
    """Try out what each optimizer makes of the coefficients that methods will give it.

    Optimizers that cancel a constant factor on gradients are said, with the mend; so are those in
    which throttling one modality moves the others. What scales updates is refused where the
    optimizer takes the weights from its state, so that a scaled update does not stay.

    Args:
        optimizers: the user's, each the innermost of its wrappers.
        modulation: which methods act on which parameters.

    Raises:
        SetupError: a method acts on updates that do not stay.
    """
    for optimizer in optimizers:
        whole = outermost(optimizer)
        acting = {
            space: list(_acting(modulation, space, optimizer, optimizers)) for space in SPACES
        }
        if not any(acting.values()):
            continue
        seen = character(whole)
        if seen is None:
            _unseen(whole, acting["update"])
            continue
        name = type(whole).__name__
        for method in acting["update"]:
            if seen.keeps_weights:
                raise SetupError(_kept(name, method, seen))
        for method in acting["gradient"]:
            if seen.cancels and method.graded:
                warn(_cancelled(name, method, seen))
        far = seen.coupling(space for space in SPACES if acting[space])
        if far is not None:
            warn(
                f"{name} finds its step size from all parameters together: where one encoder is "
                f"throttled, the others move differently too ({far:.2f} times as far in a trial). "
                "Use an optimizer with a learning rate of its own, such as torch.optim.AdamW with "
                'space="update"'
            )


SPACES: tuple[Space, ...] = ("gradient", "update")


def _acting(
    modulation: Modulation, space: Space, optimizer: Optimizer, optimizers: Sequence[Optimizer]
) -> Iterator[Method]:
    """Yield the methods that put coefficients on what an optimizer holds, or may be given later."""
    of_it = held(optimizer)
    others = held(*optimizers) - of_it  # what none holds may be added to any
    acting: set[int] = set()
    for group in modulation.groups[space]:
        if any(member.owned.parameter not in others for member in group.members):
            acting.update(group.scaling)
    for index in sorted(acting):
        method = modulation.methods[index]
        if method.modulates and method.overrides("coefficients"):
            yield method


def _spelt(method: Method) -> str:
    """Return how a method is written with the other space, if it takes one."""
    takes = "space" in inspect.signature(type(method).__init__).parameters
    return f'{type(method).__name__}(space="update")' if takes else ""


def _cancelled(name: str, method: Method, seen: Character) -> str:
    mend = _spelt(method)
    do = (
        f"give {mend}, which scales what the optimizer makes of the gradient"
        if mend and not seen.keeps_weights
        else "use an optimizer that follows the size of the gradient, such as torch.optim.SGD"
    )
    return (
        f"{name} does not follow the size of gradients: of a constant coefficient {FACTOR} of "
        f"{type(method).__name__}, {seen.gradient:.2f} arrives in the weights. To have it act, {do}"
    )


def _kept(name: str, method: Method, seen: Character) -> str:
    gradients = (
        'space="gradient" arrives as it should'
        if not seen.cancels
        else "use an optimizer that keeps none, such as torch.optim.AdamW, or one with the average "
        "wrapped around it, such as schedulefree.ScheduleFreeWrapper(torch.optim.AdamW(...))"
    )
    return (
        f"{type(method).__name__} scales updates, and {name} takes the weights from its own state, "
        f"so that a scaled update does not stay (of a coefficient {FACTOR}, {seen.update:.2f} "
        f"arrived in a trial; of an update that was left out, "
        f"{_share(seen):.0%} came back): {gradients}"
    )


def _share(seen: Character) -> float:
    """Return how much of what was left out has arrived all the same."""
    return (seen.resumed - seen.expected) / max(1 - seen.expected, 1e-6)


def _unseen(optimizer: object, scaling: Sequence[Method]) -> None:
    """No copy could be tried out: go by the name."""
    names = [type(each).__name__ for each in within(optimizer)]
    for method in scaling:
        if any(keeper in name.lower() for name in names for keeper in KEEPERS):
            raise SetupError(
                f"{type(method).__name__} scales updates, and {names[0]} takes the weights from "
                'its own state, so that a scaled update does not stay: use space="gradient", or '
                "an optimizer that keeps no weights, such as torch.optim.AdamW"
            )
        if not isinstance(optimizer, torch.optim.Optimizer) or _foreign(optimizer):
            warn(
                f"{names[0]} could not be tried out on a small copy: whether a scaled update stays "
                "is told by update_ratio in balancer.metrics(), with track_every=1"
            )


def _foreign(optimizer: object) -> bool:
    return not type(optimizer).__module__.startswith("torch.")
