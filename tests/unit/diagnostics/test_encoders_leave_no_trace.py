"""The diagnostics of encoders and training leave everything as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from equimodal.diagnostics.contributions.utilisation import utilisation
from equimodal.diagnostics.encoders.alone import alone
from equimodal.diagnostics.encoders.cost import cost
from equimodal.diagnostics.encoders.probes import probes
from equimodal.diagnostics.outputs.discrepancy import discrepancy
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.training.curves import Curves
from equimodal.diagnostics.training.gradients import gradients


def encoder() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = encoder(), encoder()
        self.head = nn.Sequential(
            nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(a), self.b(b)], dim=1))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


CALLS: dict[str, Callable[[Subject, Any], Any]] = {
    "probes": lambda subject, loader: probes(subject, loader, loader),
    "alone": lambda subject, loader: alone(subject, loader, loader, loader, sgd, 2),
    "utilisation": lambda subject, loader: utilisation(subject, loader),
    "discrepancy": lambda subject, loader: discrepancy(subject, loader),
    "gradients": lambda subject, loader: gradients(subject, loader),
    "cost": lambda subject, loader: cost(subject, loader),
    "curves": lambda subject, loader: Curves().record(subject, loader),
}


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    every = torch.nn.modules.module
    kept = (every._global_forward_hooks, every._global_forward_pre_hooks)
    own = sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
    return own + sum(map(len, kept))


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_left_behind(name: str) -> None:
    torch.manual_seed(0)
    model = Net()
    model.b[1].eval()  # frozen statistics, as users have them
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    tensors = TensorDataset(torch.randn(40, 3), torch.randn(40, 3), torch.arange(40) % 3)
    loader = DataLoader(tensors, 8, shuffle=True, generator=torch.Generator().manual_seed(1))
    loader.dataset.__class__ = Augmented
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    kept = [(p, p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
    before, python = torch.get_rng_state(), random.getstate()
    own, grad_enabled = loader.generator.get_state(), torch.is_grad_enabled()
    with Subject(model, {"a": model.a, "b": model.b}, model.head) as subject:
        with_hooks = hooks(model)
        CALLS[name](subject, loader)
        assert hooks(model) == with_hooks
    assert hooks(model) == 0
    assert all(torch.equal(value, state[n]) for n, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is grad and torch.equal(grad, copied) for p, grad, copied in kept)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    assert torch.equal(loader.generator.get_state(), own)
    assert torch.is_grad_enabled() == grad_enabled


class Augmented(TensorDataset):
    """Draws at random for every sample."""

    def __getitem__(self, index: int) -> Any:
        a, b, target = super().__getitem__(index)
        return a + 0.01 * torch.randn(3) + 0.01 * random.random(), b, target


def test_a_sampler_is_told_the_epochs_and_then_the_one_before() -> None:
    tensors = TensorDataset(torch.randn(40, 3), torch.randn(40, 3), torch.arange(40) % 3)
    told = []

    class Told(DistributedSampler[Any]):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)
            super().set_epoch(epoch)

    sampler = Told(tensors, num_replicas=1, rank=0)
    sampler.epoch = 5
    model = Net()
    with Subject(model, {"a": model.a, "b": model.b}, model.head) as subject:
        alone(
            subject, DataLoader(tensors, 8, sampler=sampler), [tensors[:20]], [tensors[:20]], sgd, 3
        )
    assert told == [0, 1, 2, 5]
    assert sampler.epoch == 5


@pytest.mark.parametrize("name", ["probes", "discrepancy", "gradients", "curves"])
def test_nothing_is_left_behind_by_a_failure(name: str) -> None:
    """In the model, and in what the diagnostic makes of its second batch."""
    model = Net()
    samples = [(torch.randn(3), torch.randn(3 + (i > 5)), 0) for i in range(8)]
    strange = [(torch.randn(8, 3), torch.randn(8, 3), t) for t in (torch.arange(8) % 3, None)]
    for loader in (DataLoader(samples, 2), strange):
        before, modes = torch.get_rng_state(), [m.training for m in model.modules()]
        with Subject(model, {"a": model.a, "b": model.b}, model.head) as subject:
            # The exception is held: it must not be its end that tidies up.
            with pytest.raises(Exception, match=r"mat1 and mat2|None") as held:
                CALLS[name](subject, loader)
            assert [m.training for m in model.modules()] == modes
            assert torch.equal(torch.get_rng_state(), before)
            assert torch.is_grad_enabled()
        assert hooks(model) == 0
        assert held
