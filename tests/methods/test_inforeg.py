"""InfoReg against a hand-written loop over epochs, its edges and its state."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.inforeg import holding_strength, prime_indicator, score_gap
from equimodal.methods.gradient.inforeg import InfoReg
from support.worlds import World, batch, train, weights

STRENGTH = {"audio": 0.95, "visual": 0.1, "text": 0.5}


def hand_written(
    world: World,
    epochs: list[list[tuple[Tensor, ...]]],
    strength: dict[str, float],
    threshold: float = 0.05,
    history: int = 10,
    traced: str | None = None,
) -> tuple[list[float], list[list[float]]]:
    """Train as a user would write it down; return all pulls, and the indicators of every epoch."""
    names = list(world.encoders)
    lists = {name: [0.0] * history for name in names}
    indicator = dict.fromkeys(names, 1.0)
    pulls, indicators = [], []
    for batches in epochs:
        starts = {
            name: [p.detach().clone() for p in encoder.parameters()]
            for name, encoder in world.encoders.items()
        }
        information = dict.fromkeys(names, 0.0)
        for *inputs, target in batches:
            features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
            loss = nn.functional.cross_entropy(world.model.head(torch.cat(features, 1)), target)
            scores = []
            for m, z in enumerate(features):
                weight = world.model.head.weight[:, 8 * m : 8 * m + 8]
                u = z @ weight.T + world.model.head.bias / len(features)
                loss = loss + nn.functional.cross_entropy(u, target)
                rows = zip(u.detach().numpy(), target.tolist(), strict=True)
                scores.append(sum(float(np.exp(r[y]) / np.exp(r).sum()) for r, y in rows))
            world.optimizer.zero_grad()
            loss.backward()
            for m, (name, encoder) in enumerate(world.encoders.items()):
                others = [s for j, s in enumerate(scores) if j != m]
                gap = math.tanh(scores[m] - sum(others) / len(others))
                acts = gap > 0 and indicator[name] > threshold
                beta = strength[name] * math.exp(gap) if acts else 0.0
                pulls.append(beta)
                for p, start in zip(encoder.parameters(), starts[name], strict=True):
                    assert p.grad is not None
                    p.grad = p.grad + beta * (p.detach() - start)
                    if p.ndim >= 2:  # the pull included
                        information[name] += float((p.grad.numpy() ** 2).mean())
            world.optimizer.step()
        for name in names:
            before = sum(lists[name]) / history
            lists[name] = [*lists[name][1:], information[name]]
            now = sum(lists[name]) / history
            indicator[name] = (now - before) / now
        if traced is not None:
            indicator = dict.fromkeys(names, indicator[traced])
        indicators.append(list(indicator.values()))
    return pulls, indicators


def run(world: World, balancer: eq.Balancer, epochs: list[list[tuple[Tensor, ...]]]) -> None:
    for batches in epochs:
        train(balancer, batches)
        balancer.end_epoch()


def data(modalities: int, seed: int, epochs: int = 4) -> list[list[tuple[Tensor, ...]]]:
    return [[batch(9, modalities, seed=100 * seed + i) for i in range(3)] for _ in range(epochs)]


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2), (3, 3)])
@pytest.mark.parametrize("traced", [None, "audio"])
def test_equals_the_hand_written_loop(modalities: int, seed: int, traced: str | None) -> None:
    """Four epochs; the window closes for some encoder, and it pulls before."""
    epochs = data(modalities, seed)
    ours, theirs = World(modalities, seed=seed), World(modalities, seed=seed)
    strength = {name: STRENGTH[name] for name in ours.encoders}
    settings: dict[str, Any] = {"threshold": 0.5, "history": 3, "traced": traced}
    method = InfoReg(strength, **settings)
    run(ours, ours.balance(method), epochs)
    pulls, indicators = hand_written(theirs, epochs, strength, **settings)
    assert max(pulls) > 0.1
    assert min(min(of) for of in indicators[:-1]) < 0.5  # the window was closed
    torch.testing.assert_close(weights(ours.model), weights(theirs.model), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(method.indicators, indicators[-1], rtol=1e-9)


# ---------------------------------------------------------------------- the equations


def test_the_first_epochs_are_prime_and_a_steady_trace_is_not() -> None:
    series = [0.0] * 10 + [4.0, 4.0, 4.0] + [4.0] * 10
    found = [
        prime_indicator(torch.tensor(series[e : e + 11], dtype=torch.float64)).item()
        for e in range(len(series) - 10)
    ]
    expected = [1.0, 0.5, 1 / 3]  # Tr_e over the sum of all traces up to it
    assert found[:3] == pytest.approx(expected)
    assert found[-1] == 0


def test_no_information_is_no_prime_window() -> None:
    assert prime_indicator(torch.zeros(3, 11)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("scores", [[3.0, 2.5], [1.0, 4.0, 2.0], [0.1, 0.2, 0.3, 0.4]])
def test_gaps(scores: list[float]) -> None:
    expected = [
        math.tanh(s - sum(o for j, o in enumerate(scores) if j != m) / (len(scores) - 1))
        for m, s in enumerate(scores)
    ]
    np.testing.assert_allclose(score_gap(torch.tensor(scores, dtype=torch.float64)), expected)


def test_three_modalities_of_which_one_is_missing_are_two() -> None:
    gaps = score_gap(torch.tensor([3.0, 2.5, math.nan]))
    torch.testing.assert_close(gaps[:2], score_gap(torch.tensor([3.0, 2.5])))
    assert gaps[2].isnan()
    assert score_gap(torch.tensor([3.0, math.nan])).isnan().all()
    ones = torch.ones(3)
    assert holding_strength(gaps, ones, ones, 0.05)[2] == 0


def test_only_the_leader_is_pulled_and_only_in_its_window() -> None:
    gaps = torch.tensor([0.5, -0.5])
    strength = torch.tensor([0.95, 0.1])
    pulls = holding_strength(gaps, torch.tensor([1.0, 1.0]), strength, 0.05)
    assert pulls.tolist() == pytest.approx([0.95 * math.exp(0.5), 0.0])
    assert not holding_strength(gaps, torch.tensor([0.05, 1.0]), strength, 0.05).any()


# ---------------------------------------------------------------------- the loop


def test_the_first_step_of_an_epoch_pulls_nowhere() -> None:
    """The parameters are where they were when the epoch began: it is the step of strength 0."""
    ours, plain = World(), World()
    train(ours.balance(InfoReg(5.0)), [batch(9)])
    train(plain.balance(InfoReg(0.0)), [batch(9)])
    assert torch.equal(weights(ours.model), weights(plain.model))


def test_the_start_is_taken_anew_in_every_epoch() -> None:
    world = World()
    method = InfoReg()
    balancer = world.balance(method)
    run(world, balancer, data(2, 0, epochs=2))
    before = {name: p.detach().clone() for name, p in world.model.named_parameters()}
    train(balancer, [batch(9), batch(9, seed=2)])
    starts = method.get_extra_state()
    assert starts.keys() == {name for name in before if name.startswith("encoders")}
    assert all(torch.equal(start, before[name]) for name, start in starts.items())


def test_all_parameters_of_the_leader_are_pulled_and_the_others_are_not() -> None:
    """Biases too, which are no part of the trace."""
    world = World()
    method = InfoReg(0.7, threshold=-1.0)
    balancer = world.balance(method)
    train(balancer, [batch(9)])
    *inputs, target = batch(9, seed=2)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    pure = {n: p.grad.clone() for n, p in world.model.named_parameters()}
    balancer.modulate()
    starts = method.get_extra_state()
    pulled = set()
    for name, p in world.model.named_parameters():
        extra = p.grad - pure[name]
        if extra.any():
            direction = p.detach() - starts[name]
            beta = (extra.flatten() @ direction.flatten()) / direction.square().sum()
            assert 0.7 < beta < 0.7 * math.e
            torch.testing.assert_close(extra, beta * direction, rtol=1e-6, atol=1e-12)
            pulled.add(name)
    assert len(pulled) == 4
    assert len({name.split(".")[1] for name in pulled}) == 1


def test_in_the_middle_of_an_epoch_a_run_resumes_bit_by_bit() -> None:
    """Where the epoch began and what was added to the trace are part of the state."""
    straight, half, fresh = World(), World(), World(seed=5)
    epochs = data(2, 0, epochs=2)
    balancer = straight.balance(InfoReg())
    run(straight, balancer, epochs)
    train(balancer, epochs[0])
    saved_by = half.balance(InfoReg())
    run(half, saved_by, epochs)
    train(saved_by, epochs[0][:1])
    state = copy.deepcopy(
        (half.model.state_dict(), half.optimizer.state_dict(), saved_by.state_dict())
    )
    fresh.model.load_state_dict(state[0])
    fresh.optimizer.load_state_dict(state[1])
    resumed = fresh.balance(InfoReg())
    resumed.load_state_dict(state[2])
    train(resumed, epochs[0][1:])
    assert torch.equal(weights(fresh.model), weights(straight.model))
    assert str(resumed.state_dict()["methods"]) == str(balancer.state_dict()["methods"])


def test_a_step_that_the_scaler_skips_adds_nothing_to_the_trace() -> None:
    world = World(dtype=torch.float32)
    method = InfoReg()
    balancer = world.balance(method)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    *inputs, target = batch(9, dtype=torch.float32)
    loss = balancer.loss(world.model(*inputs), target)
    balancer.backward(scaler.scale(loss * 1e10))  # overflows
    balancer.modulate(scaler)
    scaler.step(world.optimizer)
    assert method.trace.tolist() == [0.0, 0.0]


# ---------------------------------------------------------------------- edges


def test_a_missing_modality_and_a_batch_of_which_nothing_counts_run_through() -> None:
    world = World(3)
    method = InfoReg()
    balancer = world.balance(method, criterion=nn.CrossEntropyLoss(reduction="sum"))
    *inputs, classes = batch(6, 3)
    absent = {"text": torch.zeros(6, dtype=torch.bool)}
    for target in (classes, torch.full_like(classes, -100), classes):
        balancer.backward(balancer.loss(world.model(*inputs), target, present=absent))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    balancer.end_epoch()
    assert weights(world.model).isfinite().all()
    assert method.indicators.isfinite().all()


def test_a_frozen_encoder_is_left_as_it_is() -> None:
    world = World()
    world.encoders["audio"].requires_grad_(False)
    before = [p.clone() for p in world.encoders["audio"].parameters()]
    method = InfoReg()
    run(world, world.balance(method), data(2, 0, epochs=2))
    after = world.encoders["audio"].parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert method.indicators[0] == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strength": -1.0}, r"InfoReg\(strength\).*every modality, found -1"),
        ({"strength": {"audio": math.inf}}, r"InfoReg\(strength\).*audio, found inf"),
        ({"threshold": math.nan}, r"InfoReg\(threshold\).*found nan"),
        ({"history": 0}, r"InfoReg\(history\).*found 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        InfoReg(**settings)


@pytest.mark.parametrize("settings", [{"strength": {"vizual": 1.0}}, {"traced": "vizual"}])
def test_an_unknown_modality_is_refused_with_a_suggestion(settings: dict[str, Any]) -> None:
    with pytest.raises(eq.SetupError, match=r"InfoReg.*did you mean 'visual'"):
        World().balance(InfoReg(**settings))


# ---------------------------------------------------------------------- the contract


def test_a_model_compiled_after_attaching_trains_alike() -> None:
    torch._dynamo.reset()
    plain, world = World(), World()
    balancer = world.balance(InfoReg())
    balancer.check(batch())
    compiled: Any = torch.compile(world.model, backend="aot_eager")
    train(balancer, [batch(seed=s) for s in range(3)], model=compiled)
    train(plain.balance(InfoReg()), [batch(seed=s) for s in range(3)])
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-9, atol=1e-9)
