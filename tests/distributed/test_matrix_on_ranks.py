"""Every method on two ranks: with a static graph, and where one rank lacks a modality.

The truth of a static graph is the same wrapper without; that of a lacking rank is one process that
takes the batches of both as two micro-batches. The companion of `test_matrix`.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from equimodal.testing import spawn
from support.settings import METHODS, VARIANTS

ALL = {**METHODS, **VARIANTS, "ogm, probe": lambda: eq.OGM(0.8)}
STEPS = 3
each_method = pytest.mark.parametrize("name", ALL)


class Lacking(nn.Module):
    """Encoders that run only for modalities that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {n: nn.Sequential(nn.Linear(w, 8), nn.Tanh()) for n, w in (("audio", 4), ("visual", 5))}
        )
        self.head = nn.Linear(16, testing.CLASSES)

    def forward(self, audio: Tensor, visual: Tensor | None) -> Tensor:
        first = self.encoders["audio"](audio)
        second = torch.zeros_like(first) if visual is None else self.encoders["visual"](visual)
        return self.head(torch.cat([first, second], dim=1))  # type: ignore[no-any-return]


def made(name: str, model: Any, wrapped: nn.Module, **settings: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    held = TensorDataset(*testing.batch(24))

    def forward(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        *inputs, target = batch
        return model(*inputs), target

    balancer = eq.Balancer(
        ALL[name](),
        wrapped,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        scores=eq.Probe() if "probe" in name else "auto",
        train_loader=DataLoader(held, 12),
        val_loader=DataLoader(held, 12),
        forward=forward,
        **settings,
    )
    return optimizer, balancer


def weights(model: nn.Module, balancer: eq.Balancer) -> Tensor:
    return torch.cat(
        [p.detach().flatten() for p in (*model.parameters(), *balancer.own.parameters)]
    )


def with_wrapper(name: str, rank: int, **options: Any) -> Tensor | str:
    torch.manual_seed(0)
    model: Any = getattr(ALL[name], "tried_on", lambda: testing.SmallModel(2))()
    model.double()
    try:
        wrapped = DistributedDataParallel(model, **options)
        optimizer, balancer = made(name, model, wrapped)
        loader = DataLoader(TensorDataset(*(t[rank::2] for t in testing.batch(36))), 6)
        for *inputs, target in loader:
            for _ in balancer.passes():
                balancer.backward(balancer.loss(wrapped(*inputs), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
    except (eq.SetupError, eq.MatchError, eq.StepError) as error:
        return str(error)
    return weights(model, balancer)


def parts(step: int) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    """What each rank has in a step: in the second, the second rank has nothing to see."""
    audio, visual, target = testing.batch(24, seed=step)
    return [
        (audio[r::2], None if (r, step) == (1, 1) else visual[r::2], target[r::2]) for r in (0, 1)
    ]


def lacking(name: str, ranks: list[int], together: bool) -> Tensor | str:
    torch.manual_seed(0)
    model: Any = Lacking().double()
    try:
        wrapped = DistributedDataParallel(model, find_unused_parameters=True) if together else model
        features = {"audio": slice(0, 8), "visual": slice(8, 16)}
        optimizer, balancer = made(name, model, wrapped, features=features)
        for step in range(STEPS):
            for _ in balancer.passes():
                for rank in ranks:
                    audio, visual, target = parts(step)[rank]
                    present = {"visual": torch.full((len(target),), visual is not None)}
                    loss = balancer.loss(wrapped(audio, visual), target, present=present)
                    balancer.backward(loss / len(ranks))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
    except (eq.SetupError, eq.MatchError, eq.StepError) as error:
        return str(error)
    return weights(model, balancer)


def on_ranks(rank: int) -> dict[str, Any]:
    warnings.simplefilter("ignore", eq.BalanceWarning)  # loops of methods that order samples
    found = {}
    for name in ALL:
        found[name] = {
            "plain": with_wrapper(name, rank),
            "static": with_wrapper(name, rank, static_graph=True),
            "lacking": lacking(name, [rank], together=True),
        }
    return copy.deepcopy(found)


@pytest.fixture(scope="module")
def pair() -> Any:
    return spawn(on_ranks)


def one(pair: Any, name: str, condition: str) -> Tensor | str:
    """Return what both ranks have found, which must be the same."""
    first, second = (each[name][condition] for each in pair)
    if isinstance(first, str) or isinstance(second, str):
        assert first == second
        return str(first)
    assert torch.equal(first, second), "replicas differ"
    assert first.isfinite().all()
    return first  # type: ignore[no-any-return]


@each_method
def test_a_static_graph_trains_as_any_other_or_is_refused(pair: Any, name: str) -> None:
    plain, static = one(pair, name, "plain"), one(pair, name, "static")
    if isinstance(static, str) and isinstance(plain, Tensor):
        assert "static_graph=False" in static
    elif isinstance(static, Tensor) and isinstance(plain, Tensor):
        torch.testing.assert_close(static, plain, rtol=1e-6, atol=1e-8)
    else:
        assert static == plain


@each_method
@pytest.mark.filterwarnings("ignore::equimodal.BalanceWarning")
def test_a_rank_that_lacks_a_modality_is_a_micro_batch_that_does(pair: Any, name: str) -> None:
    found = one(pair, name, "lacking")
    truth = lacking(name, [0, 1], together=False)
    if isinstance(truth, str) and isinstance(found, Tensor):
        assert "accumulate" in truth  # what no micro-batches can show, equal replicas do
    elif isinstance(found, str):
        assert isinstance(truth, str)
    # Dropout is drawn by forward, and ranks draw differently.
    elif name != "modality-dropout" and ALL[name]().capabilities.accumulation == "exact":
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-8)
