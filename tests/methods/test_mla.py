"""MLA against a loop in NumPy and plain torch, and against what its public code gets wrong."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal import testing
from equimodal.functional.mla import entropy_weights, recursive_least_squares, unit_norm
from equimodal.methods.schedule.fusions import EntropyWeighted, FixedWeights
from equimodal.methods.schedule.mla import MLA
from equimodal.methods.schedule.projections import LeastSquares, UnitLeastSquares, Unprojected
from equimodal.testing import spawn
from support.slow import softmax
from support.worlds import World, batch, train, weights


def head_of(balancer: eq.Balancer) -> nn.Linear:
    (method,) = balancer.methods.methods
    assert isinstance(method, MLA)
    return method.head


# ---------------------------------------------------------------------- a training by hand


def by_hand(world: World, head: nn.Linear, batches: Any, ridge: float | None, unit: bool) -> None:
    """One optimizer for encoders and head, a whole step after every modality, as the paper trains.

    Encoders of the other modalities have no gradient in a step, so that it leaves them alone.
    """
    everything = [*world.model.encoders.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(everything, lr=world.lr, momentum=0.9, weight_decay=1e-2)
    projection, calls = np.eye(8), 0
    for *inputs, target in batches:
        for encoder, x in zip(world.encoders.values(), inputs, strict=True):
            feature = encoder(x)
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(feature), target).backward()
            mean = sum(row for row in feature.detach().numpy()) / len(feature)
            if ridge is not None and calls:
                gain = projection @ mean
                projection = projection - np.outer(gain, gain) / (ridge + float(mean @ gain))
                if unit:
                    projection = projection / np.sqrt(sum(p * p for p in projection.flat))
                assert head.weight.grad is not None
                head.weight.grad = torch.from_numpy(head.weight.grad.numpy() @ projection.T)
            calls += 1
            optimizer.step()


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(
    ("projection", "ridge", "unit"),
    [
        (UnitLeastSquares(0.1), 0.1, True),
        (LeastSquares(0.5), 0.5, False),
        (Unprojected(), None, False),
    ],
    ids=["unit", "plain", "unprojected"],
)
def test_equals_whole_steps_per_modality(
    modalities: int, projection: Any, ridge: float | None, unit: bool
) -> None:
    """One step of the user's and M sub-steps of the head are M whole steps."""
    batches = [batch(12, modalities, seed=seed) for seed in range(5)]
    world, twin = World(modalities), World(modalities)
    fused_head = weights(world.model.head)
    balancer = world.balance(MLA(projection=projection))
    balancer.make_modules(
        eq.Shapes(dict.fromkeys(balancer.names, (8,)), (3,), torch.device("cpu"), torch.float64)
    )
    head = copy.deepcopy(head_of(balancer))
    train(balancer, batches)
    by_hand(twin, head, batches, ridge, unit)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(head_of(balancer).weight, head.weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(head_of(balancer).bias, head.bias, rtol=1e-9, atol=1e-12)
    assert torch.equal(weights(world.model.head), fused_head), "the model's own head has moved"


# ---------------------------------------------------------------------- the equations


@pytest.mark.parametrize("seed", [0, 1])
def test_the_projection_is_that_of_regularised_least_squares(seed: int) -> None:
    """P is the inverse of I + sum r r^T / a: an oracle without any recursion."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    projection = torch.eye(5, dtype=torch.float64)
    for mean in means:
        projection = recursive_least_squares(projection, mean, 0.3)
    expected = np.linalg.inv(np.eye(5) + sum(np.outer(r, r) for r in means.numpy()) / 0.3)
    np.testing.assert_allclose(projection.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert float(unit_norm(projection).square().sum()) == pytest.approx(1)


def test_a_mean_of_zeros_and_a_projection_of_zeros_change_nothing() -> None:
    projection = torch.eye(3)
    assert torch.equal(recursive_least_squares(projection, torch.zeros(3), 0.1), projection)
    assert torch.equal(unit_norm(torch.zeros(3, 3)), torch.zeros(3, 3))


@pytest.mark.parametrize("modalities", [2, 3])
def test_entropy_weights_equal_the_loop_over_samples(modalities: int) -> None:
    generator = torch.Generator().manual_seed(modalities)
    logits = 3 * torch.randn(modalities, 7, 4, dtype=torch.float64, generator=generator)
    found = entropy_weights(logits)
    for i in range(7):
        entropies = []
        for m in range(modalities):
            p = softmax(logits[m, i].numpy())
            entropies.append(-sum(float(x * np.log(x)) for x in p))
        powers = [np.exp(max(entropies) - h) for h in entropies]
        np.testing.assert_allclose(found[:, i].numpy(), np.array(powers) / sum(powers), rtol=1e-9)


def test_entropy_weights_are_of_each_sample_not_of_the_batch() -> None:
    """The released code takes the softmax over the batch: a weight would depend on neighbours."""
    logits = 3 * torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([entropy_weights(logits[:, i : i + 1]) for i in range(7)], dim=1)
    torch.testing.assert_close(entropy_weights(logits), alone)
    assert entropy_weights(logits)[0].std() > 0
    certain = torch.tensor([[[torch.inf, 0.0]], [[0.0, -torch.inf]]])[1:]
    assert torch.equal(entropy_weights(certain), torch.ones(1, 1))


# ---------------------------------------------------------------------- defects of public code


def test_the_projection_acts_from_the_second_sub_step_on() -> None:
    """The released code looks for a name that no parameter has, and never projects."""
    each = [batch(12)]
    projected, plain = World(), World()
    heads, encoders = [], []
    for world, projection in ((projected, UnitLeastSquares()), (plain, Unprojected())):
        balancer = world.balance(MLA(projection=projection))
        train(balancer, each)
        heads.append(head_of(balancer).weight.detach().clone())
        encoders.append([weights(e) for e in world.encoders.values()])
    assert not torch.equal(heads[0], heads[1])
    # The very first sub-step is not projected, so that both encoders still saw the same heads.
    assert torch.equal(encoders[0][0], encoders[1][0])
    assert torch.equal(encoders[0][1], encoders[1][1])


def test_the_projection_keeps_no_graph() -> None:
    world = World()
    balancer = world.balance(MLA())
    train(balancer, [batch(12)])
    (method,) = balancer.methods.methods
    assert isinstance(method, MLA)
    assert not method.projector.requires_grad
    assert method.projector.grad_fn is None


def test_the_width_is_that_of_the_features() -> None:
    """BalanceMM has 512 by hand."""
    balancer = World().balance(MLA())
    train(balancer, [batch(12)])
    assert head_of(balancer).in_features == 8


class Uneven(testing.SmallModel):
    def __init__(self) -> None:
        super().__init__()
        self.encoders["visual"] = nn.Linear(5, 6)
        self.head = nn.Linear(14, 3)


def test_features_of_two_widths_are_refused_with_both() -> None:
    model = Uneven().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(MLA(), model, dict(model.encoders.items()), model.head, optimizer)
    *inputs, target = batch()
    with pytest.raises(eq.SetupError, match=r"one width.*'audio': 8, 'visual': 6"):
        balancer.loss(model(*inputs), target)


# ---------------------------------------------------------------------- edges


def test_a_missing_modality_is_left_out_of_loss_and_mean() -> None:
    """Samples that lack a modality change nothing, whatever their features are."""
    found = []
    for noise in (0.0, 7.0):
        world = World()
        balancer = world.balance(MLA())
        for seed in range(3):
            audio, visual, target = batch(12, seed=seed)
            here = torch.arange(12) % 3 > 0
            audio = torch.where(here[:, None], audio, audio + noise)
            loss = balancer.loss(world.model(audio, visual), target, present={"audio": here})
            balancer.backward(loss)
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        found.append(torch.cat([weights(world.model), weights(head_of(balancer))]))
    assert torch.equal(*found)


def test_a_batch_without_a_modality_and_a_batch_of_one_stay_finite() -> None:
    world = World()
    balancer = world.balance(MLA())
    for size, here in ((12, torch.zeros(12, dtype=torch.bool)), (1, torch.ones(1) > 0)):
        *inputs, target = batch(size)
        loss = balancer.loss(world.model(*inputs), target, present={"visual": here})
        balancer.backward(loss)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    assert weights(world.model).isfinite().all()
    assert weights(head_of(balancer)).isfinite().all()


def test_a_step_that_a_scaler_skips_does_not_spoil_the_head() -> None:
    """The head is stepped before anybody knows that the gradients overflow."""
    world = World()
    balancer = world.balance(MLA())
    train(balancer, [batch(12)])
    (method,) = balancer.methods.methods
    assert isinstance(method, MLA)
    projector, encoders = method.projector, weights(world.model)
    audio, visual, target = batch(12, seed=2)
    audio[3] = torch.inf
    scaler = torch.amp.GradScaler("cpu")
    balancer.backward(scaler.scale(balancer.loss(world.model(audio * 0, visual), target)))
    balancer.modulate(scaler)
    scaler.step(world.optimizer)
    scaler.update()
    world.optimizer.zero_grad()
    assert torch.equal(weights(world.model), encoders), "the scaler has not skipped"
    assert weights(head_of(balancer)).isfinite().all()
    assert method.projector.isfinite().all()
    assert not torch.equal(method.projector, projector), "the other modality has taught it"
    train(balancer, [batch(12, seed=3)])
    assert not torch.equal(weights(world.model), encoders)


def test_a_frozen_encoder_still_teaches_the_head() -> None:
    world = World()
    world.model.encoders["audio"].requires_grad_(False)
    balancer = world.balance(MLA())
    before = weights(world.model.encoders["audio"])
    train(balancer, [batch(12)])
    head = weights(head_of(balancer))
    train(balancer, [batch(12, seed=3)])
    assert torch.equal(weights(world.model.encoders["audio"]), before)
    assert not torch.equal(weights(head_of(balancer)), head)


def test_the_learning_rate_of_the_head_follows_the_users() -> None:
    world = World()
    balancer = world.balance(MLA())
    train(balancer, [batch(12)])
    before = weights(head_of(balancer))
    for group in world.optimizer.param_groups:
        group["lr"] = 0.0
    train(balancer, [batch(12, seed=2)])
    assert torch.equal(weights(head_of(balancer)), before)


# ---------------------------------------------------------------------- prediction


def test_predicts_by_weights_of_each_sample() -> None:
    world = World(3)
    balancer = world.balance(MLA())
    train(balancer, [batch(24, 3, seed=seed) for seed in range(4)])
    *inputs, _ = batch(9, 3, seed=8)
    with torch.no_grad():
        features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        alone = torch.stack([head_of(balancer)(feature) for feature in features])
        expected = (entropy_weights(alone)[..., None] * alone).sum(0)
        torch.testing.assert_close(balancer.predict(*inputs), expected)
        torch.testing.assert_close(balancer.unimodal_logits(*inputs)["text"], alone[2])


def test_predicts_by_fixed_weights() -> None:
    found = []
    shares = {"audio": 0.25, "visual": 0.75}
    for fusion in (FixedWeights(shares), FixedWeights()):
        balancer = World().balance(MLA(fusion=fusion))
        train(balancer, [batch(12)])
        *inputs, _ = batch(9, seed=8)
        with torch.no_grad():
            alone, fused = balancer.unimodal_logits(*inputs), balancer.predict(*inputs)
        found.append((alone["audio"], alone["visual"], fused))
    torch.testing.assert_close(found[0][2], 0.25 * found[0][0] + 0.75 * found[0][1])
    torch.testing.assert_close(found[1][2], (found[1][0] + found[1][1]) / 2)


def test_the_export_predicts_alike() -> None:
    world = World()
    balancer = world.balance(MLA())
    train(balancer, [batch(12)])
    *inputs, _ = batch(9, seed=8)
    world.model.eval()
    with torch.no_grad():
        expected = balancer.predict(*inputs)
    torch.testing.assert_close(balancer.export(*inputs)(*inputs), expected)


# ---------------------------------------------------------------------- ranks and settings


def on_rank(rank: int) -> tuple[Tensor, Tensor]:
    world = World()
    model = DistributedDataParallel(world.model)
    balancer = world.balance(MLA(), model=model)
    batches = [tuple(t[rank::2] for t in batch(16, seed=seed)) for seed in range(4)]
    train(balancer, batches, model=model)
    return weights(world.model), weights(head_of(balancer))


def test_two_ranks_equal_the_one_large_batch() -> None:
    world = World()
    balancer = world.balance(MLA())
    train(balancer, [batch(16, seed=seed) for seed in range(4)])
    for model, head in spawn(on_rank):
        torch.testing.assert_close(model, weights(world.model), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(head, weights(head_of(balancer)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LeastSquares(0), ["LeastSquares(ridge)", "found 0"]),
        (lambda: UnitLeastSquares(float("nan")), ["UnitLeastSquares(ridge)", "nan"]),
        (lambda: first_step(FixedWeights({"audio": 0.5, "vision": 0.5})), ["vision", "visual"]),
        (lambda: first_step(FixedWeights({"audio": 1.0})), ["visual", "summing to 1"]),
        (lambda: first_step(FixedWeights({"audio": 0.5, "visual": 0.6})), ["summing to 1", "0.6"]),
        (lambda: first_step(FixedWeights({"audio": 2, "visual": -1})), ["0 or more", "-1"]),
        (lambda: first_step(EntropyWeighted(), classes=1), ["two or more classes", "(B, 1)"]),
    ],
)
def test_bad_settings_are_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def first_step(fusion: Any, classes: int = 3) -> None:
    world = World(classes=classes)
    train(world.balance(MLA(fusion=fusion)), [batch(12, classes=classes)])
