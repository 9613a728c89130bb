"""Mistakes that people will make: each is refused or noticed, with what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from support.worlds import Net, World, batch, train
from support.worst_fits import Resamples


def step(world: World, balancer: eq.Balancer, whole: tuple[Tensor, ...] | None = None) -> None:
    *inputs, target = batch() if whole is None else whole
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()


def test_the_head_inside_an_encoder() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.audio, self.visual = (
                nn.Linear(4, 8),
                nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)),
            )

    model = Nested()
    with pytest.raises(eq.SetupError, match=r"head lies inside encoders\['visual'\].*without it"):
        eq.Balancer(
            eq.OGM(),
            model,
            {"audio": model.audio, "visual": model.visual},
            model.visual[1],
            torch.optim.SGD(model.parameters(), lr=0.1),
        )


def test_an_encoder_that_the_optimizer_does_not_train() -> None:
    model = Net()
    optimizer = torch.optim.SGD([*model.encoders["audio"].parameters(), *model.head.parameters()])
    with pytest.raises(eq.SetupError, match=r"encoders\['visual'\].*optimizer"):
        eq.Balancer(eq.OGM(), model, model.encoders, model.head, optimizer)


@pytest.mark.parametrize("makes", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_replaced_after_attaching(makes: Any) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    train(balancer, [batch()])
    world.optimizer = makes(world.model.parameters(), lr=0.1)
    step(world, balancer)
    world.optimizer.step()
    with pytest.raises(eq.StepError, match=rf"{makes.__name__}.*\(SGD\).*was it replaced.*Make"):
        step(world, balancer)


def test_an_optimizer_that_calls_another_is_not_taken_for_a_replacement() -> None:
    """As sharpness-aware minimisation does."""

    class Wrapping(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner = inner
            super().__init__([p for group in inner.param_groups for p in group["params"]], {})

        def step(self, closure: Any = None) -> None:
            self.inner.step()

    world = World()
    world.optimizer = Wrapping(world.optimizer)
    balancer = world.balance(eq.OGM(0.8))
    for _ in range(3):
        step(world, balancer)
        world.optimizer.step()
    assert balancer.steps == 3


def test_other_optimizers_of_the_process_are_let_be() -> None:
    world, other = World(), World(seed=1)
    balancer, theirs = world.balance(eq.MultiLoss(), eq.OGM(0.8)), other.balance(eq.OGM(0.8))
    for _ in range(3):
        train(balancer, [batch()])
        train(theirs, [batch()])
    assert balancer.steps == theirs.steps == 3


def test_training_in_evaluation_mode() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    world.model.eval()
    with pytest.warns(
        eq.BalanceWarning, match=r"SmallModel is trained in evaluation mode.*model.train()"
    ):
        train(balancer, [batch()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(balancer, [batch()])  # it is said once
        with torch.no_grad():
            balancer.loss(world.model(*batch()[:-1]), batch()[-1])  # and not of an evaluation


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradients_around_the_forward(mode: Callable[[], Any]) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    with mode():
        logits = world.model(*inputs)
    with pytest.raises(eq.MatchError, match=r"no_grad.*Run the model with gradients"):
        balancer.loss(logits, target)


@pytest.mark.parametrize("detached", [True, False])
def test_features_kept_from_another_batch(detached: bool) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    (audio, visual, target), other = batch(), batch(seed=2)
    encoders = world.model.encoders
    step(world, balancer)
    kept = encoders["audio"](audio)
    world.model.head(torch.cat([kept, encoders["visual"](visual)], 1))
    kept = kept.detach() if detached else kept
    logits = world.model.head(torch.cat([kept, encoders["visual"](other[1])], 1))
    with pytest.raises(
        eq.MatchError, match=r"encoder of audio did not run.*encode every batch anew"
    ):
        balancer.loss(logits, target)


def test_a_target_on_another_device() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"target is on meta, .* on cpu.*target.to\(logits"):
        balancer.loss(world.model(*inputs), target.to("meta"))


def test_a_method_that_resamples_without_batches() -> None:
    world = World()
    whole = TensorDataset(*batch())
    balancer = world.balance(
        Resamples(), train_loader=DataLoader(whole), val_loader=DataLoader(whole)
    )
    with pytest.warns(eq.BalanceWarning, match=r"for batch in balancer.batches\(loader\)"):
        step(world, balancer)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ([eq.OGM(), eq.OGMGE()], "OGMGE is a OGM.*give one"),
        ([eq.OGMGE(), eq.Ensemble()], "OGMGE cannot be combined with Ensemble.*leave out OGMGE"),
        ([eq.Unimodal("audio"), eq.OGM()], "OGM cannot be combined with Unimodal"),
    ],
)
def test_methods_that_make_no_sense_together(methods: list[eq.Method], words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        World().balance(*methods)


def test_a_compiled_model_with_encoders_by_name() -> None:
    world = World()
    with pytest.raises(eq.SetupError, match=r"already compiled.*attach the balancer first"):
        eq.Balancer(
            eq.OGM(),
            torch.compile(world.model),
            {"audio": "encoders.audio", "visual": "encoders.visual"},
            "head",
            world.optimizer,
        )
