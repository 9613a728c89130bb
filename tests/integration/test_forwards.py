"""Features are matched to the logits that the loss receives, and never guessed."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equimodal as eq
from equimodal.attach.call import Call
from support.worlds import Net, World, batch, train, weights


def ogm() -> eq.Method:
    return eq.OGMGE(0.8)


def one_step(world: World, balancer: eq.Balancer, logits: Tensor, target: Tensor) -> None:
    balancer.backward(balancer.loss(logits, target))
    balancer.modulate()
    world.optimizer.step()
    world.optimizer.zero_grad()


@pytest.fixture
def plain() -> Tensor:
    world = World()
    train(world.balance(ogm()), [batch(seed=seed) for seed in range(3)])
    return weights(world.model)


@pytest.mark.parametrize("gradients", [True, False])
def test_an_evaluation_forward_between_training_steps_changes_nothing(
    plain: Tensor, gradients: bool
) -> None:
    world = World()
    balancer = world.balance(ogm())
    *held_out, held_target = batch(7, seed=11)
    for seed in range(3):
        *inputs, target = batch(seed=seed)
        logits = world.model(*inputs)
        with torch.set_grad_enabled(gradients):  # between the forward and its loss
            world.model.eval()
            world.model(*held_out)
            world.model.train()
        with torch.no_grad():
            assert balancer.loss(world.model(*held_out), held_target).ndim == 0
        one_step(world, balancer, logits, target)
    assert torch.equal(weights(world.model), plain)


def test_two_forwards_before_one_loss(plain: Tensor) -> None:
    world = World()
    balancer = world.balance(ogm())
    for seed in range(3):
        *inputs, target = batch(seed=seed)
        logits = world.model(*inputs)
        world.model(*batch(seed=50 + seed)[:-1])  # the later forward is not the one of the loss
        one_step(world, balancer, logits, target)
    assert torch.equal(weights(world.model), plain)


def test_losses_in_another_order_than_their_forwards() -> None:
    worlds = [World(), World()]
    for world, reverse in zip(worlds, (False, True), strict=True):
        balancer = world.balance(eq.OGM(0.8))
        batches = [batch(seed=1), batch(seed=2)]
        pairs = [(world.model(*inputs), target) for *inputs, target in batches]
        for logits, target in reversed(pairs) if reverse else pairs:
            balancer.backward(balancer.loss(logits, target))
        balancer.modulate()
        world.optimizer.step()
    first, second = (weights(world.model) for world in worlds)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-15)


class Checkpointed(Net):
    """Recomputes its encoders, or everything, in the backward pass."""

    everything = False
    reentrant = False

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.everything:
            return checkpoint(super().forward, *inputs, use_reentrant=self.reentrant)
        features = [
            checkpoint(encoder, x, use_reentrant=self.reentrant)
            for encoder, x in zip(self.encoders.values(), inputs, strict=True)
        ]
        return self.head(torch.cat(features, dim=1))


@pytest.mark.parametrize("everything", [True, False])
def test_activation_checkpointing(plain: Tensor, everything: bool) -> None:
    world = World()
    world.model.__class__ = Checkpointed
    world.model.everything = everything
    train(world.balance(ogm()), [batch(seed=seed) for seed in range(3)])
    assert torch.equal(weights(world.model), plain)


def test_reentrant_checkpointing_of_encoders(plain: Tensor) -> None:
    world = World()
    world.model.__class__ = Checkpointed
    world.model.reentrant = True
    balancer = world.balance(ogm(), features={"audio": slice(0, 8), "visual": slice(8, 16)})
    for seed in range(3):
        *inputs, target = batch(seed=seed)
        logits = world.model(*(x.requires_grad_() for x in inputs))
        one_step(world, balancer, logits, target)
    assert torch.equal(weights(world.model), plain)


def test_reentrant_checkpointing_of_everything_is_refused_with_the_reason() -> None:
    world = World()
    world.model.__class__ = Checkpointed
    world.model.everything = world.model.reentrant = True
    balancer = world.balance(ogm())
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match="use_reentrant=False"):
        balancer.loss(world.model(*(x.requires_grad_() for x in inputs)), target)


class Processed(Net):
    """Does something to the head's output before it returns it."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return (super().forward(*inputs).float().double() * 1.0).view(-1, 3).clone()


def test_logits_may_be_computed_from_the_heads_output(plain: Tensor) -> None:
    world, reference = World(), World()
    world.model.__class__ = Processed
    balancer = world.balance(eq.OGM(0.8), track_every=1)
    exact = reference.balance(eq.OGM(0.8), track_every=1)
    train(balancer, [batch()])
    train(exact, [batch()])
    ours, theirs = balancer.metrics(), exact.metrics()
    assert ours["ratio/audio"] == pytest.approx(theirs["ratio/audio"], rel=1e-5)


class Sharpened(Net):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs) * 3


def test_scores_that_run_the_head_again_refuse_logits_that_it_did_not_return() -> None:
    world = World()
    world.model.__class__ = Sharpened
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match="not what the head returned"):
        balancer.loss(world.model(*inputs), target)
    probing = World()
    probing.model.__class__ = Sharpened
    train(probing.balance(eq.OGM(0.8), scores=eq.Probe()), [batch()])


def test_logits_of_another_model_are_refused() -> None:
    world, other = World(), World(seed=1)
    balancer = world.balance(ogm())
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match="no recorded forward of the head"):
        balancer.loss(other.model(*inputs), target)


def test_logits_without_a_graph_are_refused_where_a_loss_is_to_be_trained() -> None:
    world = World()
    balancer = world.balance(ogm())
    *inputs, target = batch()
    with torch.no_grad():
        logits = world.model(*inputs)
    with pytest.raises(eq.MatchError, match="the logits carry no graph"):
        balancer.loss(logits, target)
    with pytest.raises(eq.MatchError, match="expected the logits as a tensor, found tuple"):
        balancer.loss((logits, logits), target)


def test_a_loss_that_did_not_come_from_the_balancer_is_refused() -> None:
    world = World()
    balancer = world.balance(ogm())
    *inputs, target = batch()
    with pytest.raises(eq.StepError, match=r"write loss = balancer\.loss"):
        balancer.backward(nn.functional.cross_entropy(world.model(*inputs), target))
    with pytest.raises(eq.StepError, match="nothing was backpropagated"):
        balancer.modulate()


class Twice(Net):
    """Runs its head on two halves of the batch and joins them."""

    def forward(self, *inputs: Tensor) -> Tensor:
        halves = zip(*(x.chunk(2) for x in inputs), strict=True)
        return torch.cat([super(Twice, self).forward(*half) for half in halves])


def test_logits_of_several_forwards_of_the_head_are_refused() -> None:
    world = World()
    world.model.__class__ = Twice
    balancer = world.balance(ogm())
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match="2 forwards of the head"):
        balancer.loss(world.model(*inputs), target)


def test_features_changed_in_place_by_the_head_are_refused() -> None:
    head = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(16, 3))
    world = World(head=head)
    balancer = world.balance(ogm())
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match="inplace=False"):
        balancer.loss(world.model(*inputs), target)


class Passing(nn.Module):
    """Returns the features beside the logits, as the published code of OGM-GE does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_out = nn.Linear(16, 3)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x, y, self.fc_out(torch.cat((x, y), dim=1))


class Published(Net):
    def forward(self, *inputs: Tensor) -> Any:
        pairs = zip(self.encoders.values(), inputs, strict=True)
        return self.head(*[encoder(x) for encoder, x in pairs])


def published() -> World:
    world = World()
    linear = world.model.head
    world.model.__class__ = Published
    world.model.head = Passing().double()
    world.model.head.fc_out.load_state_dict(linear.state_dict())
    world.optimizer = torch.optim.SGD(
        world.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2
    )
    return world


def test_the_head_of_the_published_code_is_split_exactly(plain: Tensor) -> None:
    world = published()
    balancer = world.balance(ogm())
    for seed in range(3):
        *inputs, target = batch(seed=seed)
        one_step(world, balancer, world.model(*inputs)[2], target)
    assert type(balancer.scores.chosen).__name__ == "Split"
    assert torch.equal(weights(world.model), plain)


@pytest.mark.parametrize("make", [World, published])
@pytest.mark.parametrize("backward", [True, False])
def test_nothing_that_was_recorded_outlives_its_graph(make: Any, backward: bool) -> None:
    world = make()
    balancer = world.balance(ogm())
    alive: list[weakref.ref[Any]] = []
    record = balancer.attached.recorder._mark

    def watched(call: Call, output: Any) -> Any:
        alive.extend(weakref.ref(tensor) for tensor in call.inputs[0])
        return record(call, output)

    balancer.attached.recorder._mark = watched
    *inputs, target = batch()
    output = world.model(*inputs)
    logits = output if isinstance(output, Tensor) else output[2]
    if backward:
        one_step(world, balancer, logits, target)
    assert alive
    del output, logits
    gc.collect()
    assert all(reference() is None for reference in alive)


def test_an_identity_head_does_not_make_the_graph_hold_itself() -> None:
    class Summing(Net):
        def forward(self, *inputs: Tensor) -> Any:
            pairs = zip(self.encoders.values(), inputs, strict=True)
            return self.head(torch.stack([encoder(x) for encoder, x in pairs]).sum(0)[:, :3])

    world = World(head=nn.Identity())
    world.model.__class__ = Summing
    balancer = world.balance(
        eq.OGM(0.8), scores=lambda f: f, features=lambda x: {"audio": x, "visual": x}
    )
    *inputs, target = batch()
    logits = world.model(*inputs)
    kept = weakref.ref(balancer.attached.recorder.match(logits).inputs[0][0])
    one_step(world, balancer, logits, target)
    del logits
    gc.collect()
    assert kept() is None


def test_a_compiled_model(plain: Tensor) -> None:
    world = World()
    balancer = world.balance(ogm(), features={"audio": slice(0, 8), "visual": slice(8, 16)})
    compiled = torch.compile(world.model, backend="aot_eager", fullgraph=True)
    train(balancer, [batch(seed=seed) for seed in range(3)], model=compiled)
    torch.testing.assert_close(weights(world.model), plain, rtol=1e-9, atol=1e-12)


def test_a_compiled_model_learns_its_layout_from_check(plain: Tensor) -> None:
    world = World()
    balancer = world.balance(ogm())
    balancer.check(batch())
    compiled = torch.compile(world.model, backend="aot_eager", fullgraph=True)
    train(balancer, [batch(seed=seed) for seed in range(3)], model=compiled)
    torch.testing.assert_close(weights(world.model), plain, rtol=1e-9, atol=1e-12)


def test_of_a_compiled_model_only_the_latest_forward_is_known() -> None:
    world = World()
    balancer = world.balance(ogm(), features={"audio": slice(0, 8), "visual": slice(8, 16)})
    compiled = torch.compile(world.model, backend="aot_eager")
    *inputs, target = batch()
    logits = compiled(*inputs)
    compiled(*batch(seed=2)[:-1])
    with pytest.raises(eq.MatchError, match="only the latest forward"):
        balancer.loss(logits, target)


@pytest.mark.parametrize("where", ["model", "encoder", "head", "in place"])
def test_attaching_after_compiling_is_refused(where: str) -> None:
    world = World()
    model: Any = world.model
    if where == "model":
        model = torch.compile(world.model)
    elif where == "encoder":
        world.model.encoders["audio"] = torch.compile(world.model.encoders["audio"])
    elif where == "head":
        world.model.head = torch.compile(world.model.head)
    else:
        world.model.compile()
    with pytest.raises(eq.SetupError, match="attach the balancer first"):
        eq.Balancer(ogm(), model, world.encoders, world.model.head, world.optimizer)
