"""Every method passes the public conformance kit, and the kit notices methods that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import equimodal as eq
from equimodal import testing
from equimodal.epochs.run import Run
from support.settings import METHODS, VARIANTS


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_ours(name: str, check: Callable[[Any], None]) -> None:
    check({**METHODS, **VARIANTS}[name])


class Flawed(eq.Method):
    """Right in everything; its subclasses break one rule each."""

    name = "flawed"

    def build(self, shapes: eq.Shapes) -> None:
        self.register_buffer("memory", torch.zeros((), dtype=shapes.dtype))

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        squares = [feature.square().mean() for feature in step.features.values()]
        return {"extra": 1e-2 * (1 + self.memory) * torch.stack(squares).sum()}

    def end_epoch(self, run: Run) -> None:
        self.memory += 1


class Exploding(Flawed):
    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        return {"extra": torch.nan * step.logits.sum()}


class Random(Flawed):
    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        return {"extra": torch.rand(()) * step.logits.square().mean()}


class Forgetful(Flawed):
    def build(self, shapes: eq.Shapes) -> None:
        self.memory = torch.zeros((), dtype=shapes.dtype)  # no buffer: not in the state


class PerBatch(Flawed):
    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        return {"extra": step.logits.sum(0).square().sum()}


class Careless(Flawed):
    """Declares that it refuses accumulation, which the balancer then does: that is right."""

    capabilities = eq.Capabilities(accumulation="refused")


class Misshapen(Flawed):
    def predict(self, step: eq.Step) -> Tensor:
        return step.logits[:, :1]


class RankDependent(Flawed):
    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        self.memory += step.logits.detach().sum()
        return super().objective(step)


class OverPresent(Flawed):
    """Means over those that have a modality, which micro-batches have unlike often."""

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        own = step.criterion.per_sample(step.logits, step.target)
        there = step.present.get("audio", torch.ones(step.size, dtype=torch.bool))
        return {"extra": (own * there).sum() / there.sum().clamp(min=1)}


class Rewriting(Flawed):
    def end_epoch(self, run: Run) -> None:
        for owned in run.parameters("audio"):
            owned.parameter.data.mul_(0.9)


class Voting(Flawed):
    """What predicts changes when training ends."""

    def end_epoch(self, run: Run) -> None:
        self.memory += 1

    def predict(self, step: eq.Step) -> Tensor:
        return step.logits * (1 + self.memory)


class FirstCounts(Flawed):
    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        return {"extra": step.features[step.names[0]].square().mean()}


def test_a_method_without_flaw_passes() -> None:
    for check in testing.CHECKS:
        check(Flawed)
    testing.accumulates(Careless)


@pytest.mark.parametrize(
    ("check", "make", "said"),
    [
        (testing.trains, Exploding, "NaN"),
        (testing.repeats, Random, "generators of your own"),
        (testing.resumes, Forgetful, "register state as buffers"),
        (testing.accumulates, PerBatch, "per micro-batch"),
        (testing.counts_every_sample_alike, OverPresent, "over all samples"),
        (testing.on_two_ranks, OverPresent, "over all samples"),
        (testing.ends_as_trained, Rewriting, "changed the model"),
        (testing.ends_as_trained, Voting, "changed predictions"),
        (testing.ignores_the_order, FirstCounts, "position of a modality"),
        (testing.predicts, Misshapen, "(48, 1)"),
        (testing.on_two_ranks, RankDependent, "differ"),
    ],
)
def test_a_flaw_is_found(check: Any, make: type[eq.Method], said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(make)
    assert said in str(caught.value)


def test_a_hook_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eq.Balancer, "detach", lambda self: None)
    with pytest.raises(AssertionError, match="hooks are left"):
        testing.leaves_no_trace(Flawed)


def test_a_scale_that_shows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equimodal.loop.modulate.unscale", lambda scaler, optimizers: None)

    class Clipping(Flawed):
        def adjust(self, modality: str, parameters: Any, evidence: eq.Evidence) -> None:
            for owned in parameters:
                if owned.parameter.grad is not None:
                    owned.parameter.grad.clamp_(-1e-3, 1e-3)

    with pytest.raises(AssertionError, match="loss scale"):
        testing.scales(Clipping)
