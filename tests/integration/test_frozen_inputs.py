"""Which input of the head is that of a frozen encoder, which leaves no graph of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq

Fuse = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Pair(nn.Module):
    """A frozen video encoder; what the head is given differs."""

    def __init__(self, head: nn.Module, fuse: Fuse, without_gradients: bool = False) -> None:
        super().__init__()
        self.audio, self.video = nn.Linear(4, 8), nn.Linear(5, 8)
        self.video.requires_grad_(False)
        self.head, self.fuse = head, fuse
        self.without_gradients = without_gradients

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        off = torch.no_grad() if self.without_gradients else contextlib.nullcontext()
        with off:
            video = self.video(v)
        return self.fuse(self.head, self.audio(a), video)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.out(torch.cat([first, second], dim=1))  # type: ignore[no-any-return]


MIXED: dict[str, tuple[Callable[[], nn.Module], Fuse]] = {
    "product beside": (Two, lambda head, a, v: head(v, a * v)),
    "sum beside": (Two, lambda head, a, v: head(a + v, v)),
    "gate on the trained": (Two, lambda head, a, v: head(v.relu(), v.sigmoid() * a)),
    "gate within a concatenation": (
        lambda: nn.Linear(16, 3), lambda head, a, v: head(torch.cat([a * v.sigmoid(), v], 1))
    ),
    "changed in place": (Two, lambda head, a, v: head(v.mul_(2), a * v)),
}  # fmt: skip
APART: dict[str, tuple[Callable[[], nn.Module], Fuse]] = {
    "first": (Two, lambda head, a, v: head(v, a)),
    "second, pooled": (Two, lambda head, a, v: head(a, v.relu())),
    "changed in place": (Two, lambda head, a, v: head(v.mul_(2), a)),
    "concatenated": (lambda: nn.Linear(16, 3), lambda head, a, v: head(torch.cat([v, a], 1))),
}


def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, v = torch.randn(6, 4, generator=generator), torch.randn(6, 5, generator=generator)
    return a.double(), v.double(), torch.arange(6) % 3


def made(head: Callable[[], nn.Module], fuse: Fuse, no_grad: bool, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = Pair(head(), fuse, no_grad).double()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    method = eq.OGM(0.8, modalities=["audio"])
    encoders = {"audio": model.audio, "video": model.video}
    return model, optimizer, eq.Balancer(
        method, model, encoders, model.head, optimizer, track_every=1, **settings
    )  # fmt: skip


no_grad = pytest.mark.parametrize("no_grad", [False, True], ids=["with a graph", "under no_grad"])
asked_first = pytest.mark.parametrize("asked_first", [False, True])


@asked_first
@no_grad
@pytest.mark.parametrize("name", MIXED)
def test_a_frozen_feature_within_the_others_is_refused_whatever_comes_first(
    name: str, no_grad: bool, asked_first: bool
) -> None:
    model, _, balancer = made(*MIXED[name], no_grad)
    a, v, target = data()
    with pytest.raises(eq.MatchError, match=r"cannot tell which input|too, beside the features"):
        if asked_first:
            balancer.check((a, v, target))
        balancer.loss(model(a, v), target)


@asked_first
@no_grad
@pytest.mark.parametrize("name", APART)
def test_a_frozen_feature_by_itself_is_found(name: str, no_grad: bool, asked_first: bool) -> None:
    a, v, target = data()
    found = []
    for features in (None, {"video": "told"}):
        told: Any = {}
        if features is not None:
            order = {"first": (1, 0), "changed in place": (1, 0), "second, pooled": (0, 1)}
            audio, video = order.get(name, (slice(8, 16), slice(0, 8)))
            told = {"features": {"audio": audio, "video": video}}
        model, optimizer, balancer = made(*APART[name], no_grad, **told)
        if asked_first:
            balancer.check((a, v, target))
        for _ in range(2):
            balancer.backward(balancer.loss(model(a, v), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        assert model.video.weight.grad is None
        weights = [p.detach().flatten() for p in model.parameters()]
        found.append((torch.cat(weights), balancer.metrics()["evidence/video"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    assert found[0][1] == found[1][1]


def test_after_the_first_step_the_encoders_return_what_they_did() -> None:
    model, _, balancer = made(*APART["first"], no_grad=False)
    a, v, target = data()
    graphs = []
    model.video.register_forward_hook(lambda *given: graphs.append(given[2].requires_grad))
    for _ in range(2):
        balancer.backward(balancer.loss(model(a, v), target))
    with torch.no_grad():
        model(a, v)
        model.video(v).numpy()
    assert graphs == [True, False, False, False]
