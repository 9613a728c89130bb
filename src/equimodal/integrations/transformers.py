"""Balancing inside the Trainer of Hugging Face transformers. Needs the extra ``hf``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.balancer import Balancer
from equimodal.errors import BalanceWarning, SetupError
from equimodal.loop.together import wrapped_later
from equimodal.noise import mix
from equimodal.system.extras import require
from equimodal.update.tracking import existing

require("hf", "transformers", "accelerate")

from transformers import Trainer, TrainerCallback  # noqa: E402

Balance = Callable[..., Balancer]  # (*, model, optimizer); Callable cannot spell keywords
STATE = "balancer.pt"  # beside optimizer.pt in a checkpoint
IGNORED = -100  # the label that losses of transformers leave out
# What computes the criterion of logits and labels too, by module and name.
ALIKE = {"trl.trainer.sft_trainer.SFTTrainer"}
LOOP = "a loop of your own with balancer.loss(losses=..., joint=...)"
INSTEAD = {"DPOTrainer": "equimodal.integrations.trl.BalancedDPOTrainer"}


class BalancedTrainer(Trainer):
    """A Trainer whose steps are balanced; all else is the Trainer's.

    For a Trainer of another class, name this one first: ``class Mine(BalancedTrainer, Theirs)``.

    The loss is the balancer's criterion of the model's logits and the labels, in place of the loss
    that the model returns; a warning says so where the two differ. A Trainer that computes a loss
    of its own is refused, but for TRL's SFTTrainer, whose loss that is; ``replaces_loss = True`` on
    your class says that the criterion stands for it. Modulation comes after the last micro-batch of
    a step and before clipping.

    Args:
        args: as the Trainer takes them, as all others are.
        balance: makes the balancer, called as ``balance(model=model, optimizer=optimizer)`` when
            `train` has made the optimizer, and before the model is wrapped or compiled:
            ``functools.partial(eq.Balancer, eq.OGMGE(), encoders=..., head=...)``, or a function.
        kwargs: as the Trainer takes them.

    Attributes:
        balancer: the balancer of the current or the latest `train`; None before the first.

    Raises:
        SetupError: something in the arguments of the Trainer keeps balancing from working.
    """

    replaces_loss = False

    def __init__(self, *args: Any, balance: Balance, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.balance = balance
        self.balancer: Balancer | None = None
        self._hooked = False
        self._compared = False
        self._refuse_misfits()
        self.add_callback(_Epochs(self))

    # ------------------------------------------------------------------ one run

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does, and take every hook off at the end, also after an error."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self._detach()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer, and attach a balancer to it and to the model."""
        optimizer = super().create_optimizer(*args, **kwargs)
        self._detach()
        with wrapped_later():  # the trainer wraps the model for several ranks
            self.balancer = self.balance(model=self.model, optimizer=optimizer, **self._length())
        if not isinstance(self.balancer, Balancer):
            found, self.balancer = type(self.balancer).__name__, None
            raise SetupError(f"balance: expected a function that returns a Balancer, found {found}")
        self._hooked, self._compared = True, False
        if self.balancer.methods.any("order"):
            self._detach()
            raise SetupError(
                "balance: a method decides which samples an epoch has, but the Trainer counts and "
                "draws them itself: use a loop of your own, with balancer.batches(loader)"
            )
        if self.balancer.methods.any("perturb") and self.args.gradient_accumulation_steps > 1:
            self._detach()
            raise SetupError(
                "balance: a method runs all micro-batches of a step again, and the Trainer has the "
                "last alone at hand: expected gradient_accumulation_steps=1, found "
                f"{self.args.gradient_accumulation_steps}; larger batches, or a loop of your own"
            )
        # `modulate` has unscaled the gradients by then, and a scaler refuses to do it twice.
        self.accelerator.unscale_gradients = lambda optimizer=None: None
        return optimizer

    def _detach(self) -> None:
        vars(self.accelerator).pop("unscale_gradients", None)
        self._hooked = False
        if self.balancer is not None:
            self.balancer.detach()

    # ------------------------------------------------------------------ one step

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run a micro-batch, and modulate after the last one of a step: clipping comes next."""
        balancer = self._in_training()
        backward = self.accelerator.backward

        def balanced(loss: Tensor, **options: Any) -> None:
            balancer.backward(loss, using=functools.partial(backward, **options))

        self.accelerator.backward = balanced
        try:
            for _ in balancer.passes():
                loss: Tensor = super().training_step(*args, **kwargs)
        finally:
            del self.accelerator.backward  # the method of its class shows again
        if self.accelerator.sync_gradients:
            balancer.modulate(self.accelerator.scaler)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the balancer's loss of a micro-batch, shape ``()``, scaled as the Trainer wants.

        For models that take `num_items_in_batch` the Trainer divides by the labels of all
        micro-batches instead of the number of micro-batches: so does this, by the share of labels
        that are not -100.
        """
        if self.balancer is None:  # evaluated before it was ever trained
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        target = self._target(inputs)
        outputs = model(**inputs)
        logits = self.logits_of(outputs)
        loss = self.balancer.loss(logits, target)
        if torch.is_grad_enabled():
            self._compare(outputs, logits, target)
            if self.model_accepts_loss_kwargs and num_items_in_batch is not None:
                loss = loss * self._counted(target) / num_items_in_batch
                if self.args.average_tokens_across_devices:  # counted over all, and then averaged
                    loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def logits_of(self, outputs: Any) -> Tensor:
        """Return the logits among what the model returned for inputs with labels.

        They are the entry "logits" of a dict, or what follows the loss in a tuple; override this
        for a model that returns something else.
        """
        found: Any = None
        if isinstance(outputs, dict):
            found = outputs.get("logits")
        elif isinstance(outputs, tuple) and len(outputs) > 1:
            found = outputs[1]
        if not isinstance(found, Tensor):
            entries = f" with {list(outputs)}" if isinstance(outputs, dict) else ""
            raise SetupError(
                "expected the model to return a dict with 'logits', or a tuple (loss, logits), "
                f"found {type(outputs).__name__}{entries}: override logits_of(outputs)"
            )
        return found

    def _target(self, inputs: dict[str, Any]) -> Any:
        target = tuple(inputs[name] for name in self.label_names if inputs.get(name) is not None)
        if len(target) != len(self.label_names) or not target:
            raise SetupError(
                f"expected labels {self.label_names or ['labels']} in a batch, found "
                f"{list(inputs)}: name them by TrainingArguments(label_names=[...])"
            )
        return target[0] if len(target) == 1 else target

    def _counted(self, target: Tensor) -> Tensor:
        shifted = getattr(self, "_loss_shifts_labels", False)  # of a causal language model
        return (target[..., 1:] if shifted else target).ne(IGNORED).sum()

    def _compare(self, outputs: Any, logits: Tensor, target: Any) -> None:
        """Warn, once, where the loss that the model returns is not that of the criterion."""
        if self._compared:
            return
        self._compared = True
        own = outputs.get("loss") if isinstance(outputs, dict) else outputs[0]
        if not isinstance(own, Tensor) or own.ndim:
            return
        criterion = self._in_training().criterion.total(logits.detach(), target)
        if not torch.isclose(own.detach().to(criterion), criterion, rtol=1e-2, atol=1e-4):
            warnings.warn(
                f"the model returns a loss of {own:.4g}, but the balancer's criterion of its "
                f"logits, which is what trains it, is {criterion:.4g}: give the model's loss "
                "as eq.Balancer(..., criterion=...)",
                BalanceWarning,
                stacklevel=2,
            )

    # ------------------------------------------------------------------ evaluation and logs

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Return loss, logits and labels; by the method's own rule of inference if it has one."""
        balancer = self.balancer
        if balancer is None or balancer.methods.owner("predict") is None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        target = self._target(inputs) if any(name in inputs for name in self.label_names) else None
        with torch.no_grad(), self.compute_loss_context_manager(), self._hooks():
            logits = balancer.predict(**inputs)
            loss = None if target is None else balancer.criterion.total(logits, target)
        return (loss, None, None) if prediction_loss_only else (loss, logits, target)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as the Trainer does, and what the balancer measured beside the training loss."""
        if self._hooked and "loss" in logs:
            measured = existing(self._in_training().metrics())  # of the latest step
            logs.update({f"balance/{name}": value for name, value in measured.items()})
        super().log(logs, *args, **kwargs)

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[None]:
        """Put the hooks that watch a forward back on, if training is over, for a `with` block."""
        assert self.balancer is not None
        recorder = self.balancer.attached.recorder
        if self._hooked:
            yield
            return
        recorder.attach()
        try:
            yield
        finally:
            recorder.remove()

    # ------------------------------------------------------------------ checkpoints

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and self.balancer is not None:
            torch.save(self.balancer.state_dict(), Path(output_dir, STATE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._load_balancer(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        assert self.state.best_model_checkpoint is not None
        self._load_balancer(self.state.best_model_checkpoint)

    def _load_balancer(self, checkpoint: str | os.PathLike[str]) -> None:
        file = Path(checkpoint, STATE)
        if file.exists():
            state = torch.load(file, map_location=self.args.device, weights_only=True)
            self._in_training().load_state_dict(state)
        else:
            warnings.warn(
                f"{checkpoint} holds no {STATE}: the balancer goes on as it is. A checkpoint of a "
                "plain Trainer, or of save_only_model=True, has none",
                BalanceWarning,
                stacklevel=2,
            )

    # ------------------------------------------------------------------

    def _length(self) -> dict[str, int]:
        """Return how many epochs there will be, if `balance` takes it and does not say itself."""
        taken = inspect.signature(self.balance).parameters.get("epochs")
        if taken is None or taken.default is not None or self.args.max_steps > 0:
            return {}
        return {"epochs": math.ceil(self.args.num_train_epochs)}

    def _in_training(self) -> Balancer:
        assert self.balancer is not None  # `create_optimizer` made it
        return self.balancer

    def _refuse_misfits(self) -> None:
        optimizer = str(getattr(self.args.optim, "value", self.args.optim))
        misfits = [
            *self._misfits_of_loss(),
            (
                self.args.n_gpu > 1,
                f"{self.args.n_gpu} GPUs in one process run copies of the model: start one process "
                "per GPU, torchrun --nproc-per-node N",
            ),
            (
                self.is_deepspeed_enabled,
                "DeepSpeed keeps the gradients to itself: leave it out",
            ),
            (
                self.is_fsdp_enabled,
                "FSDP shards the parameters after the balancer was attached: use a loop of your "
                "own for it",
            ),
            (
                optimizer in ("lomo", "adalomo") or optimizer.endswith("layerwise"),
                f"the optimizer {optimizer!r} steps within the backward pass, before gradients can "
                "be modulated: use another one",
            ),
        ]
        for misfit, problem in misfits:
            if misfit:
                raise SetupError(f"BalancedTrainer: {problem}")

    def _misfits_of_loss(self) -> list[tuple[bool, str]]:
        """Return what the Trainer's loss has that the criterion of logits and labels has not."""
        kind, theirs = getattr(self.args, "loss_type", "nll"), self._loss_of_another()
        return [
            (
                self.compute_loss_func is not None,
                "compute_loss_func is not called: give it as eq.Balancer(..., criterion=...), a "
                "function of (logits, labels)",
            ),
            (
                self.label_smoother is not None,
                "label_smoothing_factor is not applied: give "
                "eq.Balancer(..., criterion=nn.CrossEntropyLoss(label_smoothing=...))",
            ),
            (
                theirs is not None and not self.replaces_loss,
                f"{theirs}.compute_loss is a loss of its own, which would not be trained on: use "
                f"{INSTEAD.get(theirs or '', LOOP)}, or, if "
                "eq.Balancer(..., criterion=...) computes the same of logits and labels, say "
                f"replaces_loss = True in class {type(self).__name__}",
            ),
            (
                theirs is None and kind != "nll" and hasattr(self, "aux_loss_enabled"),
                f"loss_type {kind!r} is not applied: expected 'nll', the criterion of the labels",
            ),
            (
                getattr(self, "aux_loss_enabled", False),
                "the auxiliary loss of a mixture of experts is not added: set "
                "output_router_logits=False in the model's configuration",
            ),
        ]

    def _loss_of_another(self) -> str | None:
        """Return the class beside this one whose loss ours takes the place of, if there is one."""
        following = type(self).__mro__[type(self).__mro__.index(BalancedTrainer) + 1 :]
        of = next(each for each in following if "compute_loss" in vars(each))
        known = of is Trainer or f"{of.__module__}.{of.__qualname__}" in ALIKE
        return None if known else of.__name__


class _Epochs(TrainerCallback):
    """Ends the balancer's epochs: before the Trainer evaluates and saves at the end of one."""

    def __init__(self, trainer: BalancedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A checkpoint of the last step of an epoch is written before the epoch ends.
        while self.trainer._in_training().epoch < int(state.epoch or 0):
            self._end()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        stopped = control.should_training_stop or control.should_epoch_stop
        if float(state.epoch or 0).is_integer() or not stopped:
            self._end()

    def _end(self) -> None:
        balancer = self.trainer._in_training()
        cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        # Whatever it draws is the same in a resumed run, and does not move what the Trainer draws.
        with torch.random.fork_rng(cuda):
            torch.manual_seed(mix(balancer.seed, balancer.epoch))
            balancer.end_epoch()
