"""In a loop of Accelerate, with nothing but the balancer: the plain loop's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor, nn

import equimodal as eq
from equimodal.testing import spawn
from support.examples import ROOT, assert_page_shows_diff, changed_lines, run
from support.loops import (
    ACCUMULATE,
    CLIP,
    STEPS,
    Loop,
    always,
    as_if_launched,
    hooks_of,
    loader,
    ogm_ge,
    schedule,
)
from support.worlds import World, batch, weights
from support.worst_fits import SeveralGradients

EXAMPLES = [ROOT / "examples" / f"accelerate_{kind}.py" for kind in ("plain", "balanced")]


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Accelerate keeps its state in the process."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


class Accelerated:
    """The loop of Accelerate's documentation, with the balancer."""

    def __init__(
        self,
        make: Callable[[], eq.Method] = always,
        *,
        late: bool = False,
        ranks: int = 1,
        **settings: Any,
    ) -> None:
        self.world = World()
        self.accelerator = accelerate.Accelerator(
            gradient_accumulation_steps=ACCUMULATE, cpu=True, **settings
        )
        optimizer = self.world.optimizer
        self.schedule = schedule(optimizer)
        if not late:
            # It is made before the model is wrapped, so that it has to be told who trains together.
            told = {} if ranks == 1 else {"process_group": dist.group.WORLD}
            self.balancer = self.world.balance(make(), **told)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            self.world.model, optimizer, loader(ranks)
        )
        if late:
            net = self.accelerator.unwrap_model(self.model)
            encoders = dict(net.encoders.items())
            self.balancer = eq.Balancer(make(), self.model, encoders, net.head, self.optimizer)
        self.accelerator.register_for_checkpointing(self.balancer, self.schedule)
        self.step = 0

    def train(self, until: int = STEPS, clip: Callable[..., Any] | None = None) -> Tensor:
        clip = clip or self.accelerator.clip_grad_norm_
        per_epoch = len(self.loader) // ACCUMULATE
        while self.step < until:
            skipped = self.step % per_epoch * ACCUMULATE
            for *inputs, target in self.accelerator.skip_first_batches(self.loader, skipped):
                with self.accelerator.accumulate(self.model):
                    loss = self.balancer.loss(self.model(*inputs), target)
                    self.balancer.backward(loss, using=self.accelerator.backward)
                    if self.accelerator.sync_gradients:
                        self.balancer.modulate(self.accelerator.scaler)
                        clip(self.model.parameters(), CLIP)
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                if self.accelerator.sync_gradients:
                    self.schedule.step()
                    self.step += 1
                    if self.step == until:
                        break
            if self.step % per_epoch == 0:
                self.balancer.end_epoch()
        return weights(self.world.model)


@pytest.mark.parametrize("make", [always, ogm_ge])
@pytest.mark.parametrize("late", [False, True], ids=["before prepare", "after prepare"])
def test_equals_the_plain_loop(make: Callable[[], eq.Method], late: bool) -> None:
    loop, accelerated = Loop(make), Accelerated(make, late=late)
    assert torch.equal(accelerated.train(), loop.train())
    assert str(accelerated.balancer.state_dict()) == str(loop.balancer.state_dict())
    accelerated.balancer.detach()
    assert hooks_of(accelerated.model, accelerated.optimizer) == 0


def test_the_optimizer_within_accelerate_s_wrapper_is_hooked() -> None:
    accelerated = Accelerated(late=True)
    assert isinstance(accelerated.optimizer, accelerate.optimizer.AcceleratedOptimizer)
    assert accelerated.balancer.optimizers == [accelerated.world.optimizer]


def on_ranks(rank: int, folder: str) -> dict[str, Any]:
    as_if_launched(rank)
    found: dict[str, Any] = {"plain": Loop(ogm_ge).train()}
    for late in (False, True):
        accelerated = Accelerated(ogm_ge, late=late, ranks=2)
        found[f"late {late}"] = accelerated.train()
        found[f"state {late}"] = str(accelerated.balancer.state_dict())
        accelerated.balancer.detach()
    assert accelerated.accelerator.num_processes == 2
    accelerated = Accelerated(ogm_ge, ranks=2)
    accelerated.train(until=13)
    accelerated.accelerator.save_state(folder)
    accelerated.balancer.detach()
    resumed = Accelerated(ogm_ge, ranks=2)
    resumed.accelerator.load_state(folder)
    resumed.step = 13
    found["resumed"] = resumed.train()
    found["several"] = Accelerated(SeveralGradients, ranks=2).train()
    return found


def test_two_ranks_equal_the_plain_loop_and_the_one_large_batch(tmp_path: Path) -> None:
    first, second = spawn(on_ranks, str(tmp_path))
    for late in (False, True):
        assert torch.equal(first[f"late {late}"], second[f"late {late}"])
        assert first[f"state {late}"] == second[f"state {late}"]
        assert torch.equal(first[f"late {late}"], first["plain"])
    assert torch.equal(first["resumed"], first["plain"])
    assert torch.equal(first["several"], second["several"])
    for name, make in (("plain", ogm_ge), ("several", SeveralGradients)):
        torch.testing.assert_close(first[name], Loop(make).train(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("step", [3, 10, 13])
def test_saved_and_loaded_by_accelerate(tmp_path: Path, step: int) -> None:
    straight = Accelerated(ogm_ge)
    straight.train()
    first = Accelerated(ogm_ge)
    first.train(until=step)
    first.accelerator.save_state(str(tmp_path))
    resumed = Accelerated(ogm_ge)
    resumed.accelerator.load_state(str(tmp_path))
    resumed.step = step
    assert torch.equal(resumed.train(), weights(straight.world.model))
    assert str(resumed.balancer.state_dict()) == str(straight.balancer.state_dict())


def test_no_hook_is_left_after_an_error() -> None:
    accelerated = Accelerated()
    with pytest.raises(KeyboardInterrupt), accelerated.balancer:
        accelerated.train(until=2)
        raise KeyboardInterrupt
    assert hooks_of(accelerated.model, accelerated.optimizer) == 0


# ---------------------------------------------------------------------- precision, compilation


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Accelerated]:
    """A loop in fp16 on a CPU, which Accelerate does not offer: with double precision, which
    autocast leaves as it is, and a scale that is a power of two, not a bit may differ."""

    def made() -> Accelerated:
        accelerator = accelerate.Accelerator(gradient_accumulation_steps=ACCUMULATE, cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        accelerator.native_amp = True
        monkeypatch.setitem(accelerator.state._shared_state, "_mixed_precision", "fp16")
        monkeypatch.setattr(accelerate, "Accelerator", lambda **settings: accelerator)
        return Accelerated(ogm_ge)

    return made


def test_under_a_gradient_scaler(half: Callable[[], Accelerated]) -> None:
    accelerated = half()
    assert torch.equal(accelerated.train(clip=nn.utils.clip_grad_norm_), Loop(ogm_ge).train())
    assert accelerated.balancer.steps == STEPS


def test_accelerate_refuses_to_clip_what_is_unscaled_already(
    half: Callable[[], Accelerated],
) -> None:
    """The page says to clip by torch's function under fp16; this is what happens otherwise."""
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called"):
        half().train()


def test_compiled_by_accelerate() -> None:
    accelerated = Accelerated(ogm_ge, dynamo_backend="eager")
    assert accelerated.model is not accelerated.world.model
    with pytest.raises(eq.MatchError, match=r"does not show in a compiled forward"):
        accelerated.train()
    accelerated = Accelerated(ogm_ge, dynamo_backend="eager")
    accelerated.balancer.attached.recorder.seen = None
    with torch.compiler.set_stance("force_eager"):
        accelerated.balancer.check(batch(4))  # shows the graph
    torch.testing.assert_close(accelerated.train(), Loop(ogm_ge).train(), rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------------- losses scaled on the way


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gradients_of_terms_follow_what_backward_makes_of_the_loss(scale: float) -> None:
    """Accelerate divides the loss on the way to its backward, out of the balancer's sight."""
    batches = [batch(12, seed=seed) for seed in range(3)]
    found = []
    for outside in (True, False):
        world = World()
        balancer = world.balance(SeveralGradients())
        for *inputs, target in batches:
            for _ in range(2):
                loss = balancer.loss(world.model(*inputs), target)
                if outside:
                    balancer.backward(loss * scale)
                else:
                    balancer.backward(loss, using=lambda loss: (loss * scale).backward())
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        found.append(weights(world.model))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-13)


def test_a_method_of_several_gradients_equals_the_plain_loop() -> None:
    found = Accelerated(SeveralGradients).train()
    torch.testing.assert_close(found, Loop(SeveralGradients).train(), rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------------- the examples


def test_the_examples_run_and_differ_in_five_lines() -> None:
    assert changed_lines(*EXAMPLES) <= 5
    plain, balanced = run(*EXAMPLES)
    assert "validation accuracy" in plain
    assert "validation accuracy" in balanced
    assert plain != balanced


def test_the_page_shows_how_the_examples_differ() -> None:
    assert_page_shows_diff(ROOT / "docs" / "trainers" / "accelerate.md", *EXAMPLES)
