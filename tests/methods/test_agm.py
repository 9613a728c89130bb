"""AGM against a hand-written loop with backward hooks, its edges, and the defects of public code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.agm import agm_coefficient, confidence_ratio, shapley_responses
from equimodal.methods.gradient.agm import AGM
from support.worlds import Silencing, World, batch, train, weights


def nonlinear(modalities: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8 * modalities, 6), nn.Tanh(), nn.Linear(6, 3))


def worlds(modalities: int, seed: int = 0) -> tuple[World, World]:
    torch.manual_seed(seed)
    state = nonlinear(modalities).state_dict()
    pair = []
    for _ in range(2):
        head = nonlinear(modalities)
        head.load_state_dict(state)
        pair.append(World(modalities, seed=seed, head=head))
    return pair[0], pair[1]


def responses_of_two(f: dict[str, Tensor]) -> list[Tensor]:
    """As the paper writes them for two modalities."""
    return [(f["av"] - f["v"] + f["a"]) / 2, (f["av"] - f["a"] + f["v"]) / 2]


def responses_of_three(f: dict[str, Tensor]) -> list[Tensor]:
    """As the paper writes them for three modalities, cyclic."""
    return [
        (f["avt"] - f["vt"] + f["a"]) / 3 + (f["av"] - f["v"] + f["at"] - f["t"]) / 6,
        (f["avt"] - f["at"] + f["v"]) / 3 + (f["av"] - f["a"] + f["vt"] - f["t"]) / 6,
        (f["avt"] - f["av"] + f["t"]) / 3 + (f["at"] - f["a"] + f["vt"] - f["v"]) / 6,
    ]


def ratios(losses: list[float]) -> list[float]:
    """One exponential of a mean over the others each."""
    found = []
    for m, own in enumerate(losses):
        others = [s - own for j, s in enumerate(losses) if j != m]
        found.append(math.exp(sum(others) / len(others)))
    return found


def hand_written(
    world: World, batches: list[tuple[Tensor, ...]], alpha: float, cap: float
) -> list[list[float]]:
    """One backward pass, with a hook on each response that scales what flows into it."""
    running = [0.0] * world.modalities
    letters = "avt"[: world.modalities]
    history = []
    for t, (*inputs, target) in enumerate(batches, 1):
        features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        answers = {}
        for subset in ("a", "v", "t", "av", "at", "vt", "avt"):
            kept = [
                z if letter in subset else 0 * z.detach()
                for letter, z in zip(letters, features, strict=True)
            ]
            answers[subset] = world.model.head(torch.cat(kept, dim=1))
        pairs = {2: responses_of_two, 3: responses_of_three}
        outputs = pairs[world.modalities](answers)
        losses = []
        for o in outputs:
            total = 0.0
            for row, y in zip(o.detach().numpy(), target.tolist(), strict=True):
                p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
                total -= math.log(max(p[y], 1e-8))
            losses.append(total / len(target))
        now, before = ratios(losses), ratios(running)
        kappas = [math.exp(alpha * min(b - n, cap)) for n, b in zip(now, before, strict=True)]
        running = [s * (t - 1) / t + new / t for s, new in zip(running, losses, strict=True)]
        history.append(kappas)
        hooked = []
        for o, kappa in zip(outputs, kappas, strict=True):
            passed = o.clone()
            passed.register_hook(lambda g, k=kappa: g * k)
            hooked.append(passed)
        world.optimizer.zero_grad()
        nn.functional.cross_entropy(torch.stack(hooked).sum(0), target).backward()
        world.optimizer.step()
    return history


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2), (3, 3)])
def test_equals_the_hand_written_loop(modalities: int, seed: int) -> None:
    """A head that is not linear, so that responses overlap; all parameters, the head's too."""
    batches = [batch(10, modalities, seed=10 * seed + i) for i in range(7)]
    ours, theirs = worlds(modalities, seed)
    history = hand_written(theirs, batches, alpha=12.0, cap=0.02)
    assert max(map(max, history)) == pytest.approx(math.exp(0.24))  # the cap was at work
    assert min(map(min, history)) < 0.8
    balancer = ours.balance(AGM(alpha=12.0, cap=0.02))
    train(balancer, batches)
    torch.testing.assert_close(weights(ours.model), weights(theirs.model), rtol=1e-9, atol=1e-12)


def observed(world: World, method: AGM, *batch: Tensor) -> tuple[eq.Balancer, Tensor]:
    balancer = world.balance(method)
    *inputs, target = batch
    loss = balancer.loss(world.model(*inputs), target)
    balancer.backward(loss)
    return balancer, loss


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_responses_sum_to_the_logits(modalities: int) -> None:
    """BalanceMM leaves out the coalitions of one modality, so that they do not."""
    rng = torch.Generator().manual_seed(modalities)
    logits = torch.randn(2**modalities - 1, 5, 3, generator=rng, dtype=torch.float64)
    found = shapley_responses(logits)
    assert found.shape == (modalities, 5, 3)
    torch.testing.assert_close(found.sum(0), logits[-1], rtol=1e-12, atol=1e-12)
    expected = logits[0] / modalities + (found[0] - shapley_responses_without_singletons(logits)[0])
    torch.testing.assert_close(expected, 2 * logits[0] / modalities)


def shapley_responses_without_singletons(logits: Tensor) -> Tensor:
    """What is left of the first response if F of the first alone is taken for nothing."""
    changed = logits.clone()
    changed[0] = 0
    return shapley_responses(changed)


@pytest.mark.parametrize("modalities", [2, 3])
def test_with_alpha_0_it_is_plain_training(modalities: int) -> None:
    ours, plain = worlds(modalities)
    batches = [batch(9, modalities, seed=i) for i in range(4)]
    train(ours.balance(AGM(alpha=0.0)), batches)
    train(plain.balance(eq.Joint()), batches)
    torch.testing.assert_close(weights(ours.model), weights(plain.model), rtol=1e-10, atol=1e-12)


def test_the_loss_that_is_returned_is_the_users() -> None:
    world, _ = worlds(3)
    *inputs, target = batch(9, 3)
    _, loss = observed(world, AGM(), *batch(9, 3))
    plain = nn.functional.cross_entropy(world.model(*inputs), target)
    torch.testing.assert_close(loss, plain)


def test_the_one_that_is_further_ahead_than_usual_is_slowed() -> None:
    """BalanceMM has the sign of the exponent wrong: the two coefficients are swapped."""
    ratio = confidence_ratio(torch.tensor([0.2, 1.0]))  # the first does better: its loss is lower
    reference = confidence_ratio(torch.tensor([0.6, 0.8]))
    assert ratio[0] > reference[0] > 1
    ahead, behind = agm_coefficient(ratio, reference, alpha=1.0, cap=10.0)
    assert ahead < 1 < behind


def test_the_first_step_is_judged_by_means_of_nothing() -> None:
    """The running means are 0 before the first step: the reference is 1."""
    world, twin = worlds(2)
    (kappas,) = hand_written(twin, [batch(9)], alpha=1.0, cap=10.0)
    method = AGM()
    balancer, _ = observed(world, method, *batch(9))
    balancer.modulate()
    assert method.running.tolist() == [0.0, 0.0]  # proposed, and not yet true
    world.optimizer.step()
    losses = method.running.tolist()
    expected = [math.exp(1 - ratio) for ratio in ratios(losses)]
    assert kappas == pytest.approx(expected)
    assert method.steps.tolist() == [1.0, 1.0]


def test_a_step_that_the_scaler_skips_leaves_the_means() -> None:
    world = World(dtype=torch.float32)
    method = AGM()
    balancer = world.balance(method)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    *inputs, target = batch(9, dtype=torch.float32)
    loss = balancer.loss(world.model(*inputs), target)
    balancer.backward(scaler.scale(loss * 1e10))  # overflows
    balancer.modulate(scaler)
    scaler.step(world.optimizer)
    assert method.steps.tolist() == [0.0, 0.0]


# ---------------------------------------------------------------------- edges


def test_three_modalities_of_which_one_says_nothing_are_two() -> None:
    two = torch.randn(3, 4, 3, dtype=torch.float64)  # a, v, av
    nothing = torch.zeros_like(two[0])
    three = torch.stack([two[0], two[1], two[2], nothing, two[0], two[1], two[2]])
    torch.testing.assert_close(shapley_responses(three)[:2], shapley_responses(two))
    assert shapley_responses(three)[2].abs().max() < 1e-12
    losses = torch.tensor([0.3, 0.9, math.nan])
    torch.testing.assert_close(confidence_ratio(losses)[:2], confidence_ratio(losses[:2]))


def test_a_modality_that_is_missing_is_left_out_of_the_comparison() -> None:
    world, _ = worlds(3)
    method = AGM()
    balancer = world.balance(method)
    *inputs, target = batch(9, 3)
    absent = {"text": torch.zeros(9, dtype=torch.bool)}
    balancer.backward(balancer.loss(world.model(*inputs), target, present=absent))
    balancer.modulate()
    world.optimizer.step()
    assert method.steps.tolist() == [1.0, 1.0, 0.0]
    assert method.running[2] == 0
    assert weights(world.model).isfinite().all()


def test_losses_are_of_the_samples_that_have_the_modality() -> None:
    """Half of them, and one whose class is to be ignored."""
    world, _ = worlds(2)
    method = AGM()
    balancer = world.balance(method)
    *inputs, target = batch(8)
    target[0] = -100
    present = torch.arange(8) % 2 == 0
    balancer.backward(balancer.loss(world.model(*inputs), target, present={"visual": present}))
    with torch.no_grad():
        a, v = (e(x) for e, x in zip(world.encoders.values(), inputs, strict=True))
        answers = {
            "a": world.model.head(torch.cat([a, 0 * v], 1)),
            "v": world.model.head(torch.cat([0 * a, v], 1)),
            "av": world.model.head(torch.cat([a, v], 1)),
        }
    first, second = responses_of_two(answers)
    counted = torch.arange(8) > 0
    expected = [
        nn.functional.cross_entropy(first[counted], target[counted]),
        nn.functional.cross_entropy(second[counted & present], target[counted & present]),
    ]
    balancer.modulate()
    world.optimizer.step()
    torch.testing.assert_close(method.running, torch.stack(expected))


def test_losses_are_no_larger_than_the_floor_says() -> None:
    hopeless = torch.tensor([[0.0, 50.0]], dtype=torch.float64)
    target = torch.tensor([0])
    for floor, expected in ((1e-8, -math.log(1e-8)), (0.0, 50.0)):
        method = AGM(floor=floor)
        method.bind(("audio", "visual"), 0)
        method._responses = torch.stack([hopeless, hopeless])
        criterion = World().balance(eq.Joint()).criterion
        step = eq.Step(
            ("audio", "visual"), {}, hopeless, target, criterion,
            lambda features: hopeless, lambda step: {}, nn.Identity(),
        )  # fmt: skip
        assert method.measure(step)["losses"].tolist() == pytest.approx([expected] * 2)


def test_a_batch_of_which_nothing_counts_changes_no_mean() -> None:
    world, _ = worlds(2)
    method = AGM()
    balancer = world.balance(method, criterion=nn.CrossEntropyLoss(reduction="sum"))
    *inputs, target = batch(4)
    loss = balancer.loss(world.model(*inputs), torch.full_like(target, -100))
    balancer.backward(loss)
    balancer.modulate()
    world.optimizer.step()
    assert method.steps.tolist() == [0.0, 0.0]
    assert weights(world.model).isfinite().all()


def test_huge_losses_give_finite_factors() -> None:
    ratio = confidence_ratio(torch.tensor([0.0, 1e6]))
    factors = agm_coefficient(ratio, torch.tensor([1.0, 1.0]), alpha=1.0, cap=10.0)
    assert factors.isfinite().all()
    assert factors[0] == 0
    assert factors[1] == pytest.approx(math.e)


def test_a_frozen_encoder_is_left_as_it_is() -> None:
    world, _ = worlds(2)
    world.encoders["audio"].requires_grad_(False)
    before = weights(world.model.encoders["audio"])
    others = weights(world.model.encoders["visual"])
    train(world.balance(AGM()), [batch(9)])
    assert torch.equal(weights(world.model.encoders["audio"]), before)
    assert not torch.equal(weights(world.model.encoders["visual"]), others)


def test_batchnorm_and_dropout_of_the_head_do_not_notice_the_coalitions() -> None:
    head = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3))
    twin = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3))
    twin.load_state_dict(head.state_dict())
    ours, plain = World(head=head), World(head=twin)
    *inputs, target = batch(9)
    balancer = ours.balance(AGM())
    balancer.backward(balancer.loss(ours.model(*inputs), target))
    plain.model(*inputs)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], value), name
    assert all(module.training for module in ours.model.modules())


def test_a_feature_that_another_method_takes_away_has_no_response() -> None:
    """The coalitions are of what entered the head: with the feature itself, it would be trained."""
    world, _ = worlds(2)
    balancer = world.balance(AGM(), Silencing())
    for seed in range(2):
        *inputs, target = batch(9, seed=seed)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        balancer.modulate()
        gradients = [p.grad for p in world.encoders["audio"].parameters()]
        assert not any(gradient.any() for gradient in gradients)
        assert not world.model.head[0].weight.grad[:, :8].any()
        world.optimizer.step()
        world.optimizer.zero_grad()


def test_outside_of_its_window_it_is_plain_training() -> None:
    ours, plain = worlds(2)
    train(ours.balance(AGM(window=(3, 4))), [batch(9)])
    train(plain.balance(eq.Joint()), [batch(9)])
    assert torch.equal(weights(ours.model), weights(plain.model))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": -1.0}, r"AGM\(alpha\).*found -1"),
        ({"cap": math.inf}, r"AGM\(cap\).*found inf"),
        ({"alpha": 10.0}, r"alpha \* cap.*found 100"),  # the factor exp(100) is inf in float32
        ({"floor": 1.0}, r"AGM\(floor\).*below 1, found 1"),
        ({"window": (3, 1)}, r"AGM\(window\).*first <= last, found \(3, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        AGM(**settings)


# ---------------------------------------------------------------------- the contract


def test_a_model_compiled_after_attaching_trains_alike() -> None:
    torch._dynamo.reset()
    plain, world = World(), World()
    balancer = world.balance(AGM())
    balancer.check(batch())
    compiled: Any = torch.compile(world.model, backend="aot_eager")
    train(balancer, [batch(seed=s) for s in range(3)], model=compiled)
    train(plain.balance(AGM()), [batch(seed=s) for s in range(3)])
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-9, atol=1e-9)
