"""CML against a loop over samples and chains, and against what public code gets wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.cml import confidence_excess
from equimodal.methods.objective.cml import CML
from support.worlds import World, batch, train, weights

# ---------------------------------------------------------------------- the equation


def slow_excess(subset: list[float], superset: list[float], label: int) -> float:
    """One sample."""

    def softmax(u: list[float]) -> list[float]:
        powers = [math.exp(x) for x in u]
        return [x / sum(powers) for x in powers]

    fewer, more = softmax(subset), softmax(superset)
    if fewer.index(max(fewer)) == label and more.index(max(more)) != label:
        return 0.0
    return max(0.0, max(fewer) - max(more))


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    subset, superset = torch.randn(2, 40, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (40,), generator=generator)
    expected = [
        slow_excess(s, t, y)
        for s, t, y in zip(subset.tolist(), superset.tolist(), labels.tolist(), strict=True)
    ]
    found = confidence_excess(subset, superset, labels)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )
    assert 0 < sum(value > 0 for value in expected) < 40


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_equals_the_hand_written_loop(modalities: int, seed: int) -> None:
    world, twin = World(modalities, seed=seed), World(modalities, seed=seed)
    batches = [batch(12, modalities, seed=10 * seed + step) for step in range(4)]
    method = CML(beta=3.0)
    balancer = world.balance(method)
    names = list(world.encoders)
    drawn = set()
    for *inputs, target in batches:
        removed = method.removals(balancer.epoch)
        drawn.add(tuple(removed))
        features = {n: twin.encoders[n](x) for n, x in zip(names, inputs, strict=True)}
        more = twin.model.head(torch.cat(list(features.values()), dim=1))
        loss = nn.functional.cross_entropy(more, target)
        for name in removed:
            features[name] = torch.zeros_like(features[name])
            fewer = twin.model.head(torch.cat(list(features.values()), dim=1))
            for i, y in enumerate(target.tolist()):
                p, q = fewer[i].softmax(0), more[i].softmax(0)
                excused = p.argmax() == y and q.argmax() != y
                if p.max() > q.max() and not excused:
                    loss = loss + 3.0 / len(target) * (p.max() - q.max())
            more = fewer
        twin.optimizer.zero_grad()
        loss.backward()
        twin.optimizer.step()
        train(balancer, [(*inputs, target)])
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)
    assert len(drawn) > 1


# ---------------------------------------------------------------------- defects of public code


def test_samples_do_not_cancel() -> None:
    """BalanceMM takes the positive part of the sum over the batch."""
    subset = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    superset = torch.tensor([[1.0, 0.0], [9.0, 0.0]])
    labels = torch.tensor([1, 1])
    assert confidence_excess(subset, superset, labels).sum() > 0
    assert (subset.softmax(1).amax(1) - superset.softmax(1).amax(1)).sum() < 0


def test_the_gate_excuses_a_right_subset_of_a_wrong_superset_and_nothing_else() -> None:
    """BalanceMM computes it with the roles exchanged, and does not use it."""
    right, wrong = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    labels = torch.tensor([0])
    assert confidence_excess(right, wrong, labels) == 0
    assert confidence_excess(wrong * 5, right / 5, labels) > 0
    assert confidence_excess(right, right / 5, labels) > 0
    assert confidence_excess(wrong * 5, wrong, labels) > 0


def test_the_chain_is_drawn_for_every_step_and_not_for_every_micro_batch() -> None:
    """BalanceMM shuffles once an epoch; the counter moves when the optimizer has stepped."""
    world = World(3)
    method = CML()
    balancer = world.balance(method)
    chains = []
    for seed in range(12):
        *inputs, target = batch(8, 3, seed=seed)
        chains.append(method.removals(0))
        for _ in range(2):
            balancer.backward(balancer.loss(world.model(*inputs), target))
            assert method.removals(0) == chains[-1]
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    assert len({tuple(chain) for chain in chains}) >= 4  # of six
    assert {len(chain) for chain in chains} == {2}
    assert {chain[0] for chain in chains} == {"audio", "visual", "text"}


def test_the_sum_of_the_released_code_is_beta_times_the_batch() -> None:
    world = World()
    method = CML(beta=10.0 * 8)
    balancer = world.balance(method)
    *inputs, target = batch(8)
    balancer.loss(world.model(*inputs), target)
    (removed,) = method.removals(0)
    features = {n: e(x) for (n, e), x in zip(world.encoders.items(), inputs, strict=True)}
    with torch.no_grad():
        superset = world.model.head(torch.cat(list(features.values()), 1))
        features[removed] = torch.zeros_like(features[removed])
        subset = world.model.head(torch.cat(list(features.values()), 1))
    expected = 10.0 * confidence_excess(subset, superset, target).sum()
    assert balancer.metrics()["loss/cml/confidence"] == pytest.approx(float(expected))


# ---------------------------------------------------------------------- edges


def penalty(balancer: eq.Balancer) -> float:
    return balancer.metrics()["loss/cml/confidence"]


def test_a_sample_is_not_judged_by_a_modality_that_it_does_not_have() -> None:
    """Neither where the removed one is missing, nor where nothing would be left."""
    world = World()
    method = CML()
    balancer = world.balance(method)
    *inputs, target = batch(10)
    (removed,) = method.removals(0)
    (kept,) = set(world.encoders) - {removed}
    some = torch.arange(10) < 6
    balancer.loss(world.model(*(x[:6] for x in inputs)), target[:6])
    expected = 6 / 10 * penalty(balancer)
    assert expected > 0
    for name in (removed, kept):
        balancer.loss(world.model(*inputs), target, present={name: some})
        assert penalty(balancer) == pytest.approx(expected)


def test_ignored_targets_are_not_judged() -> None:
    world = World()
    balancer = world.balance(CML(), criterion=nn.CrossEntropyLoss(ignore_index=-100))
    *inputs, target = batch(10)
    target[6:] = -100
    balancer.loss(world.model(*inputs), target)
    part = penalty(balancer)
    balancer.loss(world.model(*(x[:6] for x in inputs)), target[:6])
    assert part == pytest.approx(6 / 10 * penalty(balancer))


def test_batchnorm_and_dropout_of_the_head_do_not_notice() -> None:
    def run(method: eq.Method) -> tuple[World, Tensor]:
        world = World(head=nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 3)))
        balancer = world.balance(method)
        *inputs, target = batch()
        torch.manual_seed(3)
        balancer.backward(balancer.loss(world.model(*inputs), target))
        return world, torch.get_rng_state()

    (world, state), (plain, expected) = run(CML()), run(eq.Joint())
    assert torch.equal(state, expected)
    norm, untouched = world.model.head[0], plain.model.head[0]
    assert norm.training
    assert torch.equal(norm.running_mean, untouched.running_mean)
    assert norm.num_batches_tracked == 1


def test_three_modalities_reduce_to_two_when_the_third_is_missing_everywhere() -> None:
    three, two = World(3), World(2)
    two.model.encoders.load_state_dict(
        {k: v for k, v in three.model.encoders.state_dict().items() if not k.startswith("text")}
    )
    with torch.no_grad():
        three.model.head.weight[:, 16:] = 0
        two.model.head.weight.copy_(three.model.head.weight[:, :16])
        two.model.head.bias.copy_(three.model.head.bias)
    *inputs, target = batch(10, 3)
    of_three = three.balance(CML())
    method = CML()
    of_two = two.balance(method)
    (chain,) = [
        [name for name in each.removals(0) if name != "text"][:1]
        for each in of_three.methods
        if isinstance(each, CML)
    ]
    while method.removals(0) != chain:
        method.commit()
    of_three.loss(three.model(*inputs), target, present={"text": torch.zeros(10, dtype=torch.bool)})
    of_two.loss(two.model(*inputs[:2]), target)
    assert penalty(of_three) == pytest.approx(penalty(of_two))


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = world.balance(CML(), criterion=nn.MSELoss())
    *inputs, _ = batch(10)
    with pytest.raises(eq.MatchError, match="CML is defined for one class per sample"):
        balancer.loss(world.model(*inputs), torch.randn(10, 3).double())


@pytest.mark.parametrize("beta", [-1.0, math.inf, math.nan])
def test_a_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(eq.SetupError, match=r"CML\(beta\): expected a number of 0 or more"):
        CML(beta)
