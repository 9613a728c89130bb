"""Models that strangers write, each against OGM and a sum of losses written into its loop by hand.

What is special about each is in its name; at most a line of the balancer's call says it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.noise import mix
from support import slow
from support.strangers import (
    BATCH,
    CLASSES,
    WIDTH,
    Auxiliary,
    LSTMs,
    SequencesFirst,
    Stranger,
    TwoImages,
)


class OneTuple(LSTMs):
    """One encoder returns a tuple and the other a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.video = nn.Linear(5, WIDTH)

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        return {"audio": self.audio(a)[0], "video": self.video(v)}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        return Stranger.fuse(self, self.vectors(z))

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: sequence.mean(1) for name, sequence in z.items()}


class Frames(Stranger):
    """The video encoder runs on one frame at a time."""

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        frames = [self.video(v[:, t]) for t in range(v.shape[1])]
        return {"audio": self.audio(a[:, 0]), "video": torch.stack(frames, dim=1)}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        return super().fuse(self.vectors(z) | {"video": z["video"].tanh().mean(1)})

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return z | {"video": z["video"].mean(1)}


class Keeping(Stranger):
    """Keeps its latest feature, counts, and appends to a list."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Tensor] = []
        self.calls, self.register = 0, {"last": 0}
        self.register_buffer("seen", torch.zeros(1))

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        self.kept = z["audio"]
        self.log.append(self.kept.detach())
        self.register["last"] = self.calls
        self.seen += 1
        return super().fuse(z)


class Attention(Stranger):
    """Attention over the two features, written into forward."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(WIDTH))
        self.out = nn.Linear(WIDTH, CLASSES)

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        both = torch.stack([*z.values()], dim=1)
        weights = (both @ self.query).softmax(1)
        return self.out((weights[..., None] * both).sum(1))


class Gated(Stranger):
    """A gate of one over the other, written into forward."""

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        gate = (z["audio"] + 1).sigmoid()
        return self.out(torch.cat([gate * z["video"], (1 - gate) * z["audio"]], dim=1))


class Largest(Stranger):
    """The larger of both features."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, CLASSES)

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        return self.out(torch.maximum(z["audio"], z["video"]))


@dataclass
class Output:
    """What an encoder of a library returns."""

    states: Tensor
    pooled: Tensor


class Pair(NamedTuple):
    states: Tensor
    pooled: Tensor


class Pooling(nn.Module):
    def __init__(self, width: int, kind: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.pool, self.kind = nn.Linear(width, WIDTH), nn.Linear(WIDTH, WIDTH), kind

    def forward(self, x: Tensor) -> Any:
        states = self.layer(x)
        return self.kind(states=states, pooled=self.pool(states.mean(1)).tanh())


class Outputs(Stranger):
    """Encoders that return a dataclass and a named tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.video = Pooling(4, Output), Pooling(5, Pair)

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        return {"audio": self.audio(a).pooled, "video": self.video(v).pooled}


class SecondCrop(Stranger):
    """Encodes another crop, whose feature does not reach the logits."""

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        z = super().features(a, v)
        self.consistency = (self.audio(a.flip(0)) - z["audio"]).square().mean()
        return z


class Parallel(Stranger):
    """Two modules side by side are one encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.video = nn.ModuleList([nn.Linear(5, WIDTH), nn.Linear(5, WIDTH)])

    def features(self, a: Tensor, v: Tensor) -> dict[str, Tensor]:
        both = torch.stack([each(v) for each in self.video], dim=1)
        return {"audio": self.audio(a), "video": both}

    def fuse(self, z: dict[str, Tensor]) -> Tensor:
        return super().fuse(z | {"video": z["video"].prod(1)})

    def vectors(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return z | {"video": z["video"].mean(1)}


@dataclass
class Case:
    make: Callable[[], Stranger]
    steps: tuple[int, ...] = ()  # of sequences; none for vectors
    logits: Callable[[Any], Tensor] = lambda output: output
    encoders: Callable[[Any], dict[str, Any]] = lambda m: {"audio": m.audio, "video": m.video}
    settings: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "LSTMs": Case(LSTMs, (5, 7), settings={"features": lambda audio, video: {
        "audio": audio[1][0], "video": video[1][0]}}),
    "one tuple": Case(OneTuple, (5, 7)),
    "sequences first": Case(SequencesFirst, (5, 7)),
    "sequences as long as the batch": Case(SequencesFirst, (BATCH, BATCH)),
    "frames in a loop": Case(Frames, (1, 4)),
    "two images": Case(TwoImages, (2, 6)),
    "auxiliary outputs in training": Case(
        Auxiliary, logits=lambda output: output[1] if len(output) == 3 else output[0]
    ),
    "keeping": Case(Keeping),
    "attention": Case(Attention),
    "gated": Case(Gated),
    "largest": Case(Largest),
    "outputs": Case(Outputs, (3, 4)),
    "a second crop": Case(SecondCrop),
    "modules side by side": Case(
        Parallel, encoders=lambda m: {"audio": m.audio, "video": [*m.video]}
    ),
}  # fmt: skip
each_case = pytest.mark.parametrize("name", CASES)


def batches(case: Case, count: int = 3) -> list[tuple[Tensor, Tensor, Tensor]]:
    made = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        target = torch.randint(CLASSES, (BATCH,), generator=generator)
        inputs = []
        for index, width in enumerate((4, 5)):
            shape = (BATCH, *case.steps[index : index + 1], width)
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            inputs.append(x + (2 - index) * (target - 1).view(-1, *[1] * (x.ndim - 1)))
        made.append((*inputs, target))
    return made


def world(case: Case) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = case.make().double()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def alone(case: Case, model: Any, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Logits of each modality, the other's feature at zero, or at its mean where zeros deafen."""
    kept = copy.deepcopy({k: v for k, v in vars(model).items() if k in ("log", "register")})
    plain = {k: v for k, v in vars(model).items() if k in ("calls", "kept", "consistency")}
    seen = model.seen.clone() if isinstance(model, Keeping) else None
    with torch.no_grad():
        z = model.features(*inputs)
        model.eval()
        found = {}
        for name in z:
            others = {n: f if n == name else torch.zeros_like(f) for n, f in z.items()}
            found[name] = case.logits(model.fuse(others))
        if any(torch.allclose(u, u[:1].expand_as(u)) for u in found.values()):
            for name in z:
                means = {n: f if n == name else f.mean(0).expand_as(f) for n, f in z.items()}
                found[name] = case.logits(model.fuse(means))
        model.train()
    vars(model).update(kept | plain)
    if seen is not None:
        model.seen.copy_(seen)
    return found


def train(case: Case, method: eq.Method) -> Any:
    model, optimizer = world(case)
    balancer = eq.Balancer(method, model, case.encoders(model), None, optimizer, **case.settings)
    for *inputs, target in batches(case):
        balancer.backward(balancer.loss(case.logits(model(*inputs)), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    return model


def equal(model: nn.Module, other: nn.Module) -> None:
    twins = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, twins[name], rtol=1e-6, atol=1e-9, msg=name)


@each_case
def test_ogm_equals_the_loop_by_hand(name: str) -> None:
    case = CASES[name]
    model, optimizer = world(case)
    moved = set()
    for *inputs, target in batches(case):
        singles = alone(case, model, inputs)
        scores = [slow.score(u.numpy(), target.tolist()) for u in singles.values()]
        F.cross_entropy(case.logits(model(*inputs)), target).backward()
        for modality, ratio in zip(singles, slow.ratios(scores), strict=True):
            factor = slow.thresholded(ratio, 0.8)
            moved.add(factor)
            for part in getattr(model, modality).parameters():
                if part.ndim >= 2:
                    part.grad.mul_(factor)
        optimizer.step()
        optimizer.zero_grad()
    assert len(moved) > 2, "no modality was ever ahead"
    equal(train(case, eq.OGM(0.8)), model)


@each_case
def test_a_sum_of_losses_equals_the_loop_by_hand(name: str) -> None:
    case = CASES[name]
    model, optimizer = world(case)
    readouts = eq.Readouts()
    widths = dict.fromkeys(("audio", "video"), (WIDTH,))
    readouts.build(eq.Shapes(widths, (CLASSES,), torch.device("cpu"), torch.float64), mix(0, 1))
    own = torch.optim.SGD(readouts.parameters(), lr=0.1, momentum=0.9)
    for *inputs, target in batches(case):
        z = model.features(*inputs)
        singles = readouts(model.vectors(z))
        losses = [
            F.cross_entropy(u, target) for u in (case.logits(model.fuse(z)), *singles.values())
        ]
        sum(losses).backward()
        for each in (optimizer, own):
            each.step()
            each.zero_grad()
    equal(train(case, eq.MultiLoss()), model)
