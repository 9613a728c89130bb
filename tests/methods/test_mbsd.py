"""MBSD against loops over samples and pairs, with everything that public code gets wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.mbsd import self_distillation
from equimodal.methods.objective.mbsd import MBSD
from support.worlds import World, batch, train, weights

# ---------------------------------------------------------------------- the equation


def softmax(u: list[float]) -> list[float]:
    powers = [math.exp(x) for x in u]
    return [x / sum(powers) for x in powers]


def slow_distillation(unimodal: list[list[list[float]]], labels: list[int]) -> tuple[float, float]:
    """One sample, one pair and one class at a time."""
    similarity = divergence = 0.0
    modalities, size = len(unimodal), len(labels)
    pairs = [(a, b) for a in range(modalities) for b in range(a + 1, modalities)]
    for a, b in pairs:
        for i, y in enumerate(labels):
            one, other = unimodal[a][i], unimodal[b][i]
            p, q = softmax(one), softmax(other)
            if one.index(max(one)) != y and other.index(max(other)) != y:
                continue
            w = abs(p[y] - q[y])
            strong, weak = (p, q) if p[y] >= q[y] else (q, p)
            distance = sum((s - t) ** 2 for s, t in zip(one, other, strict=True))
            similarity += w * distance / len(one)
            divergence += w * sum(s * math.log(s / t) for s, t in zip(strong, weak, strict=True))
    return similarity / size / len(pairs), divergence / size / len(pairs)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_loop(modalities: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    unimodal = torch.randn(modalities, 17, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (17,), generator=generator)  # the last class is absent
    found = self_distillation(unimodal, labels)
    for value, expected in zip(
        found, slow_distillation(unimodal.tolist(), labels.tolist()), strict=True
    ):
        assert float(value) == pytest.approx(expected, rel=1e-12)
        assert expected > 0


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_equals_the_hand_written_loop(modalities: int, seed: int) -> None:
    """With the loop's values for w and for who is stronger, and its gradient by autograd."""
    world, twin = World(modalities, seed=seed), World(modalities, seed=seed)
    batches = [batch(12, modalities, seed=10 * seed + step) for step in range(4)]
    train(world.balance(MBSD(similarity=0.7, divergence=1.3)), batches)
    for *inputs, target in batches:
        features = [e(x) for e, x in zip(twin.encoders.values(), inputs, strict=True)]
        logits = twin.model.head(torch.cat(features, dim=1))
        cut = twin.model.head.weight.split(8, dim=1)
        share = twin.model.head.bias / modalities
        alone = [z @ w.T + share for z, w in zip(features, cut, strict=True)]
        loss = sum(nn.functional.cross_entropy(u, target) for u in [logits, *alone])
        pairs = [(a, b) for a in range(modalities) for b in range(a + 1, modalities)]
        for a, b in pairs:
            for i, y in enumerate(target.tolist()):
                p, q = (alone[m][i].detach().softmax(0) for m in (a, b))
                if p.argmax() != y and q.argmax() != y:
                    continue
                w = float((p[y] - q[y]).abs())
                strong, weak = (a, b) if p[y] >= q[y] else (b, a)
                fixed, moving = alone[strong][i].detach(), alone[weak][i]
                scale = w / len(target) / len(pairs)
                loss = loss + 0.7 * scale * (moving - fixed).square().sum() / 3
                ratio = fixed.log_softmax(0) - moving.log_softmax(0)
                loss = loss + 1.3 * scale * (fixed.softmax(0) * ratio).sum()
        twin.optimizer.zero_grad()
        loss.backward()
        twin.optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- defects of public code


def confident(classes: int = 3) -> tuple[Tensor, Tensor]:
    """The first modality knows all five samples, the second none."""
    labels = torch.arange(5) % classes
    strong = 4.0 * nn.functional.one_hot(labels, classes).double()
    return torch.stack([strong, torch.zeros_like(strong)]).requires_grad_(), labels


@pytest.mark.parametrize("which", [0, 1])
def test_the_stronger_modality_gets_no_gradient(which: int) -> None:
    """BalanceMM detaches nothing: the strong one is pulled down towards the weak one."""
    unimodal, labels = confident()
    self_distillation(unimodal, labels)[which].backward()
    assert unimodal.grad is not None
    assert torch.equal(unimodal.grad[0], torch.zeros_like(unimodal.grad[0]))
    assert unimodal.grad[1].abs().sum() > 0
    rising = -unimodal.grad[1].gather(1, labels[:, None])
    assert (rising > 0).all()  # a step lets the weak one give the true class more


def test_the_divergence_is_one_between_distributions() -> None:
    """BalanceMM hands kl_div the probabilities of the true class alone."""
    unimodal, labels = confident()
    strong, weak = (torch.distributions.Categorical(logits=u.detach()) for u in unimodal)
    w = (strong.probs - weak.probs).gather(1, labels[:, None]).abs().squeeze(1)
    expected = (w * torch.distributions.kl_divergence(strong, weak)).mean()
    torch.testing.assert_close(self_distillation(unimodal, labels)[1].detach(), expected)


def test_nothing_is_taught_where_neither_is_right() -> None:
    unimodal, labels = confident()
    unimodal = unimodal.detach()
    assert [float(term) for term in self_distillation(unimodal, (labels + 1) % 3)] != [0, 0]
    sure = torch.stack([unimodal[0], unimodal[0] / 2])
    assert [float(term) for term in self_distillation(sure, (labels + 1) % 3)] == [0, 0]


def test_three_modalities_reduce_to_two() -> None:
    """A third that equals one of the two: its pairs say what theirs does, or nothing."""
    unimodal, labels = confident()
    two = self_distillation(unimodal, labels)
    three = self_distillation(torch.cat([unimodal, unimodal[1:]]), labels)
    for pair, triple in zip(two, three, strict=True):
        torch.testing.assert_close(triple, pair * 2 / 3)


def test_the_order_of_modalities_does_not_matter() -> None:
    unimodal = torch.randn(3, 20, 4, dtype=torch.float64)
    labels = torch.randint(4, (20,))
    for found, expected in zip(
        self_distillation(unimodal.flip(0), labels),
        self_distillation(unimodal, labels),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


# ---------------------------------------------------------------------- edges


def terms(balancer: eq.Balancer) -> tuple[float, float]:
    found = balancer.metrics()
    return found["loss/mbsd/(similarity)"], found["loss/mbsd/(divergence)"]


def test_only_samples_that_have_both_modalities_teach() -> None:
    world = World()
    balancer = world.balance(MBSD())
    *inputs, target = batch(10)
    some = torch.arange(10) < 6
    balancer.loss(world.model(*inputs), target, present={"visual": some})
    part = terms(balancer)
    balancer.loss(world.model(*(x[:6] for x in inputs)), target[:6])
    assert part == pytest.approx([6 / 10 * term for term in terms(balancer)])
    balancer.loss(world.model(*inputs), target, present={"visual": torch.zeros(10).bool()})
    assert terms(balancer) == (0, 0)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_three_modalities_reduce_to_two_where_one_is_absent(absent: int) -> None:
    """The mean is over the pairs that a sample has: absence must not weaken the others' pair."""
    unimodal = torch.randn(3, 8, 4, dtype=torch.float64)
    labels = torch.randint(4, (8,))
    has = torch.ones(3, 8, dtype=torch.bool)
    has[absent] = False
    rest = [m for m in range(3) if m != absent]
    for found, expected in zip(
        self_distillation(unimodal, labels, has),
        self_distillation(unimodal[rest], labels),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_ignored_targets_teach_nothing() -> None:
    world = World()
    criterion = nn.CrossEntropyLoss(ignore_index=-100)
    balancer = world.balance(MBSD(), criterion=criterion)
    *inputs, target = batch(10)
    target[6:] = -100
    balancer.loss(world.model(*inputs), target)
    part = terms(balancer)
    balancer.loss(world.model(*(x[:6] for x in inputs)), target[:6])
    assert part == pytest.approx([6 / 10 * term for term in terms(balancer)])


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = world.balance(MBSD(), criterion=nn.MSELoss())
    *inputs, _ = batch(10)
    with pytest.raises(eq.MatchError, match="MBSD is defined for one class per sample"):
        balancer.loss(world.model(*inputs), torch.randn(10, 3).double())


@pytest.mark.parametrize("what", ["similarity", "divergence"])
def test_a_negative_weight_is_refused(what: str) -> None:
    with pytest.raises(eq.SetupError, match=rf"MBSD\({what}\): expected a number of 0 or more"):
        MBSD(**{what: -1.0})
