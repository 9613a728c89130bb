"""Small models of tasks beyond classification, their losses by hand, and one step by hand."""

from __future__ import annotations

import copy
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from support import slow

ALPHA = 0.8
NAMES = ("audio", "visual", "text")
PADDING = -100


# ---------------------------------------------------------------- models of the tasks


class Host(nn.Module):
    """An encoder per modality, and a head that takes the features one after the other."""

    def __init__(self, encoders: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(zip(NAMES, encoders, strict=False)))
        self.head = head

    def features(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [e(x) for e, x in zip(self.encoders.values(), inputs, strict=True)]

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(*self.features(inputs))
        return logits


class Joined(nn.Module):
    """A linear layer on concatenated features; one output is squeezed."""

    def __init__(self, modalities: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(8 * modalities, outputs)

    def forward(self, *features: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.cat(features, dim=-1))
        return logits.squeeze(-1)

    def alone(self, features: Sequence[Tensor]) -> list[Tensor]:
        parts = self.linear.weight.split(8, dim=1)
        bias = self.linear.bias / len(features)
        return [(f @ w.T + bias).squeeze(-1) for f, w in zip(features, parts, strict=True)]


class Ablated(nn.Module):
    """A head to be read by ablation: the others are zeros."""

    def alone(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [
            self(*(f if i == m else f * 0 for i, f in enumerate(features)))
            for m in range(len(features))
        ]


class Curve(Ablated):
    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8 * modalities, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, *features: Tensor) -> Tensor:
        prediction: Tensor = self.layers(torch.cat(features, dim=1))
        return prediction


class Localiser(Ablated):
    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.context = nn.Conv1d(8 * modalities, 6, 3, padding=1)
        self.classifier = nn.Conv1d(6, 4, 1)

    def forward(self, *features: Tensor) -> Tensor:
        together = torch.cat(features, dim=2).transpose(1, 2)
        logits: Tensor = self.classifier(self.context(together).tanh())
        return logits


class Decoder(Ablated):
    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(8 * modalities, 6, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=2),
            nn.Conv2d(6, 3, 1),
        )  # fmt: skip

    def forward(self, *maps: Tensor) -> Tensor:
        logits: Tensor = self.layers(torch.cat(maps, dim=1))
        return logits


def cosines(queries: Tensor, candidates: Tensor) -> Tensor:
    return F.normalize(queries, dim=1) @ F.normalize(candidates, dim=1).T / 0.3


class Directions(nn.Module):
    """Similarities of all ordered pairs of modalities, (B, B, P)."""

    def forward(self, *features: Tensor) -> Tensor:
        return torch.cat(self.alone(features), dim=2)

    def alone(self, features: Sequence[Tensor]) -> list[Tensor]:
        """For each modality the pairs that it asks in, (B, B, M - 1)."""
        return [
            torch.stack([cosines(q, c) for j, c in enumerate(features) if j != m], dim=2)
            for m, q in enumerate(features)
        ]


def as_query(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(features, Directions().alone(list(features.values())), strict=True))


def info_nce(logits: Tensor, partner: Tensor, reduction: str = "mean") -> Tensor:
    target = partner[:, None].expand(-1, logits.shape[2])
    return F.cross_entropy(logits, target, reduction=reduction)


def vectors(modalities: int) -> list[nn.Module]:
    return [
        nn.Sequential(nn.Linear(4 + i, 7), nn.Tanh(), nn.Linear(7, 8), nn.Tanh())
        for i in range(modalities)
    ]


def maps(modalities: int) -> list[nn.Module]:
    return [
        nn.Sequential(nn.Conv2d(1 + i, 8, 3, stride=2, padding=1), nn.Tanh())
        for i in range(modalities)
    ]


# ---------------------------------------------------------------- the tasks, and their losses by hand


def binary(u: Tensor, y: Tensor, positive: Tensor, weight: Tensor) -> list[Tensor]:
    """Losses of all labels of one sample."""
    p = 1 / (1 + (-u).exp())
    return [
        -weight[j] * (positive[j] * y[j] * p[j].log() + (1 - y[j]) * (1 - p[j]).log())
        for j in range(len(u))
    ]


def squared(u: Tensor, y: Tensor) -> list[Tensor]:
    return [(u - y) ** 2]


def huber(u: Tensor, y: Tensor, delta: float) -> list[Tensor]:
    return [0.5 * d**2 if abs(d) <= delta else delta * (abs(d) - 0.5 * delta) for d in (u - y)]


def true_class(u: Tensor, y: Tensor) -> list[Tensor]:
    """Losses of all positions of one sample, (C, ...) and (...), without the padding."""
    u, y = u.flatten(1), y.flatten()
    return [u[:, t].exp().sum().log() - u[y[t], t] for t in range(len(y)) if y[t] != PADDING]


def partner(u: Tensor, y: Tensor) -> list[Tensor]:
    return [u[:, p].exp().sum().log() - u[y, p] for p in range(u.shape[1])]


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def inputs(modalities: int, size: int, seed: int, *between: int) -> list[Tensor]:
    return [draw(size, *between, 4 + i, seed=10 * seed + i) for i in range(modalities)]


POSITIVE = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
LABEL = torch.tensor([1.0, 0.3, 2.0, 1.0], dtype=torch.float64)


@dataclass
class Task:
    """How the library is told of a task, and the losses of one sample written out by hand."""

    host: Callable[[int], Host]
    batch: Callable[[int, int, int], list[Tensor]]  # modalities, size, seed
    criterion: Any
    elements: Callable[[Tensor, Tensor], list[Tensor]]
    scores: Any = "auto"
    temperature: float = 1.0
    alone: bool = True  # samples do not see each other


def multi_label_batch(modalities: int, size: int, seed: int) -> list[Tensor]:
    given = inputs(modalities, size, seed)
    return [*given, (given[0][:, :4] + 0.5 * given[1][:, :4] > 0.3).double()]


def scalar_batch(modalities: int, size: int, seed: int) -> list[Tensor]:
    given = inputs(modalities, size, seed)
    return [*given, 2 * given[0][:, 0] + given[1].mean(1)]


def pair_batch(modalities: int, size: int, seed: int) -> list[Tensor]:
    given = inputs(modalities, size, seed)
    return [*given, torch.stack([given[0].sum(1), given[1][:, 1] ** 2], dim=1)]


def session_batch(modalities: int, size: int, seed: int, padded: bool = True) -> list[Tensor]:
    given = inputs(modalities, size, seed, 5)
    target = (given[0][..., 0] > 0).long() + 2 * (given[1][..., 0] > 0.5).long()
    if padded:
        for i in range(size):
            target[i, 5 - i % 4 :] = PADDING
        target[size // 2] = PADDING  # nothing in it to find
    return [*given, target]


def image_batch(modalities: int, size: int, seed: int) -> list[Tensor]:
    given = [draw(size, 1 + i, 6, 4, seed=10 * seed + i) for i in range(modalities)]
    return [*given, (given[0][:, 0] > 0).long() + (given[1][:, 0] > 0.5).long()]


def contrastive_batch(modalities: int, size: int, seed: int) -> list[Tensor]:
    return [*inputs(modalities, size, seed), torch.arange(size)]


TASKS = {
    "multi-label": Task(
        lambda m: Host(vectors(m), Joined(m, 4)),
        multi_label_batch,
        nn.BCEWithLogitsLoss(),
        functools.partial(binary, positive=torch.ones(4), weight=torch.ones(4)),
    ),
    "multi-label, weighted": Task(
        lambda m: Host(vectors(m), Joined(m, 4)),
        multi_label_batch,
        nn.BCEWithLogitsLoss(pos_weight=POSITIVE, weight=LABEL),
        functools.partial(binary, positive=POSITIVE, weight=LABEL),
    ),
    "regression, squared": Task(
        lambda m: Host(vectors(m), Joined(m, 1)),
        scalar_batch,
        nn.MSELoss(),
        squared,
        eq.Split(temperature=5.0),
        5.0,
    ),
    "regression, Huber": Task(
        lambda m: Host(vectors(m), Curve(m)),
        pair_batch,
        nn.HuberLoss(delta=0.7),
        functools.partial(huber, delta=0.7),
        eq.Ablation(temperature=2.0),
        2.0,
    ),
    "localisation": Task(
        lambda m: Host(vectors(m), Localiser(m)),
        session_batch,
        nn.CrossEntropyLoss(ignore_index=PADDING),
        true_class,
    ),
    "dense": Task(
        lambda m: Host(maps(m), Decoder(m)), image_batch, nn.CrossEntropyLoss(), true_class
    ),
    "contrastive": Task(
        lambda m: Host(vectors(m), Directions()),
        contrastive_batch,
        info_nce,
        partner,
        as_query,
        alone=False,
    ),
}  # fmt: skip


# ---------------------------------------------------------------- the loop, by the library and by hand


@dataclass
class World:
    """A model and its optimizer, made anew for every run."""

    task: Task
    modalities: int = 2
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = self.task.host(self.modalities).to(self.dtype)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def balance(self, method: eq.Method | None = None, **settings: Any) -> eq.Balancer:
        given = {
            "head": self.model.head,
            "criterion": self.task.criterion,
            "scores": copy.deepcopy(self.task.scores),  # each balancer has its own
            "track_every": 1,
            **settings,
        }
        encoders = dict(self.model.encoders.items())
        method = method or eq.OGM(ALPHA)
        return eq.Balancer(method, self.model, encoders, optimizer=self.optimizer, **given)

    def train(
        self,
        balancer: eq.Balancer,
        batch: Sequence[Tensor],
        micro: int = 1,
        present: Mapping[str, Tensor] | None = None,
    ) -> dict[str, float]:
        for part in zip(*(tensor.chunk(micro) for tensor in batch), strict=True):
            *given, target = part
            if not self.task.alone:
                target = torch.arange(len(target))
            loss = balancer.loss(balancer.attached.model(*given), target, present=present)
            balancer.backward(loss / micro)
        balancer.modulate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return balancer.metrics()

    def by_hand(
        self,
        batch: Sequence[Tensor],
        micro: int = 1,
        present: Mapping[str, Tensor] | None = None,
    ) -> dict[str, float]:
        """One step; the evidence as logarithms, so that huge losses do not underflow."""
        exponents: list[list[float]] = [[] for _ in range(self.modalities)]
        self.optimizer.zero_grad()
        for part in zip(*(tensor.chunk(micro) for tensor in batch), strict=True):
            *given, target = part
            if not self.task.alone:
                target = torch.arange(len(target))
            features = self.model.features(given)
            logits = self.model.head(*features)
            together = [
                e for u, y in zip(logits, target, strict=True) for e in self.task.elements(u, y)
            ]
            (torch.stack(together).mean() / micro).backward()
            with torch.no_grad():
                for m, unimodal in enumerate(self.model.head.alone(features)):
                    has = (present or {}).get(NAMES[m], torch.ones(len(target), dtype=torch.bool))
                    for i in range(len(target)):
                        losses = self.task.elements(unimodal[i], target[i])
                        if losses and has[i]:
                            mean = sum(loss.item() for loss in losses) / len(losses)
                            exponents[m].append(-mean / self.task.temperature)
        peak = max(max(of) for of in exponents)
        relative = [sum(math.exp(e - peak) for e in of) / len(of) for of in exponents]
        # next to nothing in place of nothing: a ratio to it has no bound
        ratios = slow.ratios([max(score, sys.float_info.min) for score in relative])
        ks = [slow.thresholded(ratio, ALPHA) for ratio in ratios]
        for k, encoder in zip(ks, self.model.encoders.values(), strict=True):
            slow.scale_matrices([encoder], k)
        self.optimizer.step()
        found = {}
        for name, mean, ratio, k in zip(NAMES, relative, ratios, ks, strict=False):
            found |= {f"evidence/{name}": mean * math.exp(peak), f"ratio/{name}": ratio}
            found[f"coefficient/{name}"] = k
        return found
