"""The balancer: methods attached to a model, acting at every step of the user's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.copying import of_a_copy
from equimodal.attach.sharding import refuse_copy
from equimodal.epochs.redrive import refuse_stream
from equimodal.epochs.run import Run
from equimodal.loop.again import passes
from equimodal.loop.backward import backpropagated
from equimodal.loop.batches import Reordered
from equimodal.loop.loss import matched, of_step, own_losses
from equimodal.loop.modulate import modulated
from equimodal.loop.own_losses import OwnLosses, refuse_both
from equimodal.loop.parts import Parts
from equimodal.loop.state import restore, save
from equimodal.loop.stepping import after_step, before_step
from equimodal.loop.together import refuse_join
from equimodal.loop.watching import unwatch
from equimodal.reading.check import Check, checked
from equimodal.reading.export import exported
from equimodal.step import Step
from equimodal.system.hooks import eager
from equimodal.update.optimizers import Optimizer


class Balancer(Parts):
    """Attaches methods to a model, and acts at every step of the user's own loop.

    The model is neither wrapped nor changed; `detach`, or leaving a `with` block, takes every hook
    off again. One step of training is::

        loss = balancer.loss(model(audio, visual), target)
        balancer.backward(loss)
        balancer.modulate()      # after unscaling, before clipping
        optimizer.step()
        optimizer.zero_grad()

    With gradient accumulation or several ranks, `loss` and `backward` are called for every
    micro-batch and `modulate` once per optimizer step: evidence is summed before it is judged.

    Args:
        methods: a method, or several that compose.
        model: the model on its device, wrapped by DistributedDataParallel or not, not compiled yet.
        encoders: for each modality the module that encodes it (or several, or dotted names).
        head: the module that turns the features into logits, or several that run in a row; None
            for models without one.
        optimizer: the optimizer of the model, or several.
        features: where the head's inputs hold each feature, if it cannot be found out: by position
            (``{"audio": 0}``), keyword, slice of one tensor, or a function of the head's arguments.
        criterion: loss of (logits, target); `nn.*Loss` modules and functions with a `reduction`
            are read per sample.
        outputs: what the criterion takes, "logits", "log-probabilities" or "probabilities", where
            neither its class nor the operation that made the model's outputs tells.
        scores: how well each modality does alone: "auto" for the exact split of an affine head,
            else ablation; `eq.Probe()`, `eq.Ablation(...)`, or a function from features to logits.
        forward: (model, batch) to (logits, target), for methods that run the model themselves; to
            (logits, target, present) where samples lack modalities, as `loss` takes it. By default
            a batch is a tuple of the model's inputs with the target last.
        train_loader: for methods that pass over the training data.
        val_loader: held-out data for methods that need it; never the test set.
        own_optimizer: makes the optimizer of modules that belong to methods, from their parameters.
            By default one like the user's.
        seed: of noise and initial values; the same on every rank.
        track_every: take evidence, and norms of gradients and updates, every so many steps for
            `metrics`, also where the method does not need them; 0 for never.
        epochs: how many there will be in all, calls of `end_epoch` of a whole training: schedules
            of methods follow it.
        micro_batches: how many losses at most are backpropagated per optimizer step, where it is
            known. With 1, methods whose factors follow from one micro-batch (AGM) put them into the
            loss and need no backward pass of their own.
        tokens: which tokens of a trunk that modalities share belong to which: `eq.Tokens(...)`.
        process_group: ranks that train together; by default those of DistributedDataParallel or of
            the mesh of `fully_shard`. `eq.ALONE` where every rank trains a model of its own.

    Attributes:
        names: the modalities.
        epoch: epochs ended so far.
        steps: optimizer steps taken so far.

    Raises:
        SetupError: something does not fit; nothing has been attached then.
    """

    # ------------------------------------------------------------------ the loop

    def batches(self, loader: Iterable[Any]) -> Iterable[Any]:
        """Return what to iterate over in place of a data loader.

        It is the loader itself, unless a method decides which samples an epoch has: then the
        loader's data set, workers and collate function are driven in the method's order.

        Raises:
            SetupError: a method wants another order and the loader is a stream.
        """
        if not self.methods.any("order"):
            return loader
        refuse_stream(loader)
        return Reordered(self, loader)

    def loss(
        self,
        logits: Tensor | None = None,
        target: Any = None,
        *,
        losses: Mapping[str, Tensor] | None = None,
        joint: Tensor | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the loss to backpropagate, shape ``()``: the criterion's, and the methods' terms.

        Without gradients it is the criterion's alone, and nothing is recorded.

        Args:
            logits: what the model returned for a batch, as the criterion takes it.
            target: as the criterion takes it.
            losses: in place of logits and target, for each modality one loss per sample, shape
                ``(B,)``; needs ``scores=eq.Given()``. A batch that lacks a modality leaves it out.
            joint: with `losses`, the loss to train on, ``()``; the sum of their means by default.
            present: which samples have a modality, shape ``(B,)``, bool, by name. Evidence is
                taken from these alone.

        Raises:
            MatchError: no forward of the head led to these logits, or something does not fit.
        """
        refuse_both(logits, losses, joint)
        own = OwnLosses(self.names, losses or {}, joint, present) if logits is None else None
        if not torch.is_grad_enabled():
            return self.criterion.total(logits, target) if own is None else own.total()
        refuse_join(self.attached.model)
        self.notices.evaluating(self.attached.model)
        if own is not None:
            return self.handout.give(*own_losses(self, own))
        return self.handout.give(*of_step(self, matched(self, logits, target, present)))

    def passes(self) -> Iterator[int]:
        """Return what to iterate over around the forward and backward of all batches of a step.

        Once, and a second time on moved weights where a method asks for it (`Method.perturb`)::

            for _ in balancer.passes():
                loss = balancer.loss(model(audio, visual), target)
                balancer.backward(loss)
            balancer.modulate()

        Raises:
            StepError: the passes of this step are over already.
        """
        return passes(self)

    @eager  # a compiled step breaks at a backward pass anyway: here, and only once
    def backward(self, loss: Tensor, using: Callable[[Tensor], None] | None = None) -> None:
        """Backpropagate a loss that came from `loss`, scaled or added to as you like.

        Args:
            loss: shape ``()``: ``balancer.loss(...)``, or computed from one or several of them.
            using: how to backpropagate, such as ``accelerator.backward``; ``loss.backward()`` by
                default.

        Raises:
            StepError: the loss did not come from `loss`, or a method refuses accumulation.
        """
        records = self.handout.back(loss)
        self.ledger.look()
        self.ledger.add(records, backpropagated(self, loss, records, using))

    @torch.no_grad()
    def modulate(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Act on the gradients: once per optimizer step, after unscaling and before clipping.

        Args:
            scaler: the gradient scaler, where one is used. Gradients that it has not unscaled yet
                are unscaled.

        Raises:
            StepError: nothing was backpropagated since the last step.
        """
        self.ledger.modulated = modulated(self, scaler)
        self.ledger.watch()
        self.modulations += 1

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        before_step(self, optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        after_step(self, optimizer, args, kwargs)

    def end_epoch(self) -> None:
        """End an epoch: methods that evaluate, train copies or rewrite parameters do so now."""
        for method in self.acting():
            if method.overrides("end_epoch"):
                method.end_epoch(Run(self))
        self.epoch += 1

    # ------------------------------------------------------------------ inference

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Return what ``model(*args, **kwargs)`` would, or logits by the method's own rule.

        The model's mode and whether gradients are on is up to the caller, as for the model.
        """
        if self.methods.owner("predict") is not None:
            return self.evaluate(*args, **kwargs)[0]
        with self.attached.recorder.pause():
            return self.attached.model(*args, **kwargs)

    def unimodal_logits(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return for each modality the outputs that it alone gives, shape ``(B, ...)``.

        They are what the criterion takes: logits, log-probabilities or probabilities.
        They are read through the model's own head by the chosen scores, unless a method has models
        of single modalities.
        """
        return self.evaluate(*args, **kwargs)[1]

    def evaluate(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `predict` and `unimodal_logits` do, from one forward of the model."""
        step = self._observe(args, kwargs)
        jointly, unimodal = self.methods.owner("predict"), self.alone(step)
        made = self.criterion.outputs.of  # of logits, which is what methods and scores give
        joint = step.outputs if jointly is None else made(jointly.predict(step))
        assert joint is not None
        return joint, {name: made(logits) for name, logits in unimodal.items()}

    def export(self, *inputs: Any) -> nn.Module:
        """Return a plain module that predicts as `predict` does, and needs no equimodal to run.

        It is a copy of the user's model, unless a method predicts by a rule of its own: then the
        prediction is traced with `torch.export`, for any batch size.

        Args:
            inputs: one batch of the model's inputs, 2 samples or more; only for such methods.
        """
        refuse_copy(self.attached.sharding)
        if self.methods.owner("predict") is None:
            return self.attached.copy_model()
        return exported(self, self.predict, inputs)

    # ------------------------------------------------------------------ what it does

    def check(self, batch: Any) -> Check:
        """Run the model once on a batch, print what was found, and change nothing.

        Args:
            batch: as `forward` takes it; by default (input, ..., target).
        """
        found = checked(self, batch)
        print(found)  # noqa: T201 - the purpose of the call
        return found

    def metrics(self) -> dict[str, float]:
        """Return losses, evidence, ratios, coefficients and norms of the latest step as floats.

        Evidence is the mean score per sample. Norms are there when `track_every` asks for them;
        ``update_ratio`` is the norm of a modality's real update over the mean of the others'.
        """
        return self.tracker.floats()

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a run needs to go on as if it had not been interrupted."""
        return save(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state into a balancer that was made in the same way.

        Raises:
            SetupError: the state is of other methods, other modalities or a later version.
        """
        restore(self, state)

    # ------------------------------------------------------------------ leaving

    def detach(self) -> None:
        """Take every hook off the model and the optimizers; they are as they were before."""
        self._leave()
        unwatch(self.notices)

    __reduce__ = of_a_copy

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    # ------------------------------------------------------------------

    def _observe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        def run() -> tuple[Any, None]:
            return self.attached.model(*args, **kwargs), None

        return self.attached.observe(run, epoch=self.epoch)
