"""Modality dropout against a loop that a user would write by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.modality_dropout import keep_modalities, keep_probability
from equimodal.methods.features.modality_dropout import ModalityDropout
from support import slow
from support.worlds import World, batch, train, weights

# ---------------------------------------------------------------------- by hand


class Stream:
    """The numbers of one sample after the other: 64 from each seed."""

    def __init__(self, numbers: int, seed: int = 0, tag: int = 1, rank: int = 0) -> None:
        self.numbers, self.key, self.rank, self.next = numbers, slow.splitmix(seed, tag), rank, 0

    def one(self) -> list[float]:
        block, place = divmod(self.next, 64)
        self.next += 1
        seeded = torch.Generator().manual_seed(slow.splitmix(self.key, self.rank, block))
        return torch.rand(64, self.numbers, generator=seeded)[place].tolist()  # type: ignore[no-any-return]


def slow_keep(numbers: list[float], probabilities: list[float]) -> list[bool]:
    *own, spared = numbers
    keep = [x >= p for x, p in zip(own, probabilities, strict=True)]
    if not any(keep):
        keep[int(spared * len(keep))] = True
    return keep


def hand_written(
    world: World,
    batches: list[tuple[Tensor, ...]],
    probabilities: list[float],
    scales: list[float],
) -> list[list[bool]]:
    stream = Stream(len(probabilities) + 1)
    history = []
    for *inputs, target in batches:
        features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        rows = []
        for i in range(len(target)):
            keep = slow_keep(stream.one(), probabilities)
            history.append(keep)
            rows.append(
                torch.cat(
                    [
                        scale * feature[i] if kept else 0 * feature[i]
                        for feature, kept, scale in zip(features, keep, scales, strict=True)
                    ]
                )
            )
        loss = F.cross_entropy(world.model.head(torch.stack(rows)), target)
        world.optimizer.zero_grad()
        loss.backward()
        world.optimizer.step()
    return history


@pytest.mark.parametrize("modalities", [2, 3])
def test_equals_the_hand_written_loop(modalities: int) -> None:
    batches = [batch(30, modalities, seed=seed) for seed in range(7)]  # blocks end within batches
    p = 0.5
    kept = 1 - p + p**modalities / modalities
    by_hand, world = World(modalities), World(modalities)
    history = hand_written(by_hand, batches, [p] * modalities, [1 / kept] * modalities)
    train(world.balance(ModalityDropout()), batches)
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)
    assert all(any(keep) for keep in history)
    assert {tuple(keep) for keep in history} > {(True,) * modalities}


def test_a_probability_for_each_modality_and_no_rescaling() -> None:
    batches = [batch(20, 3, seed=seed) for seed in range(4)]
    by_hand, world = World(3), World(3)
    hand_written(by_hand, batches, [0.8, 0.0, 0.3], [1.0, 1.0, 1.0])
    train(world.balance(ModalityDropout({"audio": 0.8, "text": 0.3}, scale=1.0)), batches)
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


def test_micro_batches_draw_what_the_large_batch_does() -> None:
    batches = [batch(24, seed=seed) for seed in range(4)]
    large, small = World(), World()
    train(large.balance(ModalityDropout()), batches)
    train(small.balance(ModalityDropout()), batches, micro=3)
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- the equation


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_how_often_a_modality_is_kept(modalities: int) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(modalities, generator=generator, dtype=torch.float64)
    numbers = torch.rand(400_000, modalities + 1, generator=generator, dtype=torch.float64)
    keep = keep_modalities(numbers[:, :-1], numbers[:, -1], probabilities)
    assert keep.any(dim=1).all()
    expected = keep_probability(probabilities)
    torch.testing.assert_close(keep.double().mean(0), expected, rtol=0, atol=4e-3)


def test_the_last_number_below_1_brings_the_last_modality_back() -> None:
    almost = torch.tensor([1 - 2**-24])
    keep = keep_modalities(torch.zeros(1, 3), almost, torch.full((3,), 0.5))
    assert keep.tolist() == [[False, False, True]]


# ---------------------------------------------------------------------- what it leaves alone


def seen_by_head(world: World, inputs: list[Tensor]) -> Tensor:
    seen: list[Tensor] = []
    handle = world.model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    world.model(*inputs)
    handle.remove()
    return seen[0].detach()


def test_evaluation_drops_nothing_and_draws_nothing() -> None:
    world = World()
    method = ModalityDropout(0.9)
    balancer = world.balance(method)
    *inputs, target = batch()
    whole = seen_by_head(World(), inputs)
    world.model.eval()
    assert torch.equal(seen_by_head(world, inputs), whole)
    world.model.train()
    with torch.no_grad():
        assert torch.equal(seen_by_head(world, inputs), whole)
    balancer.check((*inputs, target))
    assert method.draws.count == 0
    dropped = seen_by_head(world, inputs)
    assert ((dropped == 0).view(24, 2, 8).all(dim=2).sum(dim=1) <= 1).all()
    assert (dropped == 0).any()
    assert method.draws.count == 24


def test_scores_are_read_through_the_linear_head_as_without_dropout() -> None:
    """The features that the logits are compared with are those the head was given."""
    world = World()
    balancer = world.balance(eq.OGM(0.8), ModalityDropout(0.5), track_every=1)
    train(balancer, [batch()])
    assert isinstance(balancer.scores.chosen, eq.Split)
    plain = World()
    reference = plain.balance(eq.OGM(0.8), track_every=1)
    train(reference, [batch()])
    ours, theirs = balancer.metrics(), reference.metrics()
    assert ours["ratio/audio"] == pytest.approx(theirs["ratio/audio"], rel=1e-12)


def test_samples_that_lost_all_they_had_add_nothing() -> None:
    size = 24
    *inputs, target = batch(size)
    present = torch.arange(size) % 3 != 0
    world, by_hand = World(), World()
    balancer = world.balance(ModalityDropout(0.6, scale=1.0))
    balancer.backward(balancer.loss(world.model(*inputs), target, present={"audio": present}))
    stream, rows, labels, lost = Stream(3), [], [], 0
    features = [e(x) for e, x in zip(by_hand.encoders.values(), inputs, strict=True)]
    for i in range(size):
        keep = slow_keep(stream.one(), [0.6, 0.6])
        if not ((keep[0] and present[i]) or keep[1]):
            lost += 1
            continue
        rows.append(
            torch.cat([feature[i] * kept for feature, kept in zip(features, keep, strict=True)])
        )
        labels.append(target[i])
    assert 0 < lost < size
    logits = by_hand.model.head(torch.stack(rows))
    (F.cross_entropy(logits, torch.stack(labels), reduction="sum") / size).backward()
    for ours, theirs in zip(world.model.parameters(), by_hand.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_a_batch_that_lost_everything_has_a_loss_of_zero() -> None:
    world = World()
    balancer = world.balance(ModalityDropout(0.5))
    *inputs, target = batch(6)
    nobody = torch.zeros(6, dtype=torch.bool)
    logits = world.model(*inputs)
    loss = balancer.loss(logits, target, present={"audio": nobody, "visual": nobody})
    balancer.backward(loss)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for parameter in world.model.parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter), rtol=0, atol=1e-12)


def test_composes_with_multi_loss() -> None:
    world = World()
    train(world.balance(eq.MultiLoss(), ModalityDropout()), [batch(seed=s) for s in range(3)])
    assert weights(world.model).isfinite().all()


@pytest.mark.parametrize(
    ("make", "share"),
    [
        (eq.Pretraining, 0.0),
        (eq.MLA, 0.0),
        (eq.AMCo, 1.0),
        (lambda: eq.MultiLoss(joint=0.25), 0.25),
    ],
)
def test_samples_that_lost_all_are_left_out_of_the_loss_that_there_is(
    make: Any, share: float
) -> None:
    """Where another method has put its own in place of the user's, nothing of that may come in."""
    size = 24
    *inputs, target = batch(size)
    present = {"audio": torch.arange(size) % 3 != 0}
    world, alone = World(), World()
    balancer = world.balance(make(), ModalityDropout(0.6, scale=1.0))
    balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
    found = balancer.metrics()
    reference = alone.balance(make())
    reference.backward(reference.loss(alone.model(*inputs), target, present=present))
    expected = reference.metrics()
    assert set(found) == set(expected)
    for name in set(found) - {"loss/joint"}:
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name
    features = [e(x) for e, x in zip(alone.encoders.values(), inputs, strict=True)]
    stream, rows, labels = Stream(3), [], []
    for i in range(size):
        keep = slow_keep(stream.one(), [0.6, 0.6])
        if (keep[0] and present["audio"][i]) or keep[1]:
            parts = [feature[i] * kept for feature, kept in zip(features, keep, strict=True)]
            rows.append(torch.cat(parts))
            labels.append(target[i])
    logits = alone.model.head(torch.stack(rows))
    joint = F.cross_entropy(logits, torch.stack(labels), reduction="sum").item() / size
    assert found["loss/joint"] == pytest.approx(share * joint, rel=1e-9)


def test_ranks_draw_different_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from equimodal.system import ranks

    *inputs, _ = batch(24)
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(ranks, "rank", lambda group=None, rank=rank: rank)
        world = World()
        balancer = world.balance(ModalityDropout())
        drawn.append(seen_by_head(world, inputs) == 0)
        balancer.detach()
    assert not torch.equal(*drawn)


def test_a_copy_of_the_count_goes_on() -> None:
    world = World()
    balancer = world.balance(ModalityDropout())
    train(balancer, [batch(17)])
    state = copy.deepcopy(balancer.state_dict())
    *inputs, _ = batch(50)
    expected = seen_by_head(world, inputs)
    balancer.detach()
    resumed = world.balance(ModalityDropout())
    resumed.load_state_dict(state)
    assert torch.equal(seen_by_head(world, inputs), expected)


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 1.0}, r"probability\): expected at least 0 and below 1, found 1.0"),
        ({"probability": -0.1}, "found -0.1"),
        ({"probability": float("nan")}, "found nan"),
        ({"probability": {"audio": 2.0}}, r"probability\['audio'\]\): .* found 2.0"),
        ({"scale": 0.0}, r"scale\): expected above 0 or None, found 0.0"),
        ({"scale": float("inf")}, "found inf"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.SetupError, match=message):
        ModalityDropout(**settings)


def test_an_unknown_modality() -> None:
    with pytest.raises(eq.SetupError, match="unknown modality 'adio': did you mean 'audio'"):
        World().balance(ModalityDropout({"adio": 0.5}))


class Whole(nn.Module):
    """A model without a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        return self.audio(audio) + self.visual(visual)


def test_a_model_without_a_head_is_refused() -> None:
    model = Whole().double()
    balancer = eq.Balancer(
        ModalityDropout(),
        model,
        {"audio": model.audio, "visual": model.visual},
        None,
        torch.optim.SGD(model.parameters(), lr=0.1),
        scores=eq.Probe(),
    )
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"ModalityDropout drops .* needs a head"):
        balancer.loss(model(*inputs), target)


def test_a_compiled_head_is_refused() -> None:
    world = World()
    balancer = world.balance(ModalityDropout())
    compiled = torch.compile(world.model, backend="eager")
    *inputs, target = batch()
    balancer.check((*inputs, target))
    with pytest.raises(eq.StepError, match="ModalityDropout does not work with a compiled head"):
        balancer.loss(compiled(*inputs), target)


def test_a_recomputed_head_is_refused() -> None:
    from torch.utils.checkpoint import checkpoint

    world = World()
    balancer = world.balance(ModalityDropout())
    *inputs, target = batch()
    logits = checkpoint(world.model, *inputs, use_reentrant=False)
    with pytest.raises(eq.MatchError, match="recomputed in the backward pass"):
        balancer.backward(balancer.loss(logits, target))
    world.optimizer.zero_grad()
    train(balancer, [(*inputs, target)])
    logits = checkpoint(world.model, *inputs, use_reentrant=False)
    with pytest.raises(eq.MatchError, match="recomputed in the backward pass"):
        balancer.backward(balancer.loss(logits, target))
    encoder = world.model.encoders["audio"]
    encoder.forward = lambda x, run=encoder.forward: checkpoint(run, x, use_reentrant=False)
    balancer.backward(balancer.loss(world.model(*inputs), target))  # encoders may be recomputed
