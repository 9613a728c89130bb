"""Every method on real data: what the conformance kit, with its small vectors, does not see.

An epoch on the two modalities of `watch` and on three views of `mfeat`, in single precision, with
convolutional encoders, AdamW and a last batch that is not full; stopped in the middle of an epoch,
and restored from a file.
"""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal import data
from equimodal.data import Arrays
from equimodal.methods.teachers import Teachers
from equimodal.nn import MLP, CNN1d, Concat, Multimodal
from equimodal.testing import NAMES
from support.settings import METHODS, VARIANTS

# It is the optimizer of these runs on purpose: what it cancels is resumed all the same.
pytestmark = pytest.mark.filterwarnings("ignore:AdamW does not follow the size of gradients")

ALL = {**METHODS, **VARIANTS}
WIDTH, SIZE, SAMPLES, CLASSES = 8, 24, 3 * 24 + 10, 3
SETS = {"watch": ("accelerometer", "gyroscope"), "mfeat": ("pix", "mor", "fou")}


@functools.cache
def arrays(name: str) -> tuple[Arrays, Arrays]:
    """Training and held-out samples of the first three classes, under the names of the table."""
    splits = data.load(name, modalities=SETS[name])
    return some(splits.train, SAMPLES), some(splits.val, 30)


def some(whole: Arrays, count: int) -> Arrays:
    rows = torch.cat([(whole.target == c).nonzero()[:count, 0] for c in range(CLASSES)])
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))][:count]
    features = zip(NAMES, whole.features.values(), strict=False)
    return Arrays({name: f[rows].clone() for name, f in features}, whole.target[rows])


def encoder(feature: Tensor) -> nn.Module:
    if feature.ndim == 2:
        return MLP(feature.shape[1], hidden=(12,), features=WIDTH)
    return CNN1d(feature.shape[1], WIDTH, width=4)


@dataclass
class Case:
    """A method attached to a model on real data, made anew for every run."""

    name: str
    data: str
    seed: int = 0
    train: Arrays = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        make = ALL[self.name]
        self.method = make()
        self.train, held_out = arrays(self.data)
        most = self.method.capabilities.most or len(NAMES)
        model = getattr(make, "tried_on", None)
        if model is not None:  # of vectors of these widths
            self.train, held_out = narrow(self.train, most), narrow(held_out, most)
            self.model: Any = model(len(self.train.modalities))
        else:
            features = dict(list(self.train.features.items())[:most])
            encoders = {name: encoder(feature) for name, feature in features.items()}
            self.model = Multimodal(encoders, Concat(dict.fromkeys(encoders, WIDTH), CLASSES))
        if hasattr(self.method, "_teachers"):  # those of the table fit the kit's model
            torch.manual_seed(11)
            self.method._teachers = Teachers(
                {
                    name: eq.Teacher(encoder(feature), nn.Linear(WIDTH, CLASSES))
                    for name, feature in self.train.features.items()
                }
            )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.loader = self.train.loader(SIZE)
        self.balancer = eq.Balancer(
            self.method,
            self.model,
            dict(self.model.encoders.items()),
            self.model.head,
            self.optimizer,
            train_loader=self.loader,
            val_loader=held_out.loader(SIZE),
            epochs=3,
        )

    def step(self, batch: tuple[Tensor, ...]) -> float:
        *inputs, target = batch
        for _ in self.balancer.passes():
            loss = self.balancer.loss(self.model(*inputs), target)
            self.balancer.backward(loss)
        self.balancer.modulate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def epoch(self) -> list[float]:
        losses = [self.step(batch) for batch in self.balancer.batches(self.loader)]
        self.balancer.end_epoch()
        return losses

    def file(self) -> io.BytesIO:
        """Save everything, as to a file."""
        file = io.BytesIO()
        parts = (self.model, self.optimizer, self.balancer)
        torch.save([part.state_dict() for part in parts], file)
        file.seek(0)
        return file

    def restore(self, file: io.BytesIO) -> Case:
        states = torch.load(file, weights_only=True)
        for part, state in zip((self.model, self.optimizer, self.balancer), states, strict=True):
            part.load_state_dict(state)
        return self

    def bits(self) -> list[Tensor]:
        return list(self.model.state_dict().values())


def narrow(whole: Arrays, most: int) -> Arrays:
    """Return vectors of the widths of the conformance kit, 4 and up."""
    features = list(whole.features.items())[:most]
    widths = {name: f.flatten(1)[:, : 4 + i].contiguous() for i, (name, f) in enumerate(features)}
    return Arrays(widths, whole.target)


def hooks(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[object]:
    for module in model.modules():
        for kind, of in vars(module).items():
            if kind.endswith(("_hooks", "_pre_hooks")):
                yield from of.values()
    yield from optimizer._optimizer_step_pre_hooks.values()
    yield from optimizer._optimizer_step_post_hooks.values()


def same(first: Case, second: Case) -> None:
    for name, one, other in zip(first.model.state_dict(), first.bits(), second.bits(), strict=True):
        assert torch.equal(one, other), name
    states = [str(case.balancer.state_dict()["methods"]) for case in (first, second)]
    assert states[0] == states[1]


@pytest.mark.parametrize("source", SETS)
@pytest.mark.parametrize("name", ALL)
def test_epochs_on_real_data(name: str, source: str) -> None:
    """They run, leave the user's random numbers alone, and go on from a file bit for bit."""
    case = Case(name, source)
    keys, before = list(case.model.state_dict()), copy.deepcopy(case.bits())
    random = torch.get_rng_state()
    losses = case.epoch()
    assert torch.equal(torch.get_rng_state(), random), "global random numbers were drawn"
    assert torch.tensor(losses).isfinite().all()
    assert all(value.isfinite().all() for value in case.bits())
    assert not all(map(torch.equal, case.bits(), before)), "nothing was learnt"
    assert list(case.model.state_dict()) == keys

    resumed = Case(name, source, seed=5).restore(case.file())
    assert resumed.epoch() == case.epoch()
    same(resumed, case)


@pytest.mark.parametrize("name", ALL)
def test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_bit_for_bit(name: str) -> None:
    """The second epoch, which has an order of its own for methods that resample."""
    case = Case(name, "watch")
    case.epoch()
    batches = iter(case.balancer.batches(case.loader))
    for _ in range(2):
        case.step(next(batches))
    resumed = Case(name, "watch", seed=5).restore(case.file())
    theirs = iter(resumed.balancer.batches(resumed.loader))
    for _ in range(2):
        next(theirs)
    for each, rest in ((case, batches), (resumed, theirs)):
        for batch in rest:
            each.step(batch)
        each.balancer.end_epoch()
    same(resumed, case)


@pytest.mark.parametrize("name", ALL)
def test_it_predicts_and_leaves_no_trace(name: str) -> None:
    case = Case(name, "watch")
    keys = list(case.model.state_dict())
    case.epoch()
    *inputs, target = next(iter(case.loader))
    case.model.eval()
    with torch.no_grad():
        logits = case.balancer.predict(*inputs)
        alone = case.balancer.unimodal_logits(*inputs)
    assert logits.shape == (SIZE, CLASSES)
    assert list(alone) == list(case.train.modalities)
    assert all(each.isfinite().all() for each in (logits, *alone.values()))
    assert all(isinstance(value, float) for value in case.balancer.metrics().values())

    for copied in (copy.deepcopy(case.model), pickle.loads(pickle.dumps(case.model))):
        assert list(copied.state_dict()) == keys
        with torch.no_grad():
            assert torch.equal(copied(*inputs), case.model(*inputs))
    case.balancer.detach()
    assert not list(hooks(case.model, case.optimizer))
    case.model.train()
    nn.functional.cross_entropy(case.model(*inputs), target).backward()
    case.optimizer.step()
    assert list(case.model.state_dict()) == keys
    assert len(case.optimizer.param_groups) == 1


class Drawing(eq.Method):
    name = "drawing"

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        torch.rand(())
        return {}


class Counting(eq.Method):
    """Keeps a count between steps that is in no state; between epochs nobody would see it."""

    name = "counting"
    seen = 0

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        self.seen += 1
        return {"more": step.logits.square().mean() * self.seen}

    def end_epoch(self, run: Any) -> None:
        self.seen = 0


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Drawing, functools.partial(test_epochs_on_real_data, source="watch")),
        (Counting, test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_bit_for_bit),
    ],
)
def test_flaws_are_found(kind: type[eq.Method], test: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL, kind.name, kind)
    with pytest.raises(AssertionError):
        test(name=kind.name)
