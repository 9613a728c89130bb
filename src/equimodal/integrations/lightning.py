"""Balancing a LightningModule in automatic optimisation. Needs the extra ``train``."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from equimodal.attach.features import Layout
from equimodal.balancer import Balancer
from equimodal.errors import SetupError, StepError, unknown
from equimodal.evidence import EvidenceSum
from equimodal.integrations.drawn import Drawn
from equimodal.method import Method
from equimodal.modalities import Encoder, find_module
from equimodal.system.extras import require
from equimodal.update.tracking import existing

require("train", "lightning")

import lightning as L  # noqa: E402
from lightning.pytorch.strategies import (  # noqa: E402
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)
from lightning.pytorch.trainer.states import TrainerFn  # noqa: E402

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
SETTINGS = (  # of the balancer, passed on as they are; the others come from the trainer
    "features", "criterion", "outputs", "scores", "forward", "train_loader", "val_loader",
    "own_optimizer", "seed", "micro_batches", "tokens",
)  # fmt: skip


class Balance(L.Callback):
    """Balances a LightningModule while a trainer trains it.

    The module returns the balancer's loss, and the trainer gets the callback::

        def training_step(self, batch, index):
            audio, visual, target = batch
            return Balance.of(self).loss(self(audio, visual), target)

        balance = Balance(eq.OGMGE(0.8), {"audio": "audio_net", "visual": "visual_net"}, "fusion")
        trainer = L.Trainer(callbacks=[balance])

    The balancer is made when the trainer has made the optimizer, from copies of the methods: the
    ones given here stay as they are. The gradient is modulated once per optimizer step, after
    unscaling and before clipping; epochs end before checkpoints of the end of an epoch are written.
    The state is part of every checkpoint. When the trainer is done, or breaks off, every hook is
    off; nothing is ever kept on the module. For methods that decide which samples an epoch has, the
    trainer is given ``balance.batches(loader)`` in place of the loader.

    Args:
        methods: a method, or several that compose.
        encoders: for each modality the module that encodes it (or several), as a dotted name within
            the LightningModule or as a module of it.
        head: the module that turns the features into logits, likewise; None for models without one.
        model: the part of the LightningModule that takes a batch's inputs and returns the logits;
            the LightningModule itself by default. The names of encoders and head are within it.
        log_every_n_steps: measure every so many optimizer steps and log `Balancer.metrics` by
            ``self.log``; 0 for never. Means over the measured steps of an epoch are logged,
            of what only some steps have, such as the ratio of a modality, over those.
        log_prefix: what the names of the logged metrics start with.
        settings: further settings of `equimodal.Balancer`: features, criterion, outputs, scores,
            forward, train_loader, val_loader, own_optimizer, seed, micro_batches, tokens (its trunk
            by the dotted name within the model).

    Raises:
        SetupError: a setting is misspelt; when the trainer starts: something does not fit, or the
            module uses manual optimisation.
    """

    def __init__(
        self,
        methods: Method | Sequence[Method],
        encoders: Mapping[str, Encoder],
        head: nn.Module | str | None = None,
        *,
        model: nn.Module | str | None = None,
        log_every_n_steps: int = 0,
        log_prefix: str = "balance/",
        **settings: Any,
    ) -> None:
        for name in settings:
            if name not in SETTINGS:
                raise SetupError("Balance: " + unknown("setting", name, SETTINGS))
        self.methods, self.encoders, self.head, self.model = methods, encoders, head, model
        self.log_every_n_steps, self.log_prefix = log_every_n_steps, log_prefix
        self.settings = settings
        self._run: tuple[L.Trainer, L.LightningModule] | None = None
        self._balancer: Balancer | None = None
        self._state: dict[str, Any] | None = None  # of the balancer to be made, and its layout
        self._layout: Layout | None = None
        self._detours = contextlib.ExitStack()
        self._logged = 0
        self._measured: dict[str, tuple[float, int]] = {}  # sums of this epoch, and of how many
        self._latest = -1  # number of the latest batch that was backpropagated
        self._drawn: Drawn | None = None

    @staticmethod
    def of(module: L.LightningModule) -> Balancer:
        """Return the balancer of a module that a trainer is training or evaluating.

        Raises:
            StepError: there is none.
        """
        callback = _AT_WORK.get(module)
        if callback is None:
            raise StepError(
                f"Balance.of({type(module).__name__}): no balancer is at work on this module. Give "
                "the trainer the callback, L.Trainer(callbacks=[Balance(...)]), and call this from "
                "the module's steps: there is a balancer once the trainer has made the optimizer"
            )
        return callback._balancer or callback._attach()

    def batches(self, loader: DataLoader[Any]) -> Iterable[Any]:
        """Return what to give the trainer in place of a training loader: see `Balancer.batches`.

        Only methods that decide which samples an epoch has need it. On several ranks give the
        loader the sampler that splits its samples, where a method leaves an epoch to the loader.

        Raises:
            SetupError: the loader is a stream.
        """

        def balancer() -> Balancer:
            if self._balancer is None:
                raise StepError(
                    "Balance.batches: no trainer is at work with this callback: give it the "
                    "callback, L.Trainer(callbacks=[balance]), and let it iterate"
                )
            return self._balancer

        self._drawn = Drawn(loader, balancer)
        return self._drawn

    # ------------------------------------------------------------------ the loop of the design

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put the balancer's part of a step around the trainer's."""
        if stage == TrainerFn.FITTING:
            _refuse_misfits(trainer, pl_module)
            if trainer.global_step == 0:  # else this trainer goes on where it ended
                self._state = self._layout = None
                self._measured.clear()

        # Learning-rate finder and batch-size scaler train with all callbacks set aside, so a
        # callback's own hooks are not enough for what belongs to every step.
        strategy, precision = trainer.strategy, trainer.precision_plugin
        scaler, progress = getattr(precision, "scaler", None), trainer.fit_loop.epoch_loop

        def set_up(setup: Callable[..., None], *args: Any) -> None:
            setup(*args)
            self._run = (trainer, pl_module)
            _AT_WORK[pl_module] = self
            if stage == TrainerFn.FITTING:
                _refuse_methods(trainer, self._attach(), self._drawn is not None)

        def training_step(training_step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self._drawn is None:
                return training_step(*args, **kwargs)
            self._drawn.next()
            try:
                return training_step(*args, **kwargs)
            finally:
                self.of(pl_module).batch = None

        def optimizer_step(
            step: Callable[..., Any],
            optimizer: Any,
            closure: Callable[[], Any],
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            if self.of(pl_module).repeating() is None:
                return step(optimizer, closure, *args, **kwargs)

            def again() -> Any:  # the closure runs training_step and its backward pass
                result = None
                for _ in self.of(pl_module).passes():
                    result = closure()
                return result

            return step(optimizer, again, *args, **kwargs)

        def backward(
            backward: Callable[..., None], loss: Tensor, *args: Any, **kwargs: Any
        ) -> None:
            self._latest = progress.total_batch_idx
            try:
                self.of(pl_module).backward(loss, lambda loss: backward(loss, *args, **kwargs))
            except StepError as error:
                raise StepError(
                    f"{error}. In a LightningModule, training_step returns "
                    "Balance.of(self).loss(logits, target), and the trainer does the rest"
                ) from error

        def after_closure(after_closure: Callable[..., None], *args: Any) -> None:
            balancer = self.of(pl_module)
            if scaler is not None and self._latest != progress.total_batch_idx:
                # training_step returned None, and with a scaler Lightning does not step then.
                balancer.ledger.drop()
            if balancer.evidence.micro_batches:  # else training_step has returned None alone
                balancer.modulate(scaler)
            after_closure(*args)  # where Lightning clips

        def tear_down(teardown: Callable[[], None]) -> None:
            self._leave()
            teardown()

        for owner, name, detour in (
            (strategy, "setup", set_up),
            (strategy, "training_step", training_step),
            (strategy, "optimizer_step", optimizer_step),
            (precision, "backward", backward),
            (precision, "_after_closure", after_closure),
            (strategy, "teardown", tear_down),  # also after an exception or Ctrl-C
        ):
            _replace(self._detours, owner, name, detour)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Note what was measured, if this batch ended a step that was."""
        balancer = self.of(pl_module)
        if balancer.steps > self._logged and balancer.tracker.due(balancer.steps - 1):
            self._logged = balancer.steps
            measured = balancer.metrics()
            values = existing(measured)
            for name in measured:  # what a step has not counts for nothing
                total, count = self._measured.get(name, (0.0, 0))
                there = name in values
                self._measured[name] = (total + (values[name] if there else 0.0), count + there)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log what was measured, and end the epoch. Lightning writes its checkpoints after this."""
        for name, (total, count) in sorted(self._measured.items()):
            pl_module.log(  # once: a call costs as much as a small layer
                f"{self.log_prefix}{name}",
                total / count if count else 0.0,
                on_step=False,
                on_epoch=True,
                batch_size=count,
                sync_dist=True,
            )
        self._measured.clear()
        self.of(pl_module).end_epoch()

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the balancer, also after the trainer is done.

        In the middle of an epoch with what was measured in it so far, as ``measured``.
        """
        state = (self._state or {}) if self._balancer is None else self._balancer.state_dict()
        return {**state, "measured": dict(self._measured)} if self._measured else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a state for the balancer that will be made; a balancer at work is made anew."""
        self._state = {key: value for key, value in state.items() if key != "measured"}
        self._measured = dict(state.get("measured", {}))
        if self._balancer is not None:
            self._attach()

    # ------------------------------------------------------------------ attaching, leaving

    def make(
        self,
        module: L.LightningModule,
        optimizers: Sequence[torch.optim.Optimizer],
        process_group: dist.ProcessGroup | None = None,
        epochs: int | None = None,
    ) -> Balancer:
        """Return a balancer as the callback makes it, attached to a module and its optimizers."""
        model = module if self.model is None else find_module(module, "model", self.model)
        # Copies may refer to the module, but must not copy it.
        kept = {id(part): part for part in (*module.modules(), *module.parameters())}
        own = {**self.settings, "methods": self.methods}
        for name in ("methods", "scores"):
            if isinstance(own.get(name), nn.Module | list | tuple):  # what may hold state
                own[name] = copy.deepcopy(own[name], {**kept})
        return Balancer(
            own.pop("methods"),
            model,
            self.encoders,
            self.head,
            optimizers,
            epochs=epochs,
            track_every=self.log_every_n_steps,
            process_group=process_group,
            **own,
        )

    def _attach(self) -> Balancer:
        """Attach a balancer with the state of the run so far, in place of the one at work."""
        assert self._run is not None
        trainer, module = self._run
        if self._balancer is not None:
            self._balancer.detach()
        optimizers, epochs = list(trainer.strategy.optimizers), _planned(trainer)
        if trainer.state.fn != TrainerFn.FITTING:
            # Nothing steps: it stands for the optimizer of the training.
            optimizers, epochs = [torch.optim.SGD(module.parameters(), lr=0.0)], epochs or 1
        wrapped = trainer.strategy.model
        group = wrapped.process_group if isinstance(wrapped, DistributedDataParallel) else None
        self._balancer = self.make(module, optimizers, group, epochs)
        if self._state is not None:
            # Lightning starts without the gradients of the micro-batches that evidence was of.
            nothing = EvidenceSum().state_dict()
            self._balancer.load_state_dict({**self._state, "evidence": nothing})
        if self._layout is not None:  # it cannot be found out in Lightning's inference mode
            self._balancer.attached.layout = self._layout
        self._logged = self._balancer.steps
        return self._balancer

    def _leave(self) -> None:
        if self._balancer is not None:
            self._state, self._layout = self._balancer.state_dict(), self._balancer.attached.layout
            self._balancer.detach()
            self._balancer = None
        if self._run is not None:
            _AT_WORK.pop(self._run[1], None)
            self._run = None
        self._detours.close()


def _planned(trainer: L.Trainer) -> int | None:
    """Return how many epochs the trainer was told, None for one that ends otherwise."""
    epochs = trainer.max_epochs
    return None if epochs is None or epochs < 1 else epochs


_AT_WORK: weakref.WeakKeyDictionary[L.LightningModule, Balance] = weakref.WeakKeyDictionary()


def _replace(
    stack: contextlib.ExitStack, owner: object, name: str, detour: Callable[..., Any]
) -> None:
    """Send calls of a method of one object through a detour, until the stack is closed."""
    original = getattr(owner, name)
    if name in vars(owner):
        stack.callback(setattr, owner, name, original)
    else:
        stack.callback(delattr, owner, name)

    def detoured(*args: Any, **kwargs: Any) -> Any:
        return detour(original, *args, **kwargs)

    setattr(owner, name, detoured)


def _refuse_misfits(trainer: L.Trainer, module: L.LightningModule) -> None:
    name, strategy = type(module).__name__, type(trainer.strategy).__name__
    if isinstance(trainer.strategy, SHARDED):
        raise SetupError(f'{strategy} shards parameters, of which a balancer needs all: use "ddp"')
    if not module.automatic_optimization:
        raise SetupError(
            f"{name}.automatic_optimization is False: where you step by hand, balance by hand. "
            "Make self.balancer = eq.Balancer(...) in configure_optimizers, and in "
            "training_step write self.balancer.backward(loss, using=self.manual_backward); "
            "self.balancer.modulate(); self.optimizers().step(); without the callback"
        )
    if module._compiler_ctx is not None:
        raise SetupError(
            f"{name} is compiled as a whole, with all that its steps call: pass it uncompiled "
            "to the trainer, and compile the network in its on_fit_start: self.net.compile()"
        )


def _refuse_methods(trainer: L.Trainer, balancer: Balancer, drawn: bool) -> None:
    for method in balancer.methods:
        kind, can = type(method).__name__, method.capabilities
        if trainer.accumulate_grad_batches > 1 and can.accumulation == "refused":
            raise SetupError(
                f"{kind} cannot accumulate gradients over micro-batches: expected "
                f"accumulate_grad_batches=1, found {trainer.accumulate_grad_batches}"
            )
        if trainer.accumulate_grad_batches > 1 and method.overrides("perturb"):
            raise SetupError(
                f"{kind} runs all micro-batches of a step again, and the trainer has only the last "
                f"at hand then: expected accumulate_grad_batches=1, found "
                f"{trainer.accumulate_grad_batches}; larger batches, or a loop of your own"
            )
        if method.overrides("order") and not drawn:
            raise SetupError(
                f"{kind} decides which samples an epoch has, but the trainer drives a loader of "
                "its own: give it balance.batches(loader), with the callback Balance as balance"
            )
