"""Steps without a modality in an audio-video loop: its parameters and what is known of them stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.families import Denoiser

OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=0.1),
}
METHODS = [eq.Joint(), eq.OGM(0.8, space="update"), eq.OGMGE(0.8, parameters="all", space="update")]


class World:
    def __init__(self, method: eq.Method, optimizer: str = "AdamW", **settings: Any) -> None:
        torch.manual_seed(0)
        self.model = Denoiser().double()
        m = self.model
        self.parts = {"audio": [m.audio, m.audio_out], "video": [m.video, m.video_out]}
        self.optimizer = OPTIMIZERS[optimizer](m.parameters())
        self.balancer = eq.Balancer(
            method, m, self.parts, optimizer=self.optimizer, scores=eq.Given(2.0), **settings
        )

    def backward(self, lacking: str = "", mask: bool = False, seed: int = 0) -> None:
        """A model needs some audio in any case: where there is none it is fed zeros."""
        a, v = batch(seed)
        given = {"audio": a, "video": v}
        if lacking:
            given[lacking] = torch.zeros_like(given[lacking])
        outputs = dict(zip(given, self.model(given["audio"], given["video"]), strict=True))
        each = {name: (outputs[name] - x).square().mean(1) for name, x in given.items()}
        present = {lacking: torch.zeros(len(a), dtype=torch.bool)} if mask else None
        if lacking and not mask:
            del each[lacking]
        self.balancer.backward(self.balancer.loss(losses=each, present=present))

    def step(self, to_none: bool = True) -> None:
        self.balancer.modulate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=to_none)

    def of(self, name: str) -> dict[str, Any]:
        """Parameters of a modality, and what the optimizer knows of them."""
        parameters = [p for part in self.parts[name] for p in part.parameters()]
        return copy.deepcopy({str(i): (p.data, self.optimizer.state[p]) for i, p in enumerate(parameters)})  # fmt: skip


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, v = (torch.randn(6, width, generator=generator).double() for width in (4, 5))
    return a, v


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("lacking", ["audio", "video"])
@pytest.mark.parametrize("mask", [False, True])
def test_nothing_of_it_moves(method: eq.Method, optimizer: str, lacking: str, mask: bool) -> None:
    world = World(copy.deepcopy(method), optimizer)
    other = "video" if lacking == "audio" else "audio"
    world.backward()
    world.step(to_none=False)  # gradients of zero are left, which decay and momentum act on
    for micro in (1, 3):
        before, moved = world.of(lacking), world.of(other)
        for seed in range(micro):
            world.backward(lacking, mask, seed)
        world.step(to_none=False)
        assert same(before, world.of(lacking))
        assert not same(moved, world.of(other))
    world.backward()
    world.step()
    assert not same(before, world.of(lacking))


def test_one_micro_batch_that_has_it_trains_it() -> None:
    world = World(eq.OGM(0.8, space="update"))
    world.backward("audio")
    world.backward(seed=1)
    before = world.of("audio")
    world.step()
    assert not same(before, world.of("audio"))


def test_what_was_before_a_restart_is_not_taken_for_lacking() -> None:
    world, resumed = World(eq.OGM(0.8, space="update")), World(eq.OGM(0.8, space="update"))
    for each in (world, resumed):
        each.backward()
    resumed.balancer.load_state_dict(copy.deepcopy(world.balancer.state_dict()))
    for each in (world, resumed):
        each.backward("audio", seed=1)
        each.step()
    assert same(world.of("audio"), resumed.of("audio"))


def test_logits_and_a_token_for_what_is_missing_are_trained_as_before() -> None:
    """With logits a mask says whose evidence counts: an encoder's own token for it still learns."""

    class Captioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text, self.image, self.head = nn.Linear(5, 6), nn.Linear(4, 7), nn.Linear(13, 3)
            self.no_text = nn.Parameter(torch.randn(6))

        def forward(self, image: Tensor) -> Tensor:
            z = self.no_text.expand(len(image), -1)
            return self.head(torch.cat([z, self.image(image)], 1))  # type: ignore[no-any-return]

    model = Captioned()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    balancer = eq.Balancer(
        eq.OGM(0.3), model, {"text": [model.text, "no_text"], "image": model.image}, model.head,
        optimizer, features={"text": slice(0, 6), "image": slice(6, 13)}, scores=eq.Split(),
    )  # fmt: skip
    before, missing = model.no_text.detach().clone(), torch.zeros(8, dtype=torch.bool)
    target = torch.arange(8) % 3
    balancer.backward(balancer.loss(model(torch.randn(8, 4)), target, present={"text": missing}))
    balancer.modulate()
    optimizer.step()
    assert not torch.equal(before, model.no_text)
