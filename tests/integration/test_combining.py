"""Methods that combine the gradients of single loss terms: where, when and with what they do."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.method import REST
from support.worlds import World, batch, train, weights


class Halves(eq.Method):
    """Two terms of half the loss each; the second counts `factor` times, as the evidence says."""

    name = "halves"
    replaces_joint = True

    def __init__(self, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window = window
        self.factor = torch.tensor(torch.nan)
        self.parts: list[str] = []

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        zero = step.logits.new_zeros(())
        return {"joint": zero, "first": step.joint / 2, "second": step.joint / 2}

    def measure(self, step: eq.Step) -> dict[str, Tensor]:
        return {"samples": torch.tensor(float(step.size))}

    def coefficients(self, evidence: eq.Evidence) -> None:
        self.factor = evidence.measured["samples"] / 4

    def combine(self, modality: str, gradients: Mapping[str, list[Tensor]]) -> list[Tensor]:
        self.parts.append(modality)
        pairs = zip(gradients["first"], gradients["second"], strict=True)
        return [a + self.factor * b for a, b in pairs]


class Everywhere(Halves):
    combines_rest = True


def plain_gradients(world: World, *batch: Tensor) -> list[Tensor]:
    *inputs, target = batch
    loss = nn.functional.cross_entropy(world.model(*inputs), target)
    return list(torch.autograd.grad(loss, list(world.model.parameters())))


@pytest.mark.parametrize("kind", [Halves, Everywhere])
def test_the_rest_is_combined_where_a_method_asks_for_it(kind: type[Halves]) -> None:
    """And the coefficients were decided before, from the evidence of all micro-batches."""
    world = World()
    method = kind()
    expected = plain_gradients(world, *batch(12))
    balancer = world.balance(method)
    for part in zip(*(t.chunk(3) for t in batch(12)), strict=True):
        *inputs, target = part
        balancer.backward(balancer.loss(world.model(*inputs), target) / 3)
    balancer.modulate()
    assert method.parts == ["audio", "visual", *([REST] if kind is Everywhere else [])]
    within = {p for encoder in world.encoders.values() for p in encoder.parameters()}
    for parameter, plain in zip(world.model.parameters(), expected, strict=True):
        factor = 2.0 if kind is Everywhere or parameter in within else 1.0  # (1 + 12 / 4) / 2
        torch.testing.assert_close(parameter.grad, factor * plain)


def test_a_method_that_only_takes_note_suits_a_frozen_encoder() -> None:
    class Notes(Everywhere):
        modulates = False

    for kind in (Everywhere, Notes):
        world = World()
        world.encoders["audio"].requires_grad_(False)
        if kind is Everywhere:
            with pytest.warns(eq.BalanceWarning, match="has no trainable parameter"):
                train(world.balance(kind()), [batch(12)])
        else:
            train(world.balance(kind()), [batch(12)])


def test_gradients_of_a_step_without_modulate_are_dropped_with_its_evidence() -> None:
    world = World()
    balancer = world.balance(Everywhere())
    *inputs, target = batch(12)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    with pytest.warns(eq.BalanceWarning, match="modulate"):
        world.optimizer.step()
    world.optimizer.zero_grad()
    expected = plain_gradients(world, *batch(12))
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    for parameter, plain in zip(world.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * plain)  # (1 + 12 / 4) / 2


def test_outside_of_its_window_nothing_is_combined() -> None:
    world, plain = World(), World()
    method = Everywhere(window=(1, 1))
    balancer = world.balance(method)
    train(balancer, [batch(12)])
    train(plain.balance(eq.Joint()), [batch(12)])
    assert method.parts == []
    assert torch.equal(weights(world.model), weights(plain.model))
    balancer.end_epoch()
    train(balancer, [batch(12)])
    assert method.parts == ["audio", "visual", REST]
