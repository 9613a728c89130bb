"""Batches that run again on moved weights: right in whatever loop they run, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import Trial, spawn
from support.worlds import World, batch, weights

Gradients = Mapping[str, list[Tensor]]


class Everything(eq.Method):
    """Sharpness-aware minimisation: all weights are moved, and all gradients are of there."""

    name = "everything"
    radius = 0.5

    def perturb(self, gradients: Gradients, evidence: eq.Evidence) -> dict[str, list[Tensor]]:
        norm = torch.stack([g.norm() for of in gradients.values() for g in of]).norm()
        return {n: [self.radius * g / norm for g in of] for n, of in gradients.items()}


class Mixture(Everything):
    """M-SAM's shape: the gradients of both places, by what was measured in the first pass."""

    name = "mixture"
    needs = frozenset({"scores"})

    def coefficients(self, evidence: eq.Evidence) -> None:
        self.share = evidence.log_scores.softmax(dim=0).max()

    def merge(self, part: str, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        pairs = zip(first, second, strict=True)
        return [(1 - self.share) * one + self.share * two for one, two in pairs]


class NowAndThen(Everything):
    """LookSAM's shape: only some steps have a second pass."""

    name = "now-and-then"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    steps: Tensor

    def perturb(self, gradients: Gradients, evidence: eq.Evidence) -> dict[str, list[Tensor]]:
        return super().perturb(gradients, evidence) if int(self.steps) % 2 == 0 else {}

    def commit(self) -> None:
        self.steps += 1


def again(balancer: eq.Balancer, run: Callable[[], Tensor]) -> list[int]:
    """A step of the loop in the docs; which passes there were."""
    seen = []
    for number in balancer.passes():
        balancer.backward(run())
        seen.append(number)
    balancer.modulate()
    (optimizer,) = balancer.optimizers
    optimizer.step()
    optimizer.zero_grad()
    return seen


def loss_of(balancer: eq.Balancer, each: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    *inputs, target = each
    return lambda: balancer.loss(balancer.attached.model(*inputs), target)


def by_hand(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    run: Callable[[], Tensor],
    share: float = 1.0,
    radius: float = 0.5,
) -> None:
    """The second gradient, or a mixture of both, at weights moved along the whole gradient."""
    optimizer.zero_grad()
    run().backward()
    first = {p: p.grad.clone() for p in model.parameters() if p.grad is not None}
    norm = sum(float(g.square().sum()) for g in first.values()) ** 0.5
    before = {p: p.detach().clone() for p in first}
    with torch.no_grad():
        for p, g in first.items():
            p += radius / norm * g
    optimizer.zero_grad()
    run().backward()
    with torch.no_grad():
        for p, g in first.items():
            p.copy_(before[p])
            assert p.grad is not None
            p.grad.mul_(share).add_(g, alpha=1 - share)
    optimizer.step()


# ---------------------------------------------------------------------- what fits worst


def test_all_weights_are_moved_and_the_gradients_are_of_there() -> None:
    world, twin = World(), World()
    balancer = world.balance(Everything())
    for seed in range(3):
        each = batch(12, seed=seed)
        assert again(balancer, loss_of(balancer, each)) == [1, 2]
        *inputs, target = each
        by_hand(
            twin.model,
            twin.optimizer,
            lambda x=inputs, y=target: F.cross_entropy(twin.model(*x), y),  # type: ignore[misc]
        )
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-10, atol=1e-12)


def test_gradients_of_both_places_are_mixed_by_evidence_of_the_first() -> None:
    world, twin, plain = World(), World(), World()
    *inputs, target = batch(12)
    balancer = world.balance(Mixture())
    again(balancer, loss_of(balancer, (*inputs, target)))
    scored = plain.balance(eq.Joint(), track_every=1)
    scored.backward(scored.loss(plain.model(*inputs), target))
    scored.modulate()
    found = [scored.metrics()[f"evidence/{name}"] for name in scored.names]
    by_hand(
        twin.model,
        twin.optimizer,
        lambda: F.cross_entropy(twin.model(*inputs), target),
        share=max(found) / sum(found),
    )
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-6, atol=1e-9)


def test_steps_may_have_no_second_pass() -> None:
    world = World()
    balancer = world.balance(NowAndThen())
    passes = [again(balancer, loss_of(balancer, batch(12, seed=i))) for i in range(3)]
    assert passes == [[1, 2], [1], [1, 2]]


def test_other_methods_have_one_pass() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    assert again(balancer, loss_of(balancer, batch(12))) == [1]


def test_coefficients_of_another_method_act_on_the_gradients_of_the_second_pass() -> None:
    """They are judged by the first: at weights nobody trains evidence says nothing."""
    found = {}
    for name, methods in {
        "alone": [Everything()],
        "with": [Everything(), eq.MSLR({"audio": 0.5, "visual": 1.0}, space="gradient")],
    }.items():
        world = World()
        balancer = world.balance(*methods)
        each = batch(12)
        for _ in balancer.passes():
            balancer.backward(loss_of(balancer, each)())
        balancer.modulate()
        found[name] = [p.grad.clone() for p in world.encoders["audio"].parameters()]
    for alone, scaled in zip(found["alone"], found["with"], strict=True):
        torch.testing.assert_close(scaled, 0.5 * alone)


@pytest.mark.parametrize(
    "make", [eq.ModalityDropout, lambda: eq.OPM(warm_up=0), eq.OLM, eq.MCR, eq.TCMax, eq.AMCo]
)
def test_another_method_draws_the_same_again_and_notes_the_first_pass_alone(
    make: Callable[[], eq.Method],
) -> None:
    """With no displacement both passes are one: a step as without the second, bit for bit."""

    class Nowhere(Everything):
        name = "nowhere"
        radius = 0.0

    world, twin = World(), World()
    twice, once = world.balance(Nowhere(), make()), twin.balance(make())
    for seed in range(4):
        losses = []

        def run(balancer: eq.Balancer, seed: int = seed, to: list[float] = losses) -> Tensor:
            loss = loss_of(balancer, batch(12, seed=seed))()
            to.append(loss.item())
            return loss

        assert again(twice, lambda: run(twice)) == [1, 2]
        again(once, lambda: run(once))
        assert losses[0] == losses[1] == losses[2]
    assert torch.equal(weights(world.model), weights(twin.model))
    name = next(iter(once.methods)).name
    states = [str(each.state_dict()["methods"][name]) for each in (twice, once)]
    assert states[0] == states[1]


# ---------------------------------------------------------------------- other loops


class Noisy(nn.Module):
    """An encoder with running statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


def noisy() -> tuple[nn.ModuleDict, Callable[[Tensor, Tensor], Tensor]]:
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"audio": Noisy(), "visual": nn.Linear(5, 8)})
    model["head"] = nn.Linear(16, 3)
    model.forward = lambda a, v: model["head"](
        torch.cat([model["audio"](a), model["visual"](v)], dim=1)
    )
    return model, model


def test_the_second_pass_draws_the_same_masks_and_leaves_running_statistics_alone() -> None:
    a, v, target = (t.float() if t.is_floating_point() else t for t in batch(12))
    models = []
    for twice in (True, False):
        model, forward = noisy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        balancer = eq.Balancer(
            Everything() if twice else eq.Joint(),
            model,
            {"audio": model["audio"], "visual": model["visual"]},
            model["head"],
            optimizer,
        )
        torch.manual_seed(7)
        masks: list[Tensor] = []
        model["audio"].layers[2].register_forward_hook(
            lambda _, __, out, masks=masks: masks.append(out == 0)
        )
        seen = again(balancer, lambda f=forward, b=balancer: b.loss(f(a, v), target))  # type: ignore[misc]
        assert len(masks) == len(seen) == (2 if twice else 1)
        assert torch.equal(masks[0], masks[-1])
        models.append((model, torch.rand(3)))
    (ours, drawn), (plain, expected) = models
    assert torch.equal(drawn, expected), "random numbers after the step"
    for (name, found), (_, once) in zip(ours.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(found, once), name
    assert int(ours["audio"].layers[1].num_batches_tracked) == 1


@pytest.mark.parametrize("parameter", ["audio.layers.1.weight", "head.bias"])
def test_no_bit_of_a_weight_is_left_moved(parameter: str) -> None:
    a, v, target = (t.float() if t.is_floating_point() else t for t in batch(12))
    model, forward = noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    encoders = {"audio": model["audio"], "visual": model["visual"]}
    balancer = eq.Balancer(Everything(), model, encoders, model["head"], optimizer)
    before = dict(model.named_parameters())[parameter].clone()
    again(balancer, lambda: balancer.loss(forward(a, v), target))
    assert torch.equal(dict(model.named_parameters())[parameter], before)


def test_an_autocast_around_the_loop_does_not_remember_the_weights() -> None:
    world = World(dtype=torch.float32)
    balancer = world.balance(Everything())
    *inputs, target = batch(12, dtype=torch.float32)
    losses = []
    with torch.autocast("cpu", torch.bfloat16):
        for _ in balancer.passes():
            loss = balancer.loss(world.model(*inputs), target)
            balancer.backward(loss)
            losses.append(loss.item())
        after = balancer.loss(world.model(*inputs), target).item()
    assert losses[1] > losses[0] + 0.1, "the second pass ran on the weights of the first"
    assert after == losses[0]


def test_an_overflow_in_the_first_pass_skips_the_step_and_moves_nothing() -> None:
    world = World(dtype=torch.float32)
    balancer = world.balance(Everything())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    *inputs, target = batch(12, dtype=torch.float32)
    before = weights(world.model)
    for _ in balancer.passes():
        loss = balancer.loss(world.model(*inputs), target) * 1e6
        balancer.backward(scaler.scale(loss))
    balancer.modulate(scaler)
    scaler.step(world.optimizer)
    scaler.update()
    world.optimizer.zero_grad()
    assert torch.equal(weights(world.model), before)
    assert balancer.steps == 0
    assert scaler.get_scale() < 2.0**127
    again(balancer, loss_of(balancer, (*inputs, target)))
    assert weights(world.model).isfinite().all()


def test_a_loss_of_the_users_own_before_the_loop_is_added() -> None:
    world, twin = World(), World()
    for each, extra in ((world, True), (twin, False)):
        if extra:
            (3 * each.model.head.bias.sum()).backward()
        balancer = each.balance(Everything())
        for _ in balancer.passes():
            balancer.backward(loss_of(balancer, batch(12))())
        balancer.modulate()
    ours, plain = (w.model.head.bias.grad for w in (world, twin))
    torch.testing.assert_close(ours, plain + 3)


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_of_the_step_before_may_be_cleared_within_the_loop(to_none: bool) -> None:
    """As Lightning does, after the forward."""
    world, twin = World(), World()
    within, after = world.balance(eq.MASAM()), twin.balance(eq.MASAM())
    for seed in range(3):
        for _ in within.passes():
            loss = loss_of(within, batch(12, seed=seed))()
            world.optimizer.zero_grad(set_to_none=to_none)
            within.backward(loss)
        within.modulate()
        world.optimizer.step()
        again(after, loss_of(after, batch(12, seed=seed)))
    assert torch.equal(weights(world.model), weights(twin.model))


def test_a_closure_holds_the_whole_loop() -> None:
    world, twin = World(), World()
    first, second = world.balance(Everything()), twin.balance(Everything())

    def closure() -> Tensor:
        world.optimizer.zero_grad()
        for _ in first.passes():
            loss = loss_of(first, batch(12))()
            first.backward(loss)
        first.modulate()
        return loss

    world.optimizer.step(closure)
    again(second, loss_of(second, batch(12)))
    assert torch.equal(weights(world.model), weights(twin.model))


def test_a_compiled_model_runs_on_the_moved_weights() -> None:
    world, twin = World(), World()
    compiled, plain = world.balance(Everything()), twin.balance(Everything())
    for encoder in world.encoders.values():
        encoder.compile(backend="aot_eager")
    for seed in range(2):
        again(compiled, loss_of(compiled, batch(12, seed=seed)))
        again(plain, loss_of(plain, batch(12, seed=seed)))
    torch.testing.assert_close(weights(world.model), weights(twin.model))


def bucket_views(rank: int) -> Tensor:
    world = World()
    replica = DistributedDataParallel(world.model, gradient_as_bucket_view=True)
    balancer = world.balance(Mixture(), model=replica)
    for seed in range(3):
        *inputs, target = (t[rank::2] for t in batch(12, seed=seed))
        again(balancer, lambda x=inputs, y=target: balancer.loss(replica(*x), y))  # type: ignore[misc]
    return weights(world.model)


def test_two_ranks_whose_reducer_owns_the_gradients_are_one_process() -> None:
    first, second = spawn(bucket_views)
    world = World()
    balancer = world.balance(Mixture())
    for seed in range(3):
        again(balancer, loss_of(balancer, batch(12, seed=seed)))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, weights(world.model), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- left, or left out


class OutOfMemory(Exception):
    pass


@pytest.mark.parametrize("kind", [Everything, eq.MASAM])
def test_a_loop_that_breaks_off_leaves_no_half_step(kind: type[eq.Method]) -> None:
    world, twin = World(), World()
    balancer, other = world.balance(kind()), twin.balance(kind())
    before = weights(world.model)
    with pytest.raises(OutOfMemory):
        for number in balancer.passes():
            balancer.backward(loss_of(balancer, batch(12))())
            if number == 2:
                assert not torch.equal(weights(world.model), before)
                raise OutOfMemory
    assert torch.equal(weights(world.model), before)
    assert all(p.grad is None for p in world.model.parameters())
    for each in (balancer, other):
        again(each, loss_of(each, batch(12, seed=5)))
    assert torch.equal(weights(world.model), weights(twin.model))


def test_a_batch_may_be_left_out_in_either_pass() -> None:
    world = World()
    balancer = world.balance(Everything())
    before = weights(world.model)
    for skipped in (1, 2):
        for number in balancer.passes():
            loss = loss_of(balancer, batch(12))()
            if number < skipped:
                balancer.backward(loss)
        assert all(p.grad is None for p in world.model.parameters())
        with pytest.raises(eq.StepError, match="nothing was backpropagated"):
            balancer.modulate()
    assert torch.equal(weights(world.model), before)
    assert again(balancer, loss_of(balancer, batch(12))) == [1, 2]


def test_a_step_that_is_dropped_after_the_loop_leaves_no_trace() -> None:
    world, twin = World(), World()
    balancer, other = world.balance(eq.MASAM()), twin.balance(eq.MASAM())
    for _ in balancer.passes():
        balancer.backward(loss_of(balancer, batch(12))())
    world.optimizer.zero_grad()
    for each in (balancer, other):
        again(each, loss_of(each, batch(12, seed=5)))
    assert torch.equal(weights(world.model), weights(twin.model))


# ---------------------------------------------------------------------- refused


def test_a_loop_without_passes_is_told_the_line_to_write() -> None:
    world = World()
    balancer = world.balance(Everything())
    with pytest.raises(eq.StepError, match=r"Everything.*for _ in balancer\.passes\(\):"):
        balancer.backward(loss_of(balancer, batch(12))())


def test_what_belongs_after_the_loop_is_refused_within_it() -> None:
    for act, words in (
        (lambda w, b: b.modulate(), "modulate.*after it"),
        (lambda w, b: w.optimizer.step(), r"SGD\.step\(\) within the loop"),
        (lambda w, b: b.state_dict(), "half done"),
        (lambda w, b: next(b.passes()), "another one"),
    ):
        world = World()
        balancer = world.balance(Everything())
        with pytest.raises(eq.StepError, match=words):
            for _ in balancer.passes():
                balancer.backward(loss_of(balancer, batch(12))())
                act(world, balancer)


def test_half_a_loop_is_not_judged() -> None:
    world = World()
    balancer = world.balance(Everything())
    for _ in balancer.passes():
        balancer.backward(loss_of(balancer, batch(12))())
        break
    with pytest.raises(eq.StepError, match="come to its end"):
        balancer.modulate()


def test_a_loop_for_each_micro_batch_is_refused() -> None:
    world = World()
    balancer = world.balance(Everything())
    for _ in balancer.passes():
        balancer.backward(loss_of(balancer, batch(12))())
    with pytest.raises(eq.StepError, match="all of them into one loop"):
        next(iter(balancer.passes()))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (eq.BSS(), "BSS acts on the batch that was drawn last"),
        (eq.MLA(), "MLA steps modules of its own"),
    ],
)
def test_methods_that_would_do_otherwise_in_a_second_pass_are_refused(
    other: eq.Method, why: str
) -> None:
    world = World()
    data = torch.utils.data.TensorDataset(*batch(12))
    loader = torch.utils.data.DataLoader(data, 4)
    with pytest.raises(eq.SetupError, match=why):
        world.balance(Everything(), copy.deepcopy(other), train_loader=loader)


def test_displacements_of_other_shapes_are_refused() -> None:
    class Short(Everything):
        name = "short"

        def perturb(self, gradients: Gradients, evidence: eq.Evidence) -> dict[str, list[Tensor]]:
            return {"audio": gradients["audio"][:1]}

    world = World()
    balancer = world.balance(Short())
    with pytest.raises(
        eq.StepError, match=r"Short\.perturb: expected for 'audio' one displacement"
    ):
        again(balancer, loss_of(balancer, batch(12)))


def test_a_sparse_gradient_is_refused() -> None:
    model: Any = nn.ModuleDict({"text": nn.Embedding(5, 4, sparse=True), "image": nn.Linear(3, 4)})
    model["head"] = nn.Linear(8, 2)
    balancer = eq.Balancer(
        Everything(),
        model,
        {"text": model["text"], "image": model["image"]},
        model["head"],
        torch.optim.SGD(model.parameters(), lr=0.1),
    )

    def run() -> Tensor:
        features = [model["text"](torch.arange(4)), model["image"](torch.ones(4, 3))]
        return balancer.loss(model["head"](torch.cat(features, dim=1)), torch.tensor([0, 1, 0, 1]))

    with pytest.raises(eq.StepError, match="sparse=False"):
        again(balancer, run)


def test_the_kit_groups_micro_batches() -> None:
    """What it compares would else be two loops of one micro-batch each."""
    whole, parted = (Trial(Everything).train(1, micro=m).weights for m in (1, 3))
    torch.testing.assert_close(whole, parted, rtol=1e-9, atol=1e-12)
