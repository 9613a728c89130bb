"""A dry run that says what the balancer found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from equimodal.attach.features import Layout
from equimodal.loop.parts import Parts
from equimodal.scores import Auto, evaluation
from equimodal.update.optimizers import held


@dataclass(frozen=True)
class ModalityCheck:
    """What was found of one modality.

    Attributes:
        name: of the modality.
        modules: class names of its encoder modules.
        parameters: how many numbers its encoder alone holds.
        trainable: how many of them require a gradient.
        modulated: on how many of them the methods act.
        untrained: how many of those that require a gradient are in no optimizer.
        feature: shape of its feature in the batch.
    """

    name: str
    modules: tuple[str, ...]
    parameters: int
    trainable: int
    modulated: int
    feature: tuple[int, ...]
    untrained: int = 0


@dataclass(frozen=True)
class Check:
    """What `Balancer.check` found; as a string, a page to read."""

    modalities: tuple[ModalityCheck, ...]
    shared: tuple[str, ...]
    head: str
    layout: Layout
    logits: tuple[int, ...]
    scores: str
    cost: str
    methods: tuple[str, ...]

    def __str__(self) -> str:
        width = max(len(m.name) for m in self.modalities) + 2
        lines = ["equimodal check"]
        for m in self.modalities:
            left = f", {m.untrained:,} in no optimizer" if m.untrained else ""
            lines += [
                f"  {m.name:<{width}}{', '.join(m.modules)}",
                f"  {'':<{width}}{m.parameters:,} parameters, {m.trainable:,} trainable{left}, "
                f"{m.modulated:,} modulated",
                f"  {'':<{width}}feature {m.feature}",
            ]
        if self.shared:
            lines.append(f"  shared, never modulated: {len(self.shared)} parameters")
            lines += [f"    {name}" for name in self.shared[:5]]
            lines += ["    ..."] if len(self.shared) > 5 else []
        features = self.layout if self.head != "none" else "as the encoders returned them"
        lines += [
            f"  head    {self.head}, features {features}",
            f"  logits  {self.logits}",
            f"  scores  {self.scores}: {self.cost}",
            *(f"  method  {method}" for method in self.methods),
        ]
        return "\n".join(lines)


def checked(parts: Parts, batch: Any) -> Check:
    """Run the model once on a batch, in evaluation mode, and say what was found.

    Parameters, gradients, running statistics and random state are left as they were.
    """
    attached = parts.attached

    def run() -> tuple[Any, ...]:
        return parts.forward(attached.model, batch)

    with torch.random.fork_rng(), evaluation(attached.model), torch.no_grad():
        step = attached.observe(run)
        if isinstance(parts.scores, Auto):
            _ = step.unimodal
    modulated, trained = parts.modulation.members(), held(*parts.optimizers)
    modalities = tuple(
        ModalityCheck(
            name=name,
            modules=tuple(type(m).__name__ for m in attached.modalities.modules[name]),
            parameters=sum(o.parameter.numel() for o in attached.modalities.owned[name]),
            trainable=sum(o.parameter.numel() for o in attached.modalities.trainable(name)),
            modulated=sum(
                owned.parameter.numel()
                for owned in attached.modalities.trainable(name)
                if owned.name in modulated
            ),
            feature=tuple(step.features[name].shape),
            untrained=sum(
                owned.parameter.numel()
                for owned in attached.modalities.trainable(name)
                if owned.parameter not in trained
            ),
        )
        for name in attached.names
    )
    chosen: Any = parts.scores.chosen if isinstance(parts.scores, Auto) else parts.scores
    assert attached.layout is not None
    return Check(
        modalities=modalities,
        shared=attached.modalities.shared,
        head="none" if attached.head is None else type(attached.head).__name__,
        layout=attached.layout,
        logits=tuple(step.logits.shape),
        scores=f"{type(chosen).__name__}({chosen.extra_repr()})".removesuffix("()"),
        cost=chosen.cost,
        methods=tuple(_describe(method) for method in parts.methods),
    )


def _describe(method: Any) -> str:
    can = method.capabilities
    return (
        f"{method.name}: extra forwards {can.forwards}, extra backwards {can.backwards}, "
        f"accumulation {can.accumulation}"
    )
