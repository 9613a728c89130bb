"""The conformance kit: what every method must hold, ours and others'.

Each check takes a factory that makes the method anew, and raises an AssertionError that says what
does not hold. With pytest::

    from equimodal import testing

    @pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
    def test_my_method(check):
        check(lambda: MyMethod(strength=0.5))

`on_two_ranks` starts processes, so its factory must be importable: a class or a module's function.
A method that works with some models only says with which: see `on`.
"""

from __future__ import annotations

import copy
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from equimodal.balancer import Balancer
from equimodal.epochs.passes import last_is_target
from equimodal.errors import StepError
from equimodal.method import Method

Factory = Callable[[], Method]
NAMES = ("audio", "visual", "text", "depth")
CLASSES = 3
SAMPLES = 48


class SmallModel(nn.Module):
    """An encoder per modality, and a head on the concatenated features: quick, and no BatchNorm.

    Args:
        modalities: how many, 2 to 4; modality i takes vectors of width 4 + i.
        classes: number of logits.
        head: takes features of shape ``(B, 8 * modalities)``; a linear layer by default.
    """

    def __init__(
        self, modalities: int = 2, classes: int = CLASSES, head: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(4 + index, 7), nn.Tanh(), nn.Linear(7, 8), nn.Tanh())
                for index, name in enumerate(NAMES[:modalities])
            }
        )
        self.head = nn.Linear(8 * modalities, classes) if head is None else head

    def forward(self, *inputs: Tensor) -> Tensor:
        pairs = zip(self.encoders.values(), inputs, strict=True)
        logits: Tensor = self.head(torch.cat([encoder(x) for encoder, x in pairs], dim=1))
        return logits


def batch(
    size: int = 24,
    modalities: int = 2,
    classes: int = CLASSES,
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, ...]:
    """Return one batch ``(input, ..., target)`` that can be learned: classes shift the inputs."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (size,), generator=generator)
    inputs = [
        torch.randn(size, 4 + index, generator=generator, dtype=dtype)
        + target[:, None] * torch.linspace(0.2, 1, 4 + index, dtype=dtype) * (1 + index)
        for index in range(modalities)
    ]
    return (*inputs, target)


def lacking(modalities: int = 2) -> dict[str, Tensor]:
    """Return which training samples have a modality, shape ``(48,)``, bool, by name.

    Two modalities are missing at times, never both; the counts differ between any two parts of a
    batch, and between the samples of even and of odd positions.
    """
    generator = torch.Generator().manual_seed(3)
    first = torch.rand(SAMPLES, generator=generator) < torch.linspace(0.9, 0.2, SAMPLES)
    first[::2] |= torch.rand(len(first[::2]), generator=generator) < 0.7
    second = ~first | (torch.rand(SAMPLES, generator=generator) < 0.6)
    return dict(zip(NAMES[:modalities], (first, second), strict=False))


def on(model: Callable[[int], nn.Module]) -> Callable[[Factory], Factory]:
    """Mark a factory: its method is tried on this model, in place of a `SmallModel`.

    Args:
        model: makes the model from the number of modalities. Like `SmallModel` it has `encoders` by
            the names in `NAMES`, a `head`, no BatchNorm and no dropout; modality i takes vectors of
            width 4 + i, and there are 3 logits.
    """

    def marked(make: Factory) -> Factory:
        make.tried_on = model  # type: ignore[attr-defined]
        return make

    return marked


def of_log_probabilities(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """Return log-probabilities ``(B, K)`` and target, as the loop of a trial makes them."""
    logits, target = last_is_target(model, batch)
    return logits.log_softmax(dim=1), target


class Trial:
    """A small model in training by a method, in the loop of the design.

    Args:
        make: makes the method.
        modalities: how many.
        seed: of the model's initial values.
        dtype: of the model and the data.
        part: the part of the training samples that this rank has.
        epochs: how many the balancer is told that training has.
        backwards: whether the encoders are given in the reverse order.
        log_probabilities: whether the loop gives the criterion those, and not logits.
        missing: whether samples lack modalities, in any two parts of a batch unlike many.
    """

    def __init__(
        self,
        make: Factory,
        modalities: int = 2,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        part: slice = slice(None),
        epochs: int = 8,
        missing: bool = False,
        log_probabilities: bool = False,
        backwards: bool = False,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: Any = getattr(make, "tried_on", SmallModel)(modalities)
        if dtype != torch.float32:
            self.model.to(dtype)
        self.data = batch(SAMPLES, modalities, dtype=dtype)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2
        )
        distributed = dist.is_available() and dist.is_initialized()
        self.replica = DistributedDataParallel(self.model) if distributed else self.model
        held_out = TensorDataset(*batch(24, modalities, seed=2, dtype=dtype))
        self.method = make()
        self.resamples = self.method.overrides("order")
        encoders = list(self.model.encoders.items())
        self.balancer = Balancer(
            self.method,
            self.replica,
            dict(reversed(encoders) if backwards else encoders),
            self.model.head,
            self.optimizer,
            train_loader=DataLoader(TensorDataset(*self.data), 12),
            val_loader=DataLoader(held_out, 12),
            criterion=nn.NLLLoss() if log_probabilities else nn.functional.cross_entropy,
            forward=of_log_probabilities if log_probabilities else last_is_target,
            epochs=epochs,
        )
        self.log_probabilities = log_probabilities
        self.part = slice(None) if self.resamples else part
        self.present = lacking(modalities) if missing else {}

    def train(
        self,
        epochs: int = 2,
        micro: int = 1,
        scale: float = 1.0,
        size: int = 12,
        autocast: bool = False,
        end: bool = True,
    ) -> Trial:
        """Train in batches of `size` samples, each of them in `micro` parts.

        Args:
            epochs: how many.
            micro: parts of a batch.
            scale: of the loss.
            size: samples of a batch.
            autocast: whether in bfloat16.
            end: whether the last epoch is ended, so that methods act after it.
        """
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1)
        tensors = (*self.data, *self.present.values())
        loader = DataLoader(TensorDataset(*(t[self.part] for t in tensors)), size // micro)
        again = self.method.overrides("perturb")  # all micro-batches of a step, and not each
        for epoch in range(epochs):
            held: list[Sequence[Tensor]] = []
            for count, batch in enumerate(self.balancer.batches(loader), 1):
                held.append(batch)
                if not again or count % micro == 0:
                    for _ in self.balancer.passes():
                        for each in held:
                            loss = self._loss(each, autocast) / micro
                            self.balancer.backward(scaler.scale(loss))
                    held.clear()
                if count % micro == 0:
                    self.balancer.modulate(scaler if scale != 1 else None)
                    scaler.step(self.optimizer)
                    scaler.update()
                    self.optimizer.zero_grad()
            if end or epoch < epochs - 1:
                self.balancer.end_epoch()
        return self

    def _loss(self, batch: Sequence[Tensor], autocast: bool) -> Tensor:
        *inputs, target = batch[: len(self.data)]
        present = dict(zip(self.present, batch[len(self.data) :], strict=True)) or None
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = self.replica(*inputs)
            if self.log_probabilities:
                logits = logits.log_softmax(dim=1)
            return self.balancer.loss(logits, target, present=present)

    @property
    def weights(self) -> Tensor:
        """All parameters of the model as one vector."""
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def save(self) -> dict[str, Any]:
        """Return copies of all states."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "balancer": self.balancer.state_dict(),
            }
        )

    def load(self, saved: dict[str, Any]) -> Trial:
        """Restore what `save` returned."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.balancer.load_state_dict(saved["balancer"])
        return self


def trains(make: Factory) -> None:
    """Two epochs run, with two modalities and with three, and every parameter stays finite."""
    most = make().capabilities.most or len(NAMES)
    for modalities in range(2, min(3, most) + 1):
        trial = Trial(make, modalities)
        before = trial.weights
        trial.train()
        _require(trial.weights.isfinite().all(), "a parameter is NaN or infinite")
        _require(not torch.equal(trial.weights, before), "no parameter has changed")


def leaves_no_trace(make: Factory) -> None:
    """Detached, model and optimizer are as they were: no hook, and no entry in a state."""
    trial = Trial(make)
    keys, groups = list(trial.model.state_dict()), len(trial.optimizer.param_groups)
    trial.train(1)
    trial.balancer.detach()
    _require(list(trial.model.state_dict()) == keys, "the model's state_dict has other entries")
    _require(len(trial.optimizer.param_groups) == groups, "the optimizer has other groups")
    hooks = [
        hook
        for module in trial.model.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for hook in kind
    ]
    _require(not hooks, f"{len(hooks)} hooks are left on the model")


def repeats(make: Factory) -> None:
    """The same run twice is the same, bit for bit, whatever the global random state is."""
    torch.manual_seed(1)
    first = Trial(make).train().weights
    torch.manual_seed(2)
    advice = "draw from generators of your own, seeded by self.seed, the epoch and the step"
    _require(torch.equal(Trial(make).train().weights, first), f"a second run differs: {advice}")


def resumes(make: Factory) -> None:
    """A fresh instance that takes over the state goes on as if nothing had happened."""
    straight = Trial(make).train(3)
    interrupted = Trial(make).train(2)
    resumed = Trial(make, seed=5).load(interrupted.save()).train(1)
    _require(
        torch.equal(resumed.weights, straight.weights),
        "a resumed run differs: register state as buffers, or return it from get_extra_state",
    )
    _require(
        str(resumed.balancer.state_dict()["methods"])
        == str(straight.balancer.state_dict()["methods"]),
        "the method's state after resuming differs",
    )


def accumulates(make: Factory) -> None:
    """Micro-batches do what the method declares: exact, per micro-batch, or refused."""
    declared = make().capabilities.accumulation
    if declared == "refused":
        try:
            Trial(make).train(1, micro=2)
        except StepError:
            return
        _require(False, "accumulation is declared as refused, but was not")
    small = Trial(make).train(1, micro=3)
    _require(small.weights.isfinite().all(), "a parameter is NaN or infinite")
    if declared == "exact":
        large = Trial(make).train(1)
        difference = (small.weights - large.weights).abs().max() / large.weights.abs().max()
        _require(
            difference <= 1e-6,
            f"3 micro-batches differ from one batch by {difference:.1e}: declare accumulation as "
            '"per micro-batch", or take evidence in measure and judge it in coefficients',
        )


def counts_every_sample_alike(make: Factory) -> None:
    """Micro-batches in which unlike many samples have a modality give the step of the one batch."""
    if make().capabilities.accumulation == "exact":
        large = Trial(make, missing=True).train(1)
        small = Trial(make, missing=True).train(1, micro=3)
        difference = (small.weights - large.weights).abs().max() / large.weights.abs().max()
        _require(
            difference <= 1e-6,
            f"with missing modalities, 3 micro-batches differ from one batch by {difference:.1e}: "
            "take unimodal losses by step.loss(logits, modality=name), and other means over all "
            "samples of the batch",
        )


def ignores_the_order(make: Factory) -> None:
    """Encoders given in another order train the same, unless the method declares otherwise."""
    if make().capabilities.order != "free":
        return
    forwards, backwards = (
        Trial(make, 3 if _takes(make, 3) else 2, backwards=b).train() for b in (False, True)
    )
    difference = (backwards.weights - forwards.weights).abs().max() / forwards.weights.abs().max()
    _require(
        difference <= 1e-6,
        f"encoders in the reverse order change the parameters by {difference:.1e}: let nothing "
        "hang on the position of a modality, or declare Capabilities(order=...)",
    )


def reads_log_probabilities(make: Factory) -> None:
    """With NLLLoss on log-probabilities it trains as with cross-entropy on logits."""
    logits = Trial(make).train().weights
    found = Trial(make, log_probabilities=True).train().weights
    difference = (found - logits).abs().max() / logits.abs().max()
    _require(
        difference <= 1e-6,
        f"with log-probabilities the parameters differ by {difference:.1e}: give the criterion "
        "what it takes, by step.loss, and compare logits of the head with its own alone",
    )


def ends_as_trained(make: Factory) -> None:
    """After the last epoch the model, and what it predicts, are as they were trained."""
    trial = Trial(make, epochs=2).train(2, end=False)
    *inputs, _ = trial.data
    with torch.no_grad():
        before, predicted = trial.weights, trial.balancer.predict(*inputs)
        trial.balancer.end_epoch()
        after = trial.balancer.predict(*inputs)
    advice = "nobody trains afterwards: ask self.ends(run.epoch) before anything is rewritten"
    _require(torch.equal(trial.weights, before), f"the last end_epoch changed the model; {advice}")
    _require(torch.equal(after, predicted), f"the last end_epoch changed predictions; {advice}")


def scales(make: Factory) -> None:
    """A loss scale changes nothing: it is a power of two, so that not a bit may differ."""
    if make().capabilities.autocast:
        plain = Trial(make).train(1)
        scaled = Trial(make).train(1, scale=2.0**10)
        difference = (scaled.weights - plain.weights).abs().max() / plain.weights.abs().max()
        _require(difference <= 1e-9, f"a loss scale of 1024 changes the parameters: {difference}")


def autocasts(make: Factory) -> None:
    """An epoch runs under bfloat16 autocast, and every parameter stays finite."""
    if make().capabilities.autocast:
        trial = Trial(make, dtype=torch.float32).train(1, autocast=True)
        _require(trial.weights.isfinite().all(), "a parameter is NaN or infinite")


def predicts(make: Factory) -> None:
    """Inference returns logits for every sample, and changes nothing."""
    trial = Trial(make).train(1)
    state = str(trial.balancer.state_dict())
    *inputs, _ = trial.data
    with torch.no_grad():
        logits = trial.balancer.predict(*inputs)
        shape = tuple(logits.shape)
        _require(shape == (SAMPLES, CLASSES), f"predict returned shape {shape}")
        _require(torch.equal(logits, trial.balancer.predict(*inputs)), "a second call differs")
        for name, of in trial.balancer.unimodal_logits(*inputs).items():
            _require(of.shape == logits.shape, f"logits of {name} have shape {tuple(of.shape)}")
    _require(str(trial.balancer.state_dict()) == state, "predict changed the state")


def on_two_ranks(make: Factory) -> None:
    """Two processes keep bit-identical replicas, the method's own modules included.

    Where micro-batches are exact they also give the step of one process on all their samples, which
    have unlike many of the modalities.
    """
    if not make().capabilities.ranks:
        return
    first, second = spawn(_rank, make)
    _require(torch.equal(first[0], second[0]), "the replicas of the model differ between ranks")
    _require(first[1] == second[1], "the state of the method differs between ranks")
    draws = make().overrides("order") or make().overrides("gate")  # each rank for its own samples
    if make().capabilities.accumulation == "exact" and not draws:
        one = Trial(make, missing=True).train(1).weights
        difference = (first[2] - one).abs().max() / one.abs().max()
        _require(
            difference <= 1e-6,
            f"with missing modalities, two ranks differ from one process by {difference:.1e}: take "
            "means over all samples of the batch",
        )


CHECKS: Sequence[Callable[[Factory], None]] = (
    trains,
    leaves_no_trace,
    repeats,
    resumes,
    accumulates,
    counts_every_sample_alike,
    reads_log_probabilities,
    ends_as_trained,
    ignores_the_order,
    scales,
    autocasts,
    predicts,
    on_two_ranks,
)


def spawn(function: Callable[..., Any], *arguments: Any, ranks: int = 2) -> list[Any]:
    """Call ``function(rank, *arguments)`` in processes that talk by gloo, and return the results.

    The function, its arguments and its results must be picklable.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with TemporaryDirectory() as folder:
        spawned: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]
        spawned(_in_group, (ranks, address, folder, function, arguments), nprocs=ranks)
        return [torch.load(Path(folder, str(r)), weights_only=False) for r in range(ranks)]


def _in_group(
    rank: int, ranks: int, address: str, folder: str, function: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    result = function(rank, *arguments)
    torch.save(result, Path(folder, f"{rank}.partial"))
    dist.barrier()
    Path(folder, f"{rank}.partial").rename(Path(folder, str(rank)))
    # Gloo's threads may abort a process taken down while a peer closes its sockets: all wait.
    while not all(Path(folder, str(other)).exists() for other in range(ranks)):
        time.sleep(0.001)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _rank(rank: int, make: Factory) -> tuple[Tensor, str, Tensor]:
    part = slice(rank, None, 2)
    trial = Trial(make, part=part).train(size=6)
    missing = Trial(make, part=part, missing=True).train(1, size=6)
    return trial.weights, str(trial.balancer.state_dict()["methods"]), missing.weights


def _takes(make: Factory, modalities: int) -> bool:
    most = make().capabilities.most
    return most is None or modalities <= most


def _require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
