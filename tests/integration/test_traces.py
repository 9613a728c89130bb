"""Detached, copied, pickled: the model carries no trace of the balancer."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, register_optimizer_step_post_hook

import equimodal as eq
from support.worlds import World, batch, train, weights


def anatomy(world: World) -> Any:
    """Everything of a model and an optimizer that attaching could have left something in."""
    modules = {
        name: {key: copy.copy(value) for key, value in vars(module).items()}
        for name, module in world.model.named_modules()
    }
    hooks = {k: dict(v) for k, v in vars(world.optimizer).items() if "hooks" in k}
    return str(modules), str(hooks), list(world.model.state_dict())


@pytest.mark.parametrize("make", [eq.OGMGE, eq.MultiLoss, eq.Ensemble])
def test_detach_leaves_everything_as_it_was(make: Any) -> None:
    world = World()
    before = anatomy(world)
    balancer = world.balance(make())
    assert anatomy(world) != before
    balancer.detach()
    balancer.detach()  # a second time does no harm
    assert anatomy(world) == before
    with pytest.raises(eq.MatchError):
        *inputs, target = batch()
        balancer.loss(world.model(*inputs), target)


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError


@pytest.mark.parametrize("where", ["the loop", "the head", "an encoder", "the criterion"])
def test_detached_after_an_exception(where: str) -> None:
    world = World(head=nn.Sequential(nn.Linear(16, 3), nn.Identity()))
    before = anatomy(world)

    def criterion(logits: Tensor, target: Tensor) -> Tensor:
        if where == "the criterion":
            raise ZeroDivisionError
        return nn.functional.cross_entropy(logits, target)

    failing = Failing()
    with pytest.raises(ZeroDivisionError), world.balance(eq.OGMGE(0.8), criterion=criterion) as b:
        *inputs, target = batch()
        if where == "the loop":
            raise ZeroDivisionError
        if where == "the head":
            world.model.head[1] = failing
        if where == "an encoder":
            world.model.encoders["audio"][1] = failing
        try:
            b.loss(world.model(*inputs), target)
        finally:
            world.model.head[1] = nn.Identity()
            world.model.encoders["audio"][1] = nn.Tanh()
    assert anatomy(world) == before


def test_a_failure_while_the_head_is_ablated_leaves_its_mode_and_the_hooks_working() -> None:
    class Fragile(nn.Linear):
        fails = False

        def forward(self, x: Tensor) -> Tensor:
            if self.fails and not self.training:
                raise ZeroDivisionError
            return super().forward(x)

    world = World(head=nn.Sequential(Fragile(16, 8), nn.Linear(8, 3)))
    balancer = world.balance(eq.OGM(0.8), scores=eq.Ablation())
    *inputs, target = batch()
    world.model.head[0].fails = True
    with pytest.raises(ZeroDivisionError):
        balancer.loss(world.model(*inputs), target)
    assert all(module.training for module in world.model.modules())
    world.model.head[0].fails = False
    train(balancer, [batch()])


def test_a_copy_trains_without_the_balancer_noticing() -> None:
    """Exponential moving averages and SWA copy the model; forks of an experiment train the copy."""
    world = World()
    balancer = world.balance(eq.OGMGE(0.8))
    train(balancer, [batch()])
    copied = copy.deepcopy(world.model)
    averaged = torch.optim.swa_utils.AveragedModel(world.model)
    averaged.update_parameters(world.model)
    references = [weakref.ref(balancer), weakref.ref(balancer.attached.recorder)]
    *inputs, target = batch()
    nn.functional.cross_entropy(copied(*inputs), target).backward()
    torch.testing.assert_close(averaged(*inputs), world.model(*inputs))
    with pytest.raises(eq.MatchError):
        balancer.loss(copied(*inputs), target)
    del balancer
    world.model = world.optimizer = None
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert copied(*inputs).shape == (24, 3)


def test_a_pickle_needs_no_equimodal_to_load(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("a", nn.Linear(4, 8))
    model.add_module("head", nn.Linear(8, 3))
    model.add_module("b", nn.Linear(5, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(eq.OGMGE(0.8), model, {"a": "a", "b": "b"}, "head", optimizer)
    content = pickle.dumps(model)
    assert b"equimodal" not in content
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"equimodal" not in buffer.getvalue()
    balancer.detach()
    (tmp_path / "model.pkl").write_bytes(content)
    code = (
        "import sys; sys.modules['equimodal'] = None\n"
        "import pickle, torch\n"
        f"model = pickle.load(open({str(tmp_path / 'model.pkl')!r}, 'rb'))\n"
        "print(model.a(torch.ones(1, 4)).shape, model.head(torch.ones(1, 8)).shape)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "torch.Size([1, 8]) torch.Size([1, 3])" in result.stdout


def test_state_dict_and_optimizer_hold_the_users_parameters_alone() -> None:
    world, plain = World(), World()
    train(world.balance(eq.MultiLoss(), scores=eq.Probe()), [batch()])
    assert list(world.model.state_dict()) == list(plain.model.state_dict())
    assert len(world.optimizer.param_groups[0]["params"]) == len(list(plain.model.parameters()))


def test_attaching_leaves_the_global_random_state_alone() -> None:
    world = World()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    balancer = world.balance(eq.OGMGE(0.8), eq.MultiLoss(), scores=eq.Probe())
    balancer.check(batch())
    train(balancer, [batch()])
    assert torch.equal(torch.rand(3), expected)


def test_two_balancers_in_one_process() -> None:
    alone = [World(seed=seed) for seed in (0, 1)]
    for world in alone:
        train(world.balance(eq.OGMGE(0.8)), [batch(seed=seed) for seed in range(3)])
    together = [World(seed=seed) for seed in (0, 1)]
    balancers = [world.balance(eq.OGMGE(0.8)) for world in together]
    for seed in range(3):
        *inputs, target = batch(seed=seed)
        logits = [world.model(*inputs) for world in together]
        for world, balancer, of in zip(together, balancers, logits, strict=True):
            balancer.backward(balancer.loss(of, target))
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(weights(one.model), weights(other.model))


def test_two_balancers_on_one_model() -> None:
    """One measures what the other does."""
    world, plain = World(), World()
    train(plain.balance(eq.OGM(0.8)), [batch()])
    acting = world.balance(eq.OGM(0.8))
    watching = world.balance(eq.Joint(), track_every=1)
    *inputs, target = batch()
    logits = world.model(*inputs)
    loss = acting.loss(logits, target)
    watched = watching.loss(logits, target)
    acting.backward(loss + 0 * watched)
    watching.backward(watched, using=lambda loss: None)
    watching.modulate()
    acting.modulate()
    world.optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-12, atol=0)
    assert watching.metrics()["evidence/audio"] > 0


def test_hooks_go_when_the_balancer_is_dropped_and_collected() -> None:
    """A cell of a notebook that is run again attaches a second balancer to the same model."""
    world = World()
    before = anatomy(world)
    balancer = world.balance(eq.OGM(0.8))
    assert anatomy(world) != before
    del balancer
    gc.collect()
    assert anatomy(world) == before


def test_a_dropped_balancer_may_be_collected_in_the_middle_of_a_step() -> None:
    """As the collector pleases: torch goes through the hooks of all optimizers then."""

    def collect(*given: Any) -> None:
        gc.collect()

    balancer: Any = World().balance(eq.OGM(0.8))
    balancer.circle = balancer
    dropped = weakref.ref(balancer)
    collecting = register_optimizer_step_post_hook(collect)
    gc.disable()
    try:
        del balancer
        world = World()
        other = world.balance(eq.OGM(0.8))
        assert dropped() is not None
        train(other, [batch()])
    finally:
        gc.enable()
        collecting.remove()
    assert dropped() is None


def test_the_hook_on_all_optimizers_goes_with_the_last_balancer() -> None:
    gc.collect()
    first, second = World(), World()
    before = len(_global_optimizer_post_hooks)
    one, two = first.balance(eq.OGM(0.8)), second.balance(eq.OGM(0.8))
    watched = len(_global_optimizer_post_hooks)
    one.detach()
    assert len(_global_optimizer_post_hooks) == watched
    two.detach()
    assert len(_global_optimizer_post_hooks) == watched - 1 <= before
