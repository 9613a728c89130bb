"""Several methods as one: what composes is composed, what cannot is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.composing.holding import refuse_held
from equimodal.composing.refusals import refuse_conflicts, refuse_others, refuse_unmet
from equimodal.errors import MatchError
from equimodal.evidence import Evidence, Measured
from equimodal.method import Method, Need, Order
from equimodal.modalities import Modalities
from equimodal.planning import refuse_length
from equimodal.readout import move
from equimodal.step import Shapes, Step
from equimodal.update.own import OwnOptimizer
from equimodal.update.substeps import SubSteps


class Composition:
    """Methods in a fixed order, whatever order they were given in.

    Loss terms add up, coefficients and gates multiply, noise is drawn once.

    Args:
        methods: one method or several.
        names: the modalities.
        seed: for everything random that the methods do.
        supplied: which needs the balancer can meet.
        epochs: how many there will be in all, where that is known.

    Raises:
        SetupError: the methods exclude each other, need what is not there, or one is in use.
    """

    def __init__(
        self,
        methods: Method | Sequence[Method],
        names: tuple[str, ...],
        seed: int,
        supplied: frozenset[Need],
        epochs: int | None = None,
    ) -> None:
        given: list[Any] = list(methods) if isinstance(methods, tuple | list) else [methods]
        refuse_others(given)
        refuse_held(given)
        self.methods: list[Method] = sorted(given, key=lambda method: method.name)
        self.names = names
        refuse_length(epochs)
        for method in self.methods:
            method.plan(epochs)
        refuse_conflicts(self.methods, names)
        refuse_unmet(self.methods, supplied)
        for method in self.methods:
            method.bind(names, seed)

    def __iter__(self) -> Iterator[Method]:
        return iter(self.methods)

    def active(self, epoch: int) -> list[tuple[int, Method]]:
        """Return the methods that act in an epoch, with their positions."""
        return [(i, m) for i, m in enumerate(self.methods) if m.acts(epoch)]

    def any(self, hook: str) -> bool:
        """Whether any method has a hook of its own."""
        return any(method.overrides(hook) for method in self.methods)

    def needs(self, need: Need) -> bool:
        """Whether any method needs this."""
        return any(need in method.needs for method in self.methods)

    def owner(self, hook: str) -> Method | None:
        """Return the one method that has a hook of its own, if any."""
        return next((method for method in self.methods if method.overrides(hook)), None)

    def attach(self, model: nn.Module, modalities: Modalities) -> list[RemovableHandle]:
        """Let every method put hooks of its own on the model; none is left if one refuses it."""
        handles: list[RemovableHandle] = []
        try:
            for method in self.methods:
                handles += method.attach(model, modalities)
        except BaseException:
            for handle in handles:
                handle.remove()
            raise
        return handles

    def build(self, shapes: Shapes) -> None:
        """Let every method make its modules, on the device of the features."""
        for method in self.methods:
            method.build(shapes)
            move(method, shapes.device)

    def equip(self, own: OwnOptimizer, group: dist.ProcessGroup | None) -> set[nn.Parameter]:
        """Let methods take parameters that they step themselves, and return those."""
        taken: set[nn.Parameter] = set()
        for method in self.methods:
            if method.overrides("equip"):
                steps = SubSteps(own, group)
                method.equip(steps)
                taken.update(steps.parameters)
        return taken

    def order(self, samples: int, epoch: int) -> Order | None:
        """Return the order of the one method that has one."""
        owner = self.owner("order")
        return None if owner is None or not owner.acts(epoch) else owner.order(samples, epoch)

    def gate(self, features: Mapping[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Return the product of all gates."""
        factors: dict[str, Tensor] = {}
        for _, method in self.active(epoch):
            for name, factor in method.gate(features).items():
                factors[name] = factors[name] * factor if name in factors else factor
        return factors

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return all terms of the loss: the methods', and the user's unless one replaces it."""
        terms: dict[str, Tensor] = {}
        for _, method in self.active(step.epoch):
            for name, term in method.objective(step).items():
                if term.ndim:
                    raise MatchError(
                        f"{type(method).__name__}.objective: expected the term {name!r} to have "
                        f"shape (), found {tuple(term.shape)}"
                    )
                terms["joint" if name == "joint" else f"{method.name}/{name}"] = term
        return terms if "joint" in terms else {"joint": step.joint, **terms}

    def measure(self, step: Step) -> dict[str, Measured]:
        """Return what every method measures, by the name of the method."""
        return {
            method.name: {k: v.detach() for k, v in method.measure(step).items()}
            for _, method in self.active(step.epoch)
            if method.overrides("measure")
        }

    def coefficients(self, evidence: Mapping[str, Evidence], epoch: int) -> dict[int, Tensor]:
        """Return the coefficients of every acting method by its position, shape ``(M,)`` each."""
        coefficients = {}
        for index, method in self.active(epoch):
            if method.overrides("coefficients"):
                factors = method.coefficients(evidence.get(method.name, evidence[""]))
                if factors is not None:
                    coefficients[index] = factors
        return coefficients

    def frozen(self, epoch: int) -> set[str]:
        """Return whose parameters any method freezes: names of modalities, `REST` among them."""
        return {name for _, method in self.active(epoch) for name in method.frozen()}

    def adjust(self, modalities: Modalities, evidence: Mapping[str, Evidence], epoch: int) -> None:
        """Let methods change gradients in place."""
        for _, method in self.active(epoch):
            if method.overrides("adjust"):
                for name in self.names:
                    of = evidence.get(method.name, evidence[""])
                    method.adjust(name, modalities.trainable(name), of)

    def commit(self, epoch: int) -> None:
        """The optimizer has stepped."""
        for _, method in self.active(epoch):
            method.commit()


def modules_of(*owners: nn.Module | Composition) -> list[nn.Parameter]:
    """Return the parameters of methods and scores, each once."""
    found: dict[nn.Parameter, None] = {}
    for owner in owners:
        parts = owner.methods if isinstance(owner, Composition) else [owner]
        for part in parts:
            found.update(dict.fromkeys(part.parameters()))
    return list(found)
