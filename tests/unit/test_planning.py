"""Schedules that follow the length of training, and what is refused where nobody knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.methods import available
from equimodal.planning import share
from support.settings import METHODS, greedy
from support.teachers import teachers
from support.worlds import World, batch

# The authors' constants, in the epochs of the authors' runs.
RELEASED: list[tuple[Callable[[], eq.Method], int, dict[str, object]]] = [
    (eq.AMCo, 30, {"ramp": 3}),
    (eq.ARL, 100, {"start": 5}),
    (eq.AUG, 200, {"every": 20}),
    (eq.DataRemixing, 60, {"warm_up": 10}),
    (eq.DIMML, 170, {"contrast": 20, "encoding": 150}),
    (eq.DiagnosingRelearning, 90, {"every": 20}),
    (lambda: eq.G2D(teachers()), 300, {"gating": (0, 150)}),
    (eq.InfoReg, 50, {"history": 10}),
    (eq.MIDAS, 70, {"warm_up": 10}),
    (eq.ModalityValuation, 60, {"warm_up": 5}),
    (eq.OPM, 100, {"warm_up": 6}),
    (eq.PASSION, 300, {"rate": 0.015}),
    (eq.ReconBoost, 160, {"boosting_epochs": 4, "rectifying_epochs": 4}),
    (eq.SampleValuation, 60, {"warm_up": 5}),
]


def loaders() -> dict[str, Any]:
    train, held_out = (DataLoader(TensorDataset(*batch(n, seed=n)), 6) for n in (12, 30))
    return {"train_loader": train, "val_loader": held_out}


def told(method: eq.Method, epochs: int | None) -> eq.Balancer:
    return World().balance(method, epochs=epochs, **loaders())


@pytest.mark.parametrize(("make", "epochs", "expected"), RELEASED)
def test_constants_are_the_authors_share_of_the_authors_run(
    make: Callable[[], eq.Method], epochs: int, expected: dict[str, object]
) -> None:
    method = make()
    told(method, epochs)
    assert {name: getattr(method, name) for name in expected} == expected
    told(other := make(), 2 * epochs)
    for name, value in expected.items():
        if isinstance(value, int) and not isinstance(other, eq.ReconBoost):
            assert abs(getattr(other, name) - 2 * value) <= 1, "twice as long, twice as many"


@pytest.mark.parametrize(("make", "epochs", "expected"), RELEASED)
def test_without_a_length_they_are_refused_and_say_what_to_add(
    make: Callable[[], eq.Method], epochs: int, expected: dict[str, object]
) -> None:
    with pytest.raises(eq.SetupError, match=r"add epochs=N"):
        told(make(), None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: eq.LFM(),
        lambda: eq.LFM(eq.LearnedWeight()),
        lambda: eq.GradientBlending(),
        lambda: eq.GradientBlending(eq.OfflineBlending()),
        lambda: eq.BSS(eq.Curriculum()),
        lambda: eq.MSES(restore=True),
        lambda: eq.DiagnosingRelearning(every=3),
    ],
)
def test_so_are_schedules_within_methods_and_what_would_be_rewritten(
    make: Callable[[], eq.Method],
) -> None:
    with pytest.raises(eq.SetupError, match="epochs=N"):
        told(make(), None)
    told(make(), 4)


def test_every_method_that_follows_the_length_is_in_the_list() -> None:
    known = {type(make()) for make, *_ in RELEASED} | {eq.Greedy, eq.Pretraining}
    assert {kind for kind in available().values() if kind.by_epochs} == known


@pytest.mark.parametrize("name", METHODS)
def test_what_is_given_in_epochs_stays(name: str) -> None:
    given = METHODS[name]()
    if METHODS[name] is not greedy:
        told(given, 1000)
    for argument in given.by_epochs:
        before = getattr(METHODS[name](), argument)
        assert before is None or getattr(given, argument) == before


def test_an_instance_that_is_used_again_follows_the_new_length() -> None:
    method = eq.OPM()
    for epochs, warm_up in ((100, 6), (50, 3)):
        told(method, epochs).detach()
        assert (method.warm_up, method.window) == (warm_up, (warm_up, None))


def test_shares_are_whole_epochs() -> None:
    assert [share(20, of=90)(n) for n in (1, 5, 40, 90, 900)] == [1, 1, 9, 20, 200]
    assert share(2, of=300, least=0)(20) == 0


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True])
def test_no_number_of_epochs_is_refused(epochs: Any) -> None:
    with pytest.raises(eq.SetupError, match="epochs: expected"):
        told(eq.Joint(), epochs)


def test_a_finished_model_does_not_go_back() -> None:
    """Diagnosing & Re-learning is due after every epoch, and leaves the last one alone."""
    world = World()
    balancer = world.balance(eq.DiagnosingRelearning(every=1, times=9), epochs=3, **loaders())
    changed = []
    for _ in range(3):
        *inputs, target = batch(12)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
        before = [p.detach().clone() for p in world.model.encoders.parameters()]
        balancer.end_epoch()
        after = world.model.encoders.parameters()
        changed.append(not all(map(torch.equal, before, after)))
    assert not changed[-1]
    assert any(changed), "it never went back: the test shows nothing"
