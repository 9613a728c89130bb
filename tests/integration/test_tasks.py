"""Tasks beyond single-label classification, each against a loop written out by hand."""

from __future__ import annotations

import copy
import dataclasses
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal import functional
from equimodal import nn as enn
from equimodal.criterion import Criterion
from equimodal.scores import Auto
from equimodal.testing import spawn
from support.tasks import (
    ALPHA,
    NAMES,
    PADDING,
    TASKS,
    Directions,
    Host,
    Joined,
    Task,
    World,
    as_query,
    binary,
    contrastive_batch,
    cosines,
    draw,
    info_nce,
    multi_label_batch,
    scalar_batch,
    session_batch,
    squared,
    true_class,
    vectors,
)
from support.worlds import weights

ROOT = Path(eq.__file__).parents[2]


each_task = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


def compare(found: Mapping[str, float], expected: Mapping[str, float], rel: float = 1e-9) -> None:
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=rel, abs=1e-12), key


def same(one: World, other: World, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        weights(one.model), weights(other.model), rtol=tolerance, atol=tolerance / 10
    )


@each_task
@pytest.mark.parametrize("modalities", [2, 3])
def test_equals_the_loop_by_hand(task: Task, modalities: int) -> None:
    world, hand = World(task, modalities), World(task, modalities)
    balancer = world.balance()
    ks = []
    for seed in range(4):
        batch = task.batch(modalities, 8, seed)
        expected = hand.by_hand(batch)
        compare(world.train(balancer, batch), expected)
        ks += [expected[f"coefficient/{name}"] for name in NAMES[:modalities]]
    assert min(ks) < 1  # a modality was throttled, or the comparison says nothing
    same(world, hand)


@each_task
def test_single_precision(task: Task) -> None:
    batch = task.batch(2, 8, 1)
    single = [part.float() if part.is_floating_point() else part for part in batch]
    criterion = copy.deepcopy(task.criterion)
    if isinstance(criterion, nn.Module):
        criterion.float()  # its weights
    world = World(task, dtype=torch.float32)
    found = world.train(world.balance(criterion=criterion), single)
    expected = World(task)
    expected.model.load_state_dict(World(task, dtype=torch.float32).model.state_dict())
    compare(found, expected.by_hand(batch), rel=1e-6 if task.alone else 3e-6)


@each_task
def test_four_micro_batches(task: Task) -> None:
    """They equal the large batch where the loss is a mean over samples that do not see each other."""
    world, hand = World(task), World(task)
    balancer = world.balance()
    large = World(task)
    whole = task.batch(2, 24, 1)
    expected = hand.by_hand(whole, micro=4)
    compare(world.train(balancer, whole, micro=4), expected)
    same(world, hand)
    once = large.train(large.balance(), whole)
    if task.alone:
        compare(once, {k: v for k, v in expected.items() if k.startswith("evidence")})
    else:  # fewer candidates to tell the partner from
        assert expected["evidence/audio"] > 1.5 * once["evidence/audio"]
    if task is not TASKS["localisation"] and task.alone:
        same(world, large)


def test_accumulating_padded_sessions_with_a_mean_over_samples() -> None:
    """Torch's mean over segments weighs a micro-batch with much padding as one with little."""

    def per_session(
        logits: Tensor, target: Tensor, reduction: str = "mean", ignore_index: int = PADDING
    ) -> Tensor:
        losses = F.cross_entropy(logits, target, reduction="none", ignore_index=ignore_index)
        losses = losses.sum(1) / (target != ignore_index).sum(1).clamp(min=1)
        return losses.mean() if reduction == "mean" else losses

    task = TASKS["localisation"]
    batch = task.batch(2, 24, 1)
    for criterion, alike in ((per_session, True), (task.criterion, False)):
        large, small = World(task), World(task)
        one = large.train(large.balance(criterion=criterion), batch)
        several = small.train(small.balance(criterion=criterion), batch, micro=4)
        compare(several, {k: v for k, v in one.items() if k.startswith(("evidence", "ratio"))})
        assert torch.allclose(weights(large.model), weights(small.model), rtol=1e-9) == alike


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.alone])
@pytest.mark.parametrize("modalities", [2, 3])
def test_missing_samples(name: str, modalities: int) -> None:
    world, hand = World(TASKS[name], modalities), World(TASKS[name], modalities)
    batch = TASKS[name].batch(modalities, 8, 3)
    present = {"visual": torch.arange(8) % 3 > 0}
    expected = hand.by_hand(batch, present=present)
    compare(world.train(world.balance(), batch, present=present), expected)
    same(world, hand)


class Times(nn.Module):
    """A criterion a hundred million times as large."""

    factor = 1e8

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss
        self.reduction = "mean"
        self.ignore_index = getattr(loss, "ignore_index", None)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if not isinstance(self.loss, nn.Module):
            return self.factor * self.loss(logits, target, reduction=self.reduction)
        loss: Any = copy.copy(self.loss)
        loss.reduction = self.reduction
        return self.factor * loss(logits, target)


@each_task
def test_huge_losses(task: Task) -> None:
    """exp(-loss) is 0 in double precision from 746 on; ratios and coefficients still are right."""

    def elements(u: Tensor, y: Tensor) -> list[Tensor]:
        return [Times.factor * loss for loss in task.elements(u, y)]

    huge = dataclasses.replace(task, criterion=Times(task.criterion), elements=elements)
    world, hand = World(huge), World(huge)
    batch = task.batch(2, 8, 1)
    found, expected = world.train(world.balance(), batch), hand.by_hand(batch)
    assert found["evidence/audio"] == found["evidence/visual"] == 0
    compare(found, {k: v for k, v in expected.items() if k.startswith("coefficient")})
    assert {found["coefficient/audio"], found["coefficient/visual"]} == {0, 1}
    torch.testing.assert_close(weights(world.model), weights(hand.model))


@each_task
def test_autocast(task: Task) -> None:
    """Unimodal logits are those of half precision; losses and evidence are of single precision."""
    world = World(task, dtype=torch.float32)
    criterion = copy.deepcopy(task.criterion)
    if isinstance(criterion, nn.Module):
        criterion.float()  # its weights
    batch = [p.float() if p.is_floating_point() else p for p in task.batch(2, 8, 1)]
    *given, target = batch
    balancer = world.balance(criterion=criterion)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            unimodal = [u.float() for u in world.model.head.alone(world.model.features(given))]
        logits = world.model(*given)
        balancer.backward(balancer.loss(logits, target))
    balancer.modulate()
    found = balancer.metrics()
    wide = target.double() if target.is_floating_point() else target
    for name, of in zip(NAMES, unimodal, strict=False):
        each = [task.elements(u.double(), y) for u, y in zip(of, wide, strict=True)]
        scores = [math.exp(-sum(map(float, e)) / len(e) / task.temperature) for e in each if e]
        # a product with the head's weight may be rounded to half precision in another order
        assert found[f"evidence/{name}"] == pytest.approx(sum(scores) / len(scores), rel=5e-3)


def test_scores_may_be_given_to_another_balancer() -> None:
    """The split of the first model's head is not that of the second's."""
    task = TASKS["multi-label"]
    for scores in (eq.Split(), Auto()):
        for seed in (0, 1):
            world, hand = World(task), World(task)
            for each in (world, hand):
                torch.manual_seed(seed)
                nn.init.normal_(each.model.head.linear.weight)
            batch = task.batch(2, 8, seed)
            compare(world.train(world.balance(scores=scores), batch), hand.by_hand(batch))


# ---------------------------------------------------------------- regression: shapes


@pytest.mark.parametrize("head", ["linear", "own method"])
def test_an_output_that_the_model_squeezes_is_split_exactly(head: str) -> None:
    class Squeezed(Host):
        def forward(self, *given: Tensor) -> Tensor:
            return super().forward(*given).squeeze(1)

    class Kept(Joined):
        def forward(self, *features: Tensor) -> Tensor:
            logits: Tensor = self.linear(torch.cat(features, dim=-1))
            return logits

    def make(modalities: int) -> Host:
        own = head == "own method"
        widths = dict.fromkeys(NAMES[:modalities], 8)
        return Squeezed(vectors(modalities), enn.Concat(widths, 1) if own else Kept(modalities, 1))

    task = Task(make, scalar_batch, nn.MSELoss(), squared, eq.Split(5.0), 5.0)
    world, hand = World(task), World(TASKS["regression, squared"])
    hand.model.load_state_dict(world.model.state_dict())
    batch = task.batch(2, 8, 1)
    compare(world.train(world.balance(), batch), hand.by_hand(batch))


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_a_target_that_would_be_broadcast_is_refused(loss: nn.Module) -> None:
    """(B, 1) against (B,) gives B x B losses, each sample's with every other's target."""
    with (
        pytest.warns(UserWarning, match="broadcasting"),
        pytest.raises(eq.MatchError, match=r"\(6, 1\).*\(6,\).*same shape"),
    ):
        Criterion(loss).per_sample(torch.randn(6, 1), torch.randn(6))


def test_the_temperature_of_the_mean_gives_it_one_over_e() -> None:
    target = draw(400, seed=1) * 7 + 3
    criterion = nn.MSELoss()
    constant = target.mean().expand_as(target)
    temperature = criterion(constant, target)
    assert temperature.item() == pytest.approx(target.var(correction=0).item())
    losses = Criterion(criterion).per_sample(constant, target) / temperature
    assert losses.mean().item() == pytest.approx(1)


def test_scores_stay_defined_where_the_sum_of_losses_overflows() -> None:
    losses = torch.full((4,), 3e38)
    assert functional.log_score(losses, temperature=1e38).item() == pytest.approx(math.log(4) - 3)


# ---------------------------------------------------------------- multi-label: weights of samples


@pytest.mark.parametrize("shape", [(8, 1), (8, 4), (4,)])
def test_binary_losses_with_a_weight_for_samples(shape: tuple[int, ...]) -> None:
    """Losses of several modalities were read in one call, where such a weight does not fit."""
    weight = draw(*shape, seed=5).abs()
    *_, target = multi_label_batch(2, 8, 1)
    logits = [draw(8, 4, seed=seed) for seed in (6, 7)]
    criterion = nn.BCEWithLogitsLoss(weight=weight)
    found = Criterion(criterion).each_per_sample(logits, target)
    each = weight.expand(8, 4)
    for losses, u in zip(found, logits, strict=True):
        for i in range(8):
            by_hand = sum(binary(u[i], target[i], torch.ones(4), each[i])) / 4
            assert losses[i].item() == pytest.approx(by_hand.item(), rel=1e-9)


def test_labels_that_are_unknown_by_a_criterion_of_ones_own() -> None:
    def known(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits, target.nan_to_num(), reduction="none")
        has = target.isfinite()
        losses = (losses * has).sum(1) / has.sum(1).clamp(min=1)
        return losses.mean() if reduction == "mean" else losses

    target = torch.tensor([[1.0, math.nan, 0.0], [math.nan, 1.0, math.nan]])
    logits = torch.randn(2, 3)
    found = Criterion(known).per_sample(logits, target)
    first = F.binary_cross_entropy_with_logits(logits[0, [0, 2]], target[0, [0, 2]])
    second = F.binary_cross_entropy_with_logits(logits[1, 1], target[1, 1])
    torch.testing.assert_close(found, torch.stack([first, second]))


# ---------------------------------------------------------------- localisation: layouts


class Flat(Host):
    def forward(self, *given: Tensor) -> Tensor:
        return super().forward(*given).flatten(0, 1)


@pytest.mark.parametrize("own", [False, True])
def test_flattened_segments_are_samples_of_their_own(own: bool) -> None:
    head = enn.Concat({"audio": 8, "visual": 8}, 4) if own else Joined(2, 4)
    task = Task(lambda m: Flat(vectors(m), head), session_batch, nn.CrossEntropyLoss(), true_class)
    world = World(task)
    *given, target = session_batch(2, 8, 1)
    alone = Joined.alone(world.model.head, world.model.features(given))  # type: ignore[arg-type]
    target = target.flatten()
    found = world.train(world.balance(), [*given, target])
    for name, logits in zip(NAMES, alone, strict=False):
        of = logits.detach().flatten(0, 1).softmax(1)
        scores = [of[i, y].item() for i, y in enumerate(target) if y != PADDING]
        assert found[f"evidence/{name}"] == pytest.approx(sum(scores) / len(scores), rel=1e-9)


def test_classes_last_by_a_criterion_of_ones_own() -> None:
    def classes_last(
        logits: Tensor, target: Tensor, reduction: str = "mean", ignore_index: int = PADDING
    ) -> Tensor:
        logits = logits.transpose(1, 2)
        return F.cross_entropy(logits, target, reduction=reduction, ignore_index=ignore_index)

    *_, target = session_batch(2, 8, 1)
    logits = draw(8, 4, 5, seed=3)
    torchs, own = Criterion(nn.CrossEntropyLoss()), Criterion(classes_last)
    torch.testing.assert_close(
        own.per_sample(logits.transpose(1, 2), target), torchs.per_sample(logits, target)
    )
    assert torch.equal(own.ignored(target), torchs.ignored(target))  # type: ignore[arg-type]


def test_classes_and_segments_that_change_places_after_the_head_are_refused() -> None:
    """With as many segments as classes the shapes fit, and the evidence would be of nothing."""

    class Transposed(Host):
        def forward(self, *given: Tensor) -> Tensor:
            return super().forward(*given).transpose(1, 2)

    head = enn.Concat({"audio": 8, "visual": 8}, 5)
    task = Task(lambda m: Transposed(vectors(m), head), session_batch, F.cross_entropy, true_class)
    world = World(task)
    with pytest.raises(eq.MatchError, match="let the head include the last operations"):
        world.train(world.balance(), session_batch(2, 8, 1))


# ---------------------------------------------------------------- contrastive: dual encoders, ranks


class Dual(Host):
    """No head at all: the model returns the similarities, or the embeddings themselves."""

    joins = True

    def forward(self, *given: Tensor) -> Any:
        features = self.features(given)
        if self.joins:
            return Directions()(*features)
        return tuple(F.normalize(feature, dim=1) for feature in features)


@pytest.mark.parametrize("joins", [True, False], ids=["similarities", "embeddings"])
def test_a_dual_encoder_without_a_head(joins: bool) -> None:
    contrastive = TASKS["contrastive"]
    world, hand = World(contrastive), World(contrastive)
    model = Dual(vectors(2), nn.Identity()).double()
    model.load_state_dict(world.model.state_dict())
    model.joins = joins
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    balancer = eq.Balancer(
        eq.OGM(ALPHA), model, dict(model.encoders.items()), None, optimizer,
        criterion=info_nce, scores=as_query, track_every=1,
    )  # fmt: skip
    for seed in range(3):
        *given, target = contrastive.batch(2, 8, seed)
        output = model(*given)
        logits = output if joins else Directions()(*output)
        balancer.backward(balancer.loss(logits, target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        compare(balancer.metrics(), hand.by_hand([*given, target]))
    torch.testing.assert_close(weights(model), weights(hand.model), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("modalities", "noise"), [(2, None), (2, 1), (3, 2), (3, 0)])
def test_what_directions_can_tell(modalities: int, noise: int | None) -> None:
    """Two directions read one matrix: noise shows with three modalities, and not with two."""

    def related(seed: int) -> list[Tensor]:
        shared = draw(16, 4, seed=seed)
        given = [shared @ draw(4, 4 + i, seed=900 + i) for i in range(modalities)]
        if noise is not None:
            given[noise] = draw(16, 4 + noise, seed=5000 + seed)
        return [*given, torch.arange(16)]

    world = World(TASKS["contrastive"], modalities)
    balancer = world.balance(method=eq.Joint())
    steps = [world.train(balancer, related(seed)) for seed in range(200)][-30:]
    ratios = [sum(s[f"ratio/{n}"] for s in steps) / 30 for n in NAMES[:modalities]]
    for i, ratio in enumerate(ratios):
        if modalities == 2:
            assert ratio == pytest.approx(1, abs=0.02)
        else:
            assert ratio == pytest.approx(0.41 if i == noise else 1.41, abs=0.05)


def test_a_symmetric_scalar_cannot_be_read_per_sample() -> None:
    def symmetric(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)

    with pytest.raises(eq.MatchError, match="symmetric"):
        Criterion(symmetric).per_sample(torch.randn(5, 5), torch.arange(5))


def everyone(embedding: Tensor) -> Tensor:
    """The embeddings of all ranks, with gradients to each of them."""
    return torch.cat(list(all_gather(embedding.contiguous())))  # type: ignore[no-untyped-call]


class Gathering(Host):
    """Asks with the samples of this rank among the candidates of all."""

    def forward(self, *given: Tensor) -> Tensor:
        a, v = self.features(given)
        return torch.stack([cosines(a, everyone(v)), cosines(v, everyone(a))], dim=2)


def as_gathered_query(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    a, v = features.values()
    return {
        "audio": cosines(a, everyone(v))[..., None],
        "visual": cosines(v, everyone(a))[..., None],
    }


def contrastive_on_ranks(rank: int) -> tuple[Tensor, dict[str, float]]:
    torch.manual_seed(0)
    bare = Gathering(vectors(2), nn.Identity()).double()
    model = DistributedDataParallel(bare)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1, momentum=0.9)
    balancer = eq.Balancer(
        eq.OGM(ALPHA), model, dict(bare.encoders.items()), None, optimizer,
        criterion=info_nce, scores=as_gathered_query, track_every=1,
    )  # fmt: skip
    for seed in range(3):
        *given, target = (part.chunk(2)[rank] for part in contrastive_batch(2, 8, seed))
        balancer.backward(balancer.loss(model(*given), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    assert dist.get_world_size() == 2
    return weights(bare), balancer.metrics()


def test_gathered_negatives_on_two_ranks_equal_the_large_batch() -> None:
    (first, metrics), (second, _) = spawn(contrastive_on_ranks)
    assert torch.equal(first, second)
    hand = World(TASKS["contrastive"])
    for seed in range(3):
        expected = hand.by_hand(contrastive_batch(2, 8, seed))
    compare(metrics, expected)
    torch.testing.assert_close(first, weights(hand.model), rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------- the examples


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "tasks").glob("*.py")), ids=lambda path: path.stem
)
def test_examples_run(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), "--quick"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.startswith(("mfeat", "watch"))  # which data, which split
    assert [line.split()[0] for line in lines if " test " in line] == ["plain", "OGM-GE"]
    evidence = [line for line in lines if line.startswith("    ")]
    assert len(evidence) >= 4
    for line in evidence:
        _, *pairs = line.split()
        found = dict(zip(pairs[::2], map(float, pairs[1::2]), strict=True))
        assert set(found) == {"evidence", "ratio", "coefficient"}
        assert 0 < found["evidence"] < 1
        assert 0 < found["coefficient"] <= 1
