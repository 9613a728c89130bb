"""Host models trained with OGM and OGM-GE by the design's loop, against loops written by hand."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal import data
from equimodal.nn import (
    AVGA,
    MLP,
    MMTM,
    PSP,
    TSN,
    CentralNet,
    CNN1d,
    CNN2d,
    CrossModalTransformer,
    pair_similarity_loss,
    sample_segments,
    segment_cross_entropy,
)
from support import slow

Named = Mapping[str, Tensor]
DATA = Path(os.environ.get("EQUIMODAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
ALPHA = 0.8


@dataclass(frozen=True)
class Case:
    """A host, its inputs, and what is known of it without looking at `encoders` and `head`.

    Attributes:
        owned: for each modality how the names of its own parameters start.
        encode: from the model and its inputs to the features.
        alone: from the model and the features to the unimodal logits, by hand.
    """

    make: Callable[[], Any]
    shapes: dict[str, tuple[int, ...]]
    owned: dict[str, tuple[str, ...]]
    encode: Callable[..., dict[str, Tensor]]
    alone: Callable[[Any, Named], dict[str, Tensor]]
    target: tuple[int, ...] = ()
    criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy


def ablated(model: Any, features: Named) -> dict[str, Tensor]:
    """The head with zeros in place of all other features."""
    return {
        kept: model.head(**{n: f if n == kept else 0 * f for n, f in features.items()})
        for kept in features
    }


def own_classifier(model: Any, features: Named) -> dict[str, Tensor]:
    layers = model.head.branches.classifiers
    return {n: f @ layers[n].weight.T + layers[n].bias for n, f in features.items() if n in layers}


def split(model: Any, features: Named) -> dict[str, Tensor]:
    linear = model.head.linear
    parts = linear.weight.split([f.shape[1] for f in features.values()], dim=1)
    bias = linear.bias / len(features)
    return {n: f @ w.T + bias for (n, f), w in zip(features.items(), parts, strict=True)}


def each_encoder(model: Any, *inputs: Tensor) -> dict[str, Tensor]:
    return {n: e(x) for (n, e), x in zip(model.encoders.items(), inputs, strict=True)}


def whole(model: Any, *inputs: Tensor) -> dict[str, Tensor]:
    features: dict[str, Tensor] = model.encode(*inputs)
    return features


def prefixes(*names: str, under: str) -> dict[str, tuple[str, ...]]:
    return {name: (f"{under}.{name}.",) for name in names}


SMALL: dict[str, Any] = {"audio": 6, "visual": 5, "hidden": 4, "attention": 6}
EVENTS = {"audio": (4, 6), "visual": (4, 2, 2, 5)}
THREE = ("audio", "visual", "text")
CASES: dict[str, Case] = {
    "tsn": Case(
        lambda: TSN({"audio": MLP(6, (8,), 5), "visual": CNN1d(2, 4, width=4, norm="none")}, 3),
        {"audio": (3, 2, 3), "visual": (2, 2, 9)},
        prefixes("audio", "visual", under="encoders"),
        each_encoder,
        split,
    ),
    "mmtm": Case(
        lambda: MMTM({n: CNN2d(1, 6, width=4, norm="none") for n in ("audio", "visual")}, 3),
        {"audio": (1, 9, 9), "visual": (1, 12, 8)},
        prefixes("audio", "visual", under="branches"),
        whole,
        own_classifier,
    ),
    "mmtm of three": Case(
        lambda: MMTM({n: CNN1d(2, 6, width=4, norm="none") for n in THREE}, 3, after=(1, 3)),
        dict.fromkeys(THREE, (2, 16)),
        prefixes(*THREE, under="branches"),
        whole,
        own_classifier,
    ),
    "centralnet": Case(
        lambda: CentralNet({n: CNN1d(2, 6, width=4, norm="none") for n in THREE}, 3),
        dict.fromkeys(THREE, (2, 16)),
        prefixes(*THREE, under="branches"),
        whole,
        own_classifier,
    ),
    "cross-modal": Case(
        lambda: CrossModalTransformer(dict.fromkeys(THREE, 4), 3, features=8, heads=2, dropout=0.0),
        {"audio": (5, 4), "visual": (6, 4), "text": (3, 4)},
        prefixes(*THREE, under="encoders"),
        each_encoder,
        ablated,
    ),
    "avga": Case(
        lambda: AVGA(3, **SMALL),
        EVENTS,
        {"audio": ("attention.guide.", "audio."), "visual": ("attention.cells.", "visual.")},
        whole,
        ablated,
        (4,),
        segment_cross_entropy,
    ),
    "psp": Case(
        lambda: PSP(3, threshold=0.2, dropout=0.0, **SMALL),
        EVENTS,
        {
            "audio": ("audio_layers.", "attention.guide.", "audio."),
            "visual": ("visual_layers.", "attention.cells.", "visual."),
        },
        whole,
        ablated,
        (4,),
        segment_cross_entropy,
    ),
}
each_case = pytest.mark.parametrize("name", CASES)


def made(case: Case) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = case.make().double()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def batch(case: Case, seed: int, size: int = 16) -> list[Tensor]:
    """Inputs that are shifted with the target, the first modality's the most."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (size, *case.target), generator=generator)
    inputs = []
    for strength, shape in zip((2.0, 0.7, 0.3), case.shapes.values(), strict=False):
        noise = torch.randn(size, *shape, generator=generator, dtype=torch.float64)
        shift = target.view(target.shape + (1,) * (len(shape) + 1 - target.ndim))
        inputs.append(noise + strength * (shift - 1))
    return [*inputs, target]


def balanced(
    case: Case, model: Any, optimizer: torch.optim.Optimizer, method: eq.Method
) -> eq.Balancer:
    return eq.Balancer(
        method,
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        criterion=case.criterion,
        track_every=1,
    )


def step(balancer: eq.Balancer, model: Any, whole: list[Tensor]) -> None:
    *inputs, target = whole
    (optimizer,) = balancer.optimizers
    balancer.backward(balancer.loss(model(*inputs), target))
    balancer.modulate()
    optimizer.step()
    optimizer.zero_grad()


def owner_of(case: Case, parameter: str) -> str | None:
    owners = [name for name, starts in case.owned.items() if parameter.startswith(starts)]
    assert len(owners) < 2
    return owners[0] if owners else None


def coefficients_by_hand(
    case: Case, model: Any, inputs: list[Tensor], target: Tensor
) -> list[float]:
    with torch.no_grad():
        alone = case.alone(model, case.encode(model, *inputs))
    scores = []
    for name in case.owned:
        total = 0.0
        for logits, wanted in zip(alone[name], target, strict=True):
            rows, labels = logits.reshape(-1, 3).numpy(), wanted.reshape(-1).tolist()
            losses = [-np.log(slow.softmax(u)[y]) for u, y in zip(rows, labels, strict=True)]
            total += float(
                np.exp(-sum(losses) / len(losses))
            )  # a recording's segments are averaged
        scores.append(total)
    return [slow.thresholded(ratio, ALPHA) for ratio in slow.ratios(scores)]


def by_hand(
    case: Case,
    model: Any,
    optimizer: torch.optim.Optimizer,
    batches: list[list[Tensor]],
    enhanced: bool,
) -> list[dict[str, float]]:
    """Train as a user would write it down, on a model that knows nothing of equimodal's balancer."""
    history = []
    for number_of_step, (*inputs, target) in enumerate(batches):
        optimizer.zero_grad()
        case.criterion(model(*inputs), target).backward()
        ks = coefficients_by_hand(case, model, inputs, target)
        history.append(dict(zip(case.owned, ks, strict=True)))
        number = 0
        for modality in case.owned:
            for name, parameter in model.named_parameters():
                if owner_of(case, name) != modality:
                    continue
                gradient = parameter.grad
                if parameter.ndim >= 2:
                    parameter.grad = history[-1][modality] * gradient
                    if enhanced:
                        sigma = slow.standard_deviation(gradient.numpy()) + 1e-8
                        drawn = slow.noise(
                            gradient.shape, gradient.dtype, 0, number_of_step, number
                        )
                        parameter.grad = parameter.grad + sigma * drawn
                number += 1
        optimizer.step()
    return history


@each_case
@pytest.mark.parametrize("enhanced", [False, True])
def test_equals_the_hand_written_loop(name: str, enhanced: bool) -> None:
    """Coefficient and noise act on the encoders' own weights, and on nothing else."""
    case = CASES[name]
    batches = [batch(case, seed) for seed in range(6)]
    expected, optimizer = made(case)
    history = by_hand(case, expected, optimizer, batches, enhanced)
    model, optimizer = made(case)
    balancer = balanced(case, model, optimizer, eq.OGMGE(ALPHA) if enhanced else eq.OGM(ALPHA))
    for each, ks in zip(batches, history, strict=True):
        step(balancer, model, each)
        metrics = balancer.metrics()
        for modality, k in ks.items():
            assert metrics[f"coefficient/{modality}"] == pytest.approx(k, rel=1e-6)
    assert any(k < 1 for ks in history for k in ks.values())
    for (parameter, found), wanted in zip(
        model.named_parameters(), expected.parameters(), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9), parameter


@each_case
def test_one_step_moves_what_is_shared_as_plain_training_does(name: str) -> None:
    case = CASES[name]
    plain, optimizer = made(case)
    step(balanced(case, plain, optimizer, eq.Joint()), plain, batch(case, 0))
    model, optimizer = made(case)
    step(balanced(case, model, optimizer, eq.OGMGE(ALPHA)), model, batch(case, 0))
    moved = 0
    for (parameter, found), wanted in zip(
        model.named_parameters(), plain.parameters(), strict=True
    ):
        same = torch.equal(found, wanted)
        if owner_of(case, parameter) is None or found.ndim < 2:
            assert same, f"{parameter} is shared or no weight, and was modulated"
        else:
            assert not same, f"{parameter} is an encoder's own weight, and was left alone"
            moved += 1
    assert moved >= 2


@each_case
def test_evidence_of_every_modality_moves(name: str) -> None:
    case = CASES[name]
    model, optimizer = made(case)
    balancer = balanced(case, model, optimizer, eq.OGM(ALPHA))
    seen = []
    for _ in range(12):
        step(balancer, model, batch(case, 0))
        metrics = balancer.metrics()
        seen.append([metrics[f"evidence/{modality}"] for modality in case.owned])
    changes = (torch.tensor(seen).amax(0) - torch.tensor(seen).amin(0)).tolist()
    assert all(change > 1e-3 for change in changes), changes
    assert all(0 < value < 1 for row in seen for value in row)


@each_case
def test_learns_with_ogm_ge_and_leaves_no_trace(name: str) -> None:
    case = CASES[name]
    model, optimizer = made(case)
    *inputs, target = batch(case, 0, size=32)
    before = copy.deepcopy(model)
    start = case.criterion(model(*inputs), target).item()
    hooks = {id(m): (len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()}
    with balanced(case, model, optimizer, eq.OGMGE(ALPHA)) as balancer:
        attached = sum(len(m._forward_hooks) for m in model.modules())
        assert attached > sum(after for after, _ in hooks.values())
        for seed in range(25):
            step(balancer, model, batch(case, seed, size=32))
        with torch.no_grad():
            alone = balancer.unimodal_logits(*inputs)
            logits = balancer.predict(*inputs)
    assert case.criterion(logits, target).item() < 0.8 * start
    assert list(alone) == list(case.owned)
    assert all(u.shape == logits.shape for u in alone.values())
    for m in model.modules():
        assert (len(m._forward_hooks), len(m._forward_pre_hooks)) == hooks[id(m)]
    assert model.state_dict().keys() == before.state_dict().keys()
    assert vars(model).keys() == vars(before).keys()


@each_case
def test_the_layout_is_found_by_name_or_by_gradient(name: str) -> None:
    case = CASES[name]
    model, optimizer = made(case)
    balancer = balanced(case, model, optimizer, eq.OGM(ALPHA))
    *inputs, _ = batch(case, 0)
    with torch.no_grad():
        balancer.unimodal_logits(*inputs)
    layout = str(balancer.attached.layout)
    for index, modality in enumerate(case.owned):
        place = f"argument {index}" if name == "tsn" else f"keyword {modality}"
        assert f"{modality} from {place}" in layout
    chosen = type(balancer.scores.chosen).__name__
    assert chosen == ("Ablation" if case.alone is ablated else "Split")


def test_the_pair_loss_of_psp_and_the_branch_loss_of_centralnet_are_added() -> None:
    """Both go to the loss beside the balancer's, and their gradients are modulated with the rest."""
    for name in ("psp", "centralnet"):
        case = CASES[name]
        *inputs, target = batch(case, 0)

        def extra(model: Any, features: Any, name: str = name, target: Tensor = target) -> Tensor:
            if name == "psp":
                loss: Tensor = 100 * pair_similarity_loss(
                    model.head.similarity(**features), target > 0
                )
            else:
                loss = model.branch_loss(features, target)
            return loss

        plain, _ = made(case)
        features = plain.encode(*inputs)
        (case.criterion(plain.head(**features), target) + extra(plain, features)).backward()
        model, optimizer = made(case)
        balancer = balanced(case, model, optimizer, eq.OGM(ALPHA))
        features = model.encode(*inputs)
        loss = balancer.loss(model.head(**features), target) + extra(model, features)
        balancer.backward(loss)
        balancer.modulate()
        metrics = balancer.metrics()
        for (parameter, found), wanted in zip(
            model.named_parameters(), plain.parameters(), strict=True
        ):
            owner = owner_of(case, parameter)
            k = 1.0 if owner is None or found.ndim < 2 else metrics[f"coefficient/{owner}"]
            torch.testing.assert_close(found.grad, k * wanted.grad, rtol=1e-6, atol=1e-12)


class Both(nn.Module):
    """Logits and the loss of the branches from one forward, as DistributedDataParallel needs it."""

    def __init__(self, host: CentralNet) -> None:
        super().__init__()
        self.host = host

    def forward(self, *inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        features = self.host.encode(*inputs)
        return self.host.head(**features), self.host.branch_loss(features, target)


def test_a_wrapper_that_returns_logits_and_the_loss_of_the_branches() -> None:
    case = CASES["centralnet"]
    *inputs, target = batch(case, 0)
    host, optimizer = made(case)
    balancer = balanced(case, host, optimizer, eq.OGMGE(ALPHA))
    features = host.encode(*inputs)
    loss = balancer.loss(host.head(**features), target) + host.branch_loss(features, target)
    balancer.backward(loss)
    balancer.modulate()
    inner, optimizer = made(case)
    wrapped = Both(inner)
    encoders = dict(inner.encoders.items())
    balancer = eq.Balancer(eq.OGMGE(ALPHA), wrapped, encoders, inner.head, optimizer)
    logits, extra = wrapped(*inputs, target=target)
    balancer.backward(balancer.loss(logits, target) + extra)
    balancer.modulate()
    for found, wanted in zip(inner.parameters(), host.parameters(), strict=True):
        assert torch.equal(found.grad, wanted.grad)


def test_accumulation_over_micro_batches_is_the_one_large_batch() -> None:
    for name in ("mmtm", "avga", "cross-modal"):
        case = CASES[name]
        large, small = made(case), made(case)
        one, many = (balanced(case, *each, eq.OGMGE(ALPHA)) for each in (large, small))
        for seed in range(3):
            whole_batch = batch(case, seed)
            step(one, large[0], whole_batch)
            for part in zip(*(tensor.chunk(4) for tensor in whole_batch), strict=True):
                *inputs, target = part
                many.backward(many.loss(small[0](*inputs), target) / 4)
            many.modulate()
            small[1].step()
            small[1].zero_grad()
        for found, wanted in zip(small[0].parameters(), large[0].parameters(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------------- real data


def trained(
    model: Any, method: eq.Method, parts: list[Tensor], epochs: int, lr: float = 0.05
) -> tuple[float, dict[str, float]]:
    """Train on real samples; return the loss on them before over after, and the last metrics."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    *inputs, target = parts
    encoders = dict(model.encoders.items())
    generator = torch.Generator().manual_seed(0)
    start = F.cross_entropy(model(*inputs), target).item()
    with eq.Balancer(method, model, encoders, model.head, optimizer, track_every=1) as balancer:
        for _ in range(epochs):
            for index in torch.randperm(len(target), generator=generator).split(32):
                step(balancer, model, [part[index] for part in parts])
            balancer.end_epoch()
        return F.cross_entropy(model(*inputs), target).item() / start, balancer.metrics()


@pytest.fixture(scope="module")
def words() -> list[Tensor]:
    """Sound, lips and digit of 128 spoken digits of GRID."""
    path = DATA / "grid_words.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here: set EQUIMODAL_DATA to the folder that holds it")
    stored = np.load(path)
    chosen = np.flatnonzero(stored["slot_train"] == 4)[:128]
    audio, video = (
        torch.from_numpy(stored[f"{kind}_train"][chosen]).float() for kind in ("audio", "video")
    )
    labels = torch.from_numpy(stored["y_train"][chosen]).long()
    target = torch.searchsorted(torch.tensor(sorted(set(labels.tolist()))), labels)
    return [(audio - audio.mean()) / audio.std(), (video - video.mean()) / video.std(), target]


WORDS: dict[str, tuple[Callable[[], Any], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]] = {
    "tsn": (
        lambda: TSN({"audio": CNN2d(1, 16, width=8), "visual": CNN2d(4, 16, width=8)}, 10),
        lambda a, v: (
            sample_segments(a.transpose(1, 2), 3, 13).unsqueeze(2),
            sample_segments(v, 3, 4),
        ),
    ),
    "mmtm": (
        lambda: MMTM({"audio": CNN2d(1, 16, width=8), "visual": CNN2d(12, 16, width=8)}, 10),
        lambda a, v: (a.unsqueeze(1), v),
    ),
    "cross-modal": (
        lambda: CrossModalTransformer({"audio": 48, "visual": 864}, 10, features=16, dropout=0.0),
        lambda a, v: (a.transpose(1, 2), v.flatten(2)),
    ),
}


@pytest.mark.parametrize("method", [eq.Joint, eq.OGMGE], ids=["plain", "ogm-ge"])
@pytest.mark.parametrize("name", WORDS)
def test_learns_spoken_digits(name: str, method: Any, words: list[Tensor]) -> None:
    torch.manual_seed(0)
    make, change = WORDS[name]
    audio, visual, target = words
    # Two gates of about a half each make the features of MMTM small at first.
    epochs, lr = (8, 0.3) if name == "mmtm" else (4, 0.05)
    parts = [*change(audio, visual), target]
    remaining, metrics = trained(make(), method(), parts, epochs, lr)
    assert remaining < 0.9
    assert all(0 < metrics[f"evidence/{m}"] < 1 for m in ("audio", "visual"))


@pytest.mark.parametrize("method", [eq.Joint, eq.OGMGE], ids=["plain", "ogm-ge"])
@pytest.mark.parametrize("name", ["centralnet", "cross-modal"])
def test_learns_exercises_from_a_watch(name: str, method: Any) -> None:
    torch.manual_seed(0)
    train = data.load("watch").train
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:192]
    inputs = [x[chosen] for x in train.features.values()]
    model: Any
    if name == "centralnet":
        model = CentralNet({n: CNN1d(3, 16, width=8) for n in train.features}, classes=7)
    else:
        model = CrossModalTransformer(dict.fromkeys(train.features, 3), 7, features=16, dropout=0.0)
        inputs = [x[:, :, ::4].transpose(1, 2) for x in inputs]
    remaining, metrics = trained(model, method(), [*inputs, train.target[chosen]], epochs=4)
    assert remaining < 0.8
    assert all(0 < metrics[f"evidence/{m}"] < 1 for m in train.features)
