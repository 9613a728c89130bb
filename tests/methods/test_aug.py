"""AUG against a training by hand that really adds classifiers, and what its public code does."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.epochs.run import Run
from equimodal.functional.aug import lagging_modalities, residual_loss
from equimodal.methods.objective.aug import AUG
from equimodal.methods.objective.growing import FixedHiddenLayer, HiddenLayer
from support.slow import softmax
from support.worlds import World, batch, train, weights


def made(world: World, method: AUG, **settings: Any) -> eq.Balancer:
    """A balancer whose classifiers are there before the first step."""
    balancer = world.balance(method, **settings)
    widths = dict.fromkeys(balancer.names, (8,))
    balancer.make_modules(eq.Shapes(widths, (3,), torch.device("cpu"), torch.float64))
    return balancer


def growing(**settings: Any) -> AUG:
    """One that checks after every epoch, and hardly tolerates a lag."""
    return AUG(
        **{"every": 1, "dead_zone": 0.0, "closing": math.inf, "most": 4, "width": 6, **settings}
    )


# ---------------------------------------------------------------------- equations


@pytest.mark.parametrize("seed", [0, 1])
def test_residual_loss_equals_the_loop_over_samples_and_classes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    newest, others = 2 * torch.randn(2, 9, 4, dtype=torch.float64, generator=generator)
    target = torch.randint(4, (9,), generator=generator)
    expected = []
    for i, y in enumerate(target.tolist()):
        p, q = softmax(newest[i].numpy()), softmax(others[i].numpy())
        one_hot = [float(c == y) for c in range(4)]
        left = [hot - 0.7 * hot * prob for hot, prob in zip(one_hot, q, strict=True)]
        assert min(left) >= 0, "a label is negative"
        expected.append(-sum(part * math.log(prob) for part, prob in zip(left, p, strict=True)))
    found = residual_loss(newest, others, target, 0.7)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-9, atol=0)


def test_no_gradient_flows_into_the_residual_labels() -> None:
    newest, others = torch.randn(2, 6, 4).requires_grad_().unbind()
    for leaf in (newest, others):
        leaf.retain_grad()
    residual_loss(newest, others, torch.arange(6) % 4).sum().backward()
    assert newest.grad is not None
    assert others.grad is None


@pytest.mark.parametrize("pair", [(0.8, 0.5), (0.5, 0.8), (0.6, 0.595), (0.6, 0.585)])
def test_of_two_modalities_the_weaker_grows_outside_of_the_dead_zone(
    pair: tuple[float, float],
) -> None:
    """The algorithm in the paper adds to the stronger one; its text and its code do not."""
    audio, visual = pair
    expected = [visual - audio > 0.01, audio - visual > 0.01]
    assert lagging_modalities(torch.tensor(pair)).tolist() == expected


@pytest.mark.parametrize("own", [0.1, 0.27, 0.28, 0.29, 0.4])
def test_of_three_modalities_those_grow_that_the_released_code_lets_grow(own: float) -> None:
    s = torch.tensor([own, 0.5, 0.5 - own], dtype=torch.float64)  # its bound is 2 / 7 of the sum
    expected = [bool(s[m] / (s.sum() - s[m]) < 0.4) for m in range(3)]
    assert lagging_modalities(s, coefficient=1.25, dead_zone=0.0).tolist() == expected


def test_a_modality_of_which_nothing_is_known_is_left_out() -> None:
    nan = math.nan
    assert lagging_modalities(torch.tensor([0.2, nan, 0.9])).tolist() == [True, False, False]
    assert lagging_modalities(torch.tensor([0.2, nan])).tolist() == [False, False]


# ---------------------------------------------------------------------- a training by hand


class ByHand:
    """The same training, with classifiers that are added to the optimizer when they are needed."""

    def __init__(self, world: World, method: AUG) -> None:
        self.encoders, self.optimizer = list(world.encoders.values()), world.optimizer
        self.layers: Any = copy.deepcopy(method.classifiers.hidden)
        self.last: Any = copy.deepcopy(method.classifiers.shared)[0]
        self.fixed = isinstance(method.classifiers.added, FixedHiddenLayer)
        self.counts = [1] * len(self.encoders)
        first = [p for layers in self.layers for p in layers[0].parameters()]
        self.own = torch.optim.SGD(
            [*first, *self.last.parameters()], lr=0.1, momentum=0.9, weight_decay=1e-2
        )

    def deltas(self, m: int, x: Tensor) -> list[Tensor]:
        feature = self.encoders[m](x)
        layers = self.layers[m][: self.counts[m]]
        return [self.last(layer(feature).clamp(min=0)) for layer in layers]

    def epoch(self, batches: list[tuple[Tensor, ...]]) -> None:
        sums, samples = [0.0] * len(self.counts), 0
        for *inputs, target in batches:
            loss: Any = 0
            samples += len(target)
            for m, x in enumerate(inputs):
                *before, newest = self.deltas(m, x)
                boosted = sum(before, newest)
                loss = loss + F.cross_entropy(boosted, target)
                for i, y in enumerate(target.tolist()):
                    sums[m] += softmax(boosted[i].detach().numpy())[y]
                    if before:
                        others = sum(before[1:], before[0])[i]
                        left = 1 - 0.5 * others.detach().softmax(0)[y]
                        residual = -left * newest[i].log_softmax(0)[y]
                        pre = -others.log_softmax(0)[y]
                        loss = loss + (residual + pre) / len(target)
            self.optimizer.zero_grad()
            self.own.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.own.step()
        sure = [total / samples for total in sums]
        for m, own in enumerate(sure):
            others_mean = sum(s for j, s in enumerate(sure) if j != m) / (len(sure) - 1)
            if others_mean > own and self.counts[m] < len(self.layers[m]):
                self.counts[m] += 1
                if not self.fixed:
                    added = self.layers[m][self.counts[m] - 1]
                    self.own.add_param_group({"params": list(added.parameters())})


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("added", [HiddenLayer(), FixedHiddenLayer()])
def test_equals_the_hand_written_training(modalities: int, added: HiddenLayer) -> None:
    batches = [batch(12, modalities, seed=seed) for seed in range(2)]
    world, twin = World(modalities), World(modalities)
    method = growing(added=added)
    balancer = made(world, method)
    by_hand = ByHand(twin, method)
    head = weights(world.model.head)
    unlike = False
    for _ in range(5):
        train(balancer, batches)
        balancer.end_epoch()
        trained = list(by_hand.counts)
        by_hand.epoch(batches)
        assert list(method.counts.values()) == by_hand.counts
        unlike = unlike or len(set(by_hand.counts)) > 1
    assert max(by_hand.counts) > 2, "too few classifiers to tell sums of them apart"
    assert unlike, "no modality was judged to be stronger"
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-11)
    for found, expected in (
        (method.classifiers.hidden, by_hand.layers),
        (method.classifiers.shared, by_hand.last),
    ):
        torch.testing.assert_close(weights(found), weights(expected), rtol=1e-8, atol=1e-11)
    assert torch.equal(weights(world.model.head), head), "the model's own head has moved"
    *inputs, _ = batches[0]
    by_hand.counts = trained  # one that no step has trained yet does not vote
    with torch.no_grad():
        alone = [sum(by_hand.deltas(m, x)) for m, x in enumerate(inputs)]
        torch.testing.assert_close(balancer.predict(*inputs), sum(alone) / modalities)
        unimodal = balancer.unimodal_logits(*inputs)
    torch.testing.assert_close(list(unimodal.values()), alone)


# ---------------------------------------------------------------------- who trains when


@pytest.mark.parametrize("adam", [False, True])
def test_what_is_not_in_use_does_not_move(adam: bool) -> None:
    """Momentum and weight decay would move it, if its gradient were zero."""
    world = World(adam=adam)
    method = growing(every=3)
    balancer = made(world, method)
    hidden: Any = method.classifiers.hidden
    layers = [layer for of in hidden for layer in of]
    for epoch in range(5):
        before = [weights(layer) for layer in layers]
        used = {m * 4 + j for m, n in enumerate(method.counts.values()) for j in range(n)}
        train(balancer, [batch(12, seed=epoch)])
        moved = {i for i, layer in enumerate(layers) if not torch.equal(weights(layer), before[i])}
        assert moved == used, f"epoch {epoch}"
        balancer.end_epoch()
    assert len(used) == 3


def test_the_released_code_never_trains_what_it_adds() -> None:
    """Its optimizer is made before classifiers are added, and does not hear of them."""
    world = World()
    method = growing(added=FixedHiddenLayer())
    balancer = made(world, method)
    hidden: Any = method.classifiers.hidden
    before = copy.deepcopy(hidden)
    for seed in range(4):
        train(balancer, [batch(12, seed=seed)])
        balancer.end_epoch()
    assert max(method.counts.values()) > 1
    for old, new in zip(before, hidden, strict=True):
        assert torch.equal(weights(old[1:]), weights(new[1:]))
        assert not torch.equal(weights(old[0]), weights(new[0]))


def test_it_is_checked_every_so_many_epochs_and_has_an_end() -> None:
    world = World()
    method = growing(every=2, most=2)
    balancer = made(world, method)
    seen = []
    for seed in range(8):
        train(balancer, [batch(12, seed=seed)])
        balancer.end_epoch()
        seen.append(sum(method.counts.values()))
    assert seen[0] == 2
    assert all(seen[i] == seen[i + 1] for i in range(1, 7, 2)), "checked in between"
    assert max(method.counts.values()) == 2
    balancer.end_epoch()
    balancer.end_epoch()  # an epoch without a step says nothing
    assert sum(method.counts.values()) == seen[-1]


def test_a_modality_that_the_last_classifier_did_not_help_gets_no_more() -> None:
    """At high rates a gap of information, or of its own making, would else give one every check."""
    method = growing(closing=0.5)
    made(World(), method).end_epoch()
    for gap, grows in ((0.4, True), (0.3, False), (0.19, True), (0.11, False), (0.09, True)):
        before = method.counts["visual"]
        method.classifiers.counts["visual"] = before
        method._growing = ()
        method.true_class = torch.tensor([0.9, 0.9 - gap], dtype=torch.float64)
        method.samples = torch.ones(2, dtype=torch.float64)
        method.end_epoch(Run(made(World(), eq.Joint())))
        assert (method.counts["visual"] > before) == grows, gap


def test_a_dead_zone_that_nobody_leaves() -> None:
    method = growing(dead_zone=1.0)
    balancer = made(World(), method)
    for seed in range(3):
        train(balancer, [batch(12, seed=seed)])
        balancer.end_epoch()
    assert set(method.counts.values()) == {1}


@pytest.mark.parametrize("micro", [1, 3])
def test_confidence_is_of_all_samples_of_the_epoch(micro: int) -> None:
    method = growing()
    balancer = made(World(), method)
    train(balancer, [batch(12, seed=seed) for seed in range(2)], micro=micro)
    assert method.samples.tolist() == [24, 24]
    expected = growing()
    train(made(World(), expected), [batch(12, seed=seed) for seed in range(2)])
    torch.testing.assert_close(method.true_class, expected.true_class, rtol=1e-9, atol=0)


def test_a_fresh_balancer_goes_on_with_as_many_classifiers() -> None:
    world, method = World(), growing()
    balancer = made(world, method)
    for seed in range(3):
        train(balancer, [batch(12, seed=seed)])
        balancer.end_epoch()
    train(balancer, [batch(12, seed=3)])  # stopped within an epoch
    other = growing()
    World().balance(other).load_state_dict(balancer.state_dict())
    assert other.counts == method.counts
    assert sum(other.counts.values()) > 2
    assert torch.equal(other.true_class, method.true_class)
    assert torch.equal(other.samples, method.samples)


# ---------------------------------------------------------------------- prediction


def test_predicts_by_given_weights_and_the_export_does_alike() -> None:
    world = World()
    method = growing(fusion=eq.FixedWeights({"audio": 0.4, "visual": 0.6}))
    balancer = made(world, method)
    for seed in range(3):
        train(balancer, [batch(12, seed=seed)])
        balancer.end_epoch()
    *inputs, _ = batch(9, seed=7)
    world.model.eval()
    with torch.no_grad():
        alone = balancer.unimodal_logits(*inputs)
        found = balancer.predict(*inputs)
    torch.testing.assert_close(found, 0.4 * alone["audio"] + 0.6 * alone["visual"])
    torch.testing.assert_close(balancer.export(*inputs)(*inputs), found)


# ---------------------------------------------------------------------- edges


@pytest.mark.parametrize("missing", ["audio", "visual"])
def test_nothing_depends_on_what_stands_in_for_a_missing_modality(missing: str) -> None:
    found = []
    for noise in (0.0, 7.0):
        world, method = World(), growing()
        balancer = made(world, method)
        method.classifiers.grow(missing)
        for epoch in range(3):
            data = dict(zip(("audio", "visual", "target"), batch(12, seed=epoch), strict=True))
            here = torch.arange(12) % 3 > 0
            data[missing] = torch.where(here[:, None], data[missing], data[missing] + noise)
            loss = balancer.loss(
                world.model(data["audio"], data["visual"]), data["target"], present={missing: here}
            )
            balancer.backward(loss)
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        assert sorted(method.samples.tolist()) == [24, 36]
        found.append(torch.cat([weights(world.model), method.true_class]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_an_ignored_sample_equals_one_that_is_not_there() -> None:
    found = []
    for cut in (False, True):
        world, method = World(), growing()
        balancer = made(world, method)
        method.classifiers.grow("visual")
        *inputs, target = batch(12)
        target[8:] = -100
        size = 8 if cut else 12
        train(balancer, [(*(x[:size] for x in inputs), target[:size])])
        found.append(torch.cat([weights(world.model), method.true_class, method.samples]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = made(world, growing(), criterion=nn.functional.mse_loss)
    *inputs, _ = batch(12)
    with pytest.raises(eq.MatchError, match="one class per sample"):
        balancer.loss(world.model(*inputs), torch.rand(12, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AUG(every=0), ["every", "1 or more", "0"]),
        (lambda: AUG(most=1.5), ["most", "whole number", "1.5"]),  # type: ignore[arg-type]
        (lambda: AUG(width=0), ["width", "0"]),
        (lambda: AUG(softening=1.5), ["softening", "negative", "1.5"]),
        (lambda: AUG(coefficient=0), ["coefficient", "above 0"]),
        (lambda: AUG(dead_zone=-1), ["dead_zone", "-1"]),
        (lambda: AUG(dead_zone=math.nan), ["dead_zone", "nan"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
