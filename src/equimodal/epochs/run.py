"""What a method may use between epochs: passes over data, and copies of the model to train."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equimodal.criterion import Criterion, Loss
from equimodal.epochs.passes import Forward, observed, run_forward
from equimodal.epochs.randomness import restored
from equimodal.epochs.redrive import pieces, redriven, refuse_stream
from equimodal.matching import Attachment
from equimodal.modalities import OwnedParameter
from equimodal.step import Step
from equimodal.system import ranks
from equimodal.update.optimizers import Optimizer, another, held
from equimodal.update.own import OwnOptimizer

if TYPE_CHECKING:
    from equimodal.method import Method


class Balanced(Protocol):
    """A balancer, as far as the run and the forks of it use one."""

    epoch: int
    names: tuple[str, ...]
    train_loader: Iterable[Any] | None
    val_loader: Iterable[Any] | None
    forward: Forward
    attached: Attachment
    optimizers: list[Optimizer]
    own: OwnOptimizer
    criterion: Criterion
    process_group: dist.ProcessGroup | None

    def alone(self, step: Step) -> dict[str, Tensor]: ...

    def remade(
        self, method: Method, model: nn.Module, optimizers: list[Optimizer], criterion: Loss
    ) -> Balanced: ...

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]: ...

    def loss(self, logits: Any, target: Any, *, present: Mapping[str, Tensor] | None) -> Tensor: ...

    def backward(self, loss: Tensor) -> None: ...

    def modulate(self) -> None: ...

    def end_epoch(self) -> None: ...


class Run:
    """The training run, as a method sees it in `end_epoch`.

    Attributes:
        epoch: the epoch that ends, counted from 0.
        names: the modalities.
        train_loader: the user's, where given.
        val_loader: the user's held-out data, where given.
    """

    def __init__(self, balancer: Balanced) -> None:
        self._balancer = balancer
        self.epoch = balancer.epoch
        self.names = balancer.names
        self.train_loader = balancer.train_loader
        self.val_loader = balancer.val_loader

    def parameters(self, modality: str) -> list[OwnedParameter]:
        """Return the parameters that the modality alone owns."""
        return self._balancer.attached.modalities.owned[modality]

    def buffers(self, modality: str) -> list[Tensor]:
        """Return the buffers of the modality's encoder, such as BatchNorm's running statistics."""
        modules = self._balancer.attached.modalities.modules[modality]
        return [buffer for module in modules for buffer in module.buffers()]

    def unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of every modality alone, by the rule that is used for inference."""
        return self._balancer.alone(step)

    def shared(self, value: Tensor) -> Tensor:
        """Return the first rank's value on every rank.

        For what is computed from a pass over data: augmentation and the order of sums may differ
        between ranks, and what follows from them must not.
        """
        return ranks.gather(value, self._balancer.process_group)[0]

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum of a value over the ranks, which may each have passed over other data."""
        return ranks.gather(value, self._balancer.process_group).sum(dim=0)

    def steps(
        self,
        loader: Iterable[Any],
        *,
        identify: bool = False,
        samples: Sequence[int] | None = None,
        training: bool = False,
        graph: bool = False,
    ) -> Iterator[Step]:
        """Pass over data and yield a step for every batch; nothing is trained.

        Modes of modules, random states and the loaders' epochs are as before afterwards.

        Args:
            loader: batches as the user's `forward` takes them.
            identify: go through the data set in its own order, every sample of it, and say in
                `step.indices` which samples a batch holds. Needs a DataLoader over a map-style
                data set.
            samples: with `identify`, go through these instead: positions in the data set,
                repetitions allowed.
            training: yield steps with a graph and the model in its training mode; otherwise
                without gradients and in evaluation mode.
            graph: yield steps with a graph also in evaluation mode.
        """
        balancer = self._balancer
        loaders = (loader, self.train_loader or (), self.val_loader or ())
        numbers: Iterator[torch.Tensor | None] = iter(lambda: None, 0)
        if identify:
            refuse_stream(loader)
            assert isinstance(loader, DataLoader)
            size = len(loader.dataset)  # type: ignore[arg-type]
            order = list(range(size) if samples is None else samples)
            loader = redriven(loader, order, whole=True)
            numbers = (torch.tensor(order[part]) for part in pieces(order, loader))
        with restored(balancer.attached.model, *loaders):  # a loader draws when a pass begins
            batches = zip(loader, numbers)  # noqa: B905 - numbers may be endless
            yield from observed(
                balancer.attached,
                balancer.forward,
                batches,
                self.epoch,
                training=training,
                graph=graph,
            )

    def fork(self, method: Method) -> Fork:
        """Return a copy of the model, with its optimizer, to train by another method."""
        return Fork(self._balancer, method)

    def reset_optimizer(self, modality: str) -> None:
        """Forget what the user's optimizers remember of an encoder: momentum, moments."""
        self.forget(owned.parameter for owned in self.parameters(modality))

    def forget(self, parameters: Iterable[nn.Parameter]) -> None:
        """Forget what any optimizer remembers of parameters, the model's or a method's own."""
        own = self._balancer.own.optimizer
        optimizers = [*self._balancer.optimizers, *([] if own is None else [own])]
        for parameter in parameters:
            for optimizer in optimizers:
                optimizer.state.pop(parameter, None)


class Fork:
    """A copy of the model as it is now, with a balancer and optimizers of its own.

    What the user's optimizers hold beside the model, such as the parameters of a criterion that
    learns, is copied too.
    """

    def __init__(self, balancer: Balanced, method: Method) -> None:
        attached = balancer.attached
        self.forward = balancer.forward
        self.model = attached.copy_model()
        copies = dict(zip(attached.bare_model.parameters(), self.model.parameters(), strict=True))
        for parameter in held(*balancer.optimizers) - copies.keys():
            copies[parameter] = copy.deepcopy(parameter)
        self.optimizers = [_copy_optimizer(each, copies) for each in balancer.optimizers]
        criterion = balancer.criterion.loss
        if isinstance(criterion, nn.Module):
            criterion = copy.deepcopy(criterion, {id(p): of for p, of in copies.items()})
        self.balancer = balancer.remade(method, self.model, self.optimizers, criterion)

    def train(self, loader: Iterable[Any], epochs: int) -> None:
        """Train the copy through the same loop as any model; random states are as before then."""
        parameters = [
            p for of in self.optimizers for group in of.param_groups for p in group["params"]
        ]
        self.model.train()
        with restored(self.model, loader), torch.enable_grad():
            for _ in range(epochs):
                for batch in self.balancer.batches(loader):
                    logits, target, present = run_forward(self.forward, self.model, batch)
                    loss = self.balancer.loss(logits, target, present=present)
                    self.balancer.backward(loss)
                    gradients = [p.grad for p in parameters if p.grad is not None]
                    ranks.average_(gradients, self.balancer.process_group)
                    self.balancer.modulate()
                    for optimizer in self.optimizers:
                        optimizer.step()
                    for optimizer in self.optimizers:
                        optimizer.zero_grad()
                self.balancer.end_epoch()

    def steps(self, loader: Iterable[Any]) -> Iterator[Step]:
        """Pass over data with the copy, without gradients."""
        return Run(self.balancer).steps(loader)


def _copy_optimizer(
    optimizer: torch.optim.Optimizer, copies: dict[nn.Parameter, nn.Parameter]
) -> torch.optim.Optimizer:
    """Return an optimizer of copied parameters with the groups and the state of another's."""
    groups = [
        {**group, "params": [copies[p] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    copied = another(optimizer, groups)
    copied.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return copied
