"""The balancer: methods attached to a model, acting at every step of the user's own loop."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from equimodal import ranks
from equimodal.attach.attachment import Attachment
from equimodal.attach.capture import Call, leave
from equimodal.attach.check import Check, checked
from equimodal.attach.export import exported
from equimodal.attach.features import Given, Inputs
from equimodal.attach.handout import Handout, Pending
from equimodal.attach.sharding import refuse_copy
from equimodal.composition import Composition, modules_of, summed
from equimodal.criterion import Criterion, Loss
from equimodal.epochs.passes import Forward, last_is_target
from equimodal.epochs.redrive import Reordered, narrowed, refuse_stream
from equimodal.epochs.run import Run
from equimodal.errors import MatchError, SetupError, StepError
from equimodal.evidence import EvidenceSum
from equimodal.holding import hold, refuse_held
from equimodal.method import Method, Need
from equimodal.modalities import Encoders
from equimodal.readout import move
from equimodal.refusals import refuse_accumulation, refuse_incapable, refuse_unfit, refuse_ungated
from equimodal.scores import scores_from
from equimodal.state import restore, save
from equimodal.step import Shapes, Step
from equimodal.update.modulation import Modulated, Modulation
from equimodal.update.noise import NoiseSource
from equimodal.update.notices import Notices
from equimodal.update.optimizers import (
    Optimizer,
    eager,
    given_optimizers,
    held,
    hook_steps,
    refuse_untrained,
    trained,
    weakly,
)
from equimodal.update.own import Factory, OwnOptimizer, like
from equimodal.update.scaling import refuse_untold, unscale
from equimodal.update.separation import Separation
from equimodal.update.tracking import Tracker
from equimodal.update.watching import unwatch, watch


class Balancer:
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
        head: the module that turns the features into logits; None for models without one, which
            then need `scores`.
        optimizer: the optimizer of the model, or several.
        features: where the head's inputs hold each feature, if it cannot be found out: by position
            (``{"audio": 0}``), keyword, slice of one tensor, or a function of the head's arguments.
        criterion: loss of (logits, target); `nn.*Loss` modules and functions with a `reduction`
            are read per sample.
        scores: how well each modality does alone: "auto" for the exact split of a linear head, else
            ablation; `eq.Probe()`, `eq.Ablation(...)`, or a function from features to logits.
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
        process_group: ranks that train together; torch.distributed's default group by default.

    Attributes:
        names: the modalities.
        epoch: epochs ended so far.
        steps: optimizer steps taken so far.

    Raises:
        SetupError: something does not fit; nothing has been attached then.
    """

    def __init__(
        self,
        methods: Method | Sequence[Method],
        model: nn.Module,
        encoders: Encoders,
        head: nn.Module | str | None = None,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        features: Given | None = None,
        criterion: Loss = F.cross_entropy,
        scores: Any = "auto",
        forward: Forward = last_is_target,
        train_loader: Iterable[Any] | None = None,
        val_loader: Iterable[Any] | None = None,
        own_optimizer: Factory | None = None,
        seed: int = 0,
        track_every: int = 0,
        epochs: int | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        self.optimizers = given_optimizers(optimizer)
        self.criterion = Criterion(criterion)
        self.scores = scores_from(scores)
        refuse_held([self.scores])
        self.forward, self.train_loader, self.val_loader = forward, train_loader, val_loader
        self.seed, self.epoch, self.steps = seed, 0, 0
        self.process_group = process_group
        if process_group is None and isinstance(model, DistributedDataParallel):
            self.process_group = model.process_group
        self.attached = Attachment(model, encoders, head, features, self.scores, self.criterion)
        self.names = self.attached.names
        modalities, sharding = self.attached.modalities, self.attached.sharding
        if self.process_group is None and sharding is not None:
            self.process_group = sharding.data_parallel_group()
        refuse_untrained(modalities, self.optimizers)
        supplied: set[Need] = {"scores", "encoder inputs", "sample identities"}
        supplied |= set() if train_loader is None else {"training data"}
        supplied |= set() if val_loader is None else {"held-out data"}
        supplied |= set() if epochs is None else {"length of training"}
        self.epochs = epochs
        self.methods = Composition(methods, self.names, seed, frozenset(supplied), epochs)
        if train_loader is not None and self.methods.needs("sample identities"):
            refuse_stream(train_loader)
        refuse_incapable(self.methods, ranks.world_size(self.process_group), sharding is not None)
        source = NoiseSource(seed)
        self.modulation = Modulation(self.methods.methods, modalities, source, sharding)
        combining = self.methods.owner("combine")
        self.separation = None if combining is None else Separation(combining, modalities)
        self.tracker = Tracker(modalities, track_every, sharding)
        self.own = OwnOptimizer(self.optimizers[0], own_optimizer or like(self.optimizers[0]))
        self.shapes: Shapes | None = None
        self.evidence = EvidenceSum()
        self.handout = Handout()
        self.batch: tuple[Tensor, Mapping[str, Tensor]] | None = None
        self.driven = False  # whether the loop goes through `batches`
        self._modulated: Modulated | None = None  # between modulate and step
        self._agreed = False
        self._modulations = 0  # within one optimizer.step(closure)
        self.notices = Notices(modalities, self.optimizers)
        handles = self.methods.attach(self.attached.bare_model, modalities)
        handles += hook_steps(self.optimizers, self._before_step, self._after_step)
        watch(self.notices)
        self.attached.keeps_encoders = self.methods.needs("encoder inputs")
        if self.methods.any("gate") or self.methods.any("order"):
            self.attached.recorder.gate = weakly(self._gate)
        self.attached.recorder.attach()
        # A balancer that is dropped, as in a notebook cell that is run again, takes its hooks off.
        self._leave = weakref.finalize(self, leave, self.attached.recorder, handles)
        self._leave.atexit = False
        hold([*self.methods, self.scores], self._leave)

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
        self, logits: Tensor, target: Any, *, present: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the loss to backpropagate, shape ``()``: the criterion's, and the methods' terms.

        Without gradients it is the criterion's alone, and nothing is recorded.

        Args:
            logits: what the model returned for a batch, as the criterion takes it.
            target: as the criterion takes it.
            present: which samples have a modality, shape ``(B,)``, bool, by name. Evidence is
                taken from these alone.

        Raises:
            MatchError: no forward of the head led to these logits, or something does not fit.
        """
        if not torch.is_grad_enabled():
            return self.criterion.total(logits, target)
        self.notices.evaluating(self.attached.model)
        if self.batch is None and self.methods.any("order") and not self.driven:
            self.notices.unordered()
        indices, kept = (None, {}) if self.batch is None else self.batch
        step = self.attached.step(logits, target, narrowed(present, kept), indices, self.epoch)
        step.process_group = self.process_group
        alone = self.methods.owner("predict_unimodal")
        if alone is not None and alone.scored:
            step.run_scores = alone.predict_unimodal
        if step.autocast or step.compiled:
            refuse_unfit(self.methods, mixed=step.autocast, compiled=step.compiled)
        if step.gates is None and self.attached.recorder.boundary.training:
            drops = ("gate", "order") if self.batch is not None and self.batch[1] else ("gate",)
            refuse_ungated(self._acting(), drops)
        # What the order of an epoch leaves out alone always keeps one modality that is there.
        gated = bool(present) or self.methods.any("gate")
        step.thinned = gated and bool(step.present and step.gates)
        if self.shapes is None:
            self.make_modules(step.shapes)
        terms = self.methods.terms(step)
        probe = self.scores.objective(step)
        if probe is not None:
            terms["scores/probe"] = probe
        scored = self.methods.needs("scores") or self.tracker.due(self.steps)
        scores = step.log_scores() if scored else None
        pending = Pending(terms, scores, self.methods.measure(step))
        self.tracker.losses(terms)
        total = summed(terms, step, self.process_group)
        self.handout.note(total, pending)
        return total

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
        records = self.handout.behind(loss)
        if not records:
            raise StepError(
                "balancer.backward: this loss was not computed from what balancer.loss returned "
                "with gradients enabled: write loss = balancer.loss(logits, target). Of compiled "
                "losses only the latest is known: backpropagate each before the next"
            )
        if self._modulated is not None:
            self.notices.refuse_replaced()
            self.modulation.refuse_unstepped(held(*self._modulated.stepped))
        if self.evidence.micro_batches + len(records) > 1:
            refuse_accumulation(self._acting())
        self.own.before_backward()
        if self.separation is not None:
            terms = [record.terms for record in records]
            self.separation.backward(loss, terms, using or Tensor.backward)
        elif using is not None:
            using(loss)
        else:
            loss.backward()  # type: ignore[no-untyped-call]
        for record in records:
            self.evidence.add(record.scores, record.measured)

    @torch.no_grad()
    def modulate(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Act on the gradients: once per optimizer step, after unscaling and before clipping.

        Args:
            scaler: the gradient scaler, where one is used. Gradients that it has not unscaled yet
                are unscaled.

        Raises:
            StepError: nothing was backpropagated since the last step.
        """
        if not self.evidence.micro_batches:
            raise StepError(
                "balancer.modulate: nothing was backpropagated since the last step: call "
                "balancer.backward(loss) before it, and modulate once per optimizer step"
            )
        if scaler is not None:
            refuse_unfit(self.methods, mixed=scaler.is_enabled())
            unscale(scaler, self.optimizers)
        if not self._agreed:
            device = next(self.attached.bare_model.parameters()).device
            self._agreed = ranks.agreed(self.seed, device, self.process_group)
        evidence = self.evidence.reduce(self.names, self.process_group)
        scored, self.evidence = self.evidence.log_scores is not None, EvidenceSum()
        coefficients = self.methods.coefficients(evidence, self.epoch)
        if self.separation is not None:
            self.separation.combine(scaler, self.process_group)
        if self.tracker.due(self.steps):
            self.tracker.gradients()
        if scored:
            self.tracker.judged(evidence[""], coefficients)
            self.notices.unsound(evidence[""].log_scores)
        self.notices.untouched(self.modulation.unreached(self._active()), evidence[""])
        self.modulation.on_gradients(coefficients, self._active(), self.steps)
        self.methods.adjust(self.attached.modalities, evidence, self.epoch)
        for parameter in self.methods.frozen(self.attached.modalities, self.epoch):
            parameter.grad = None
        self.own.prepare(scaler, self.process_group)
        self._modulated = Modulated(coefficients, self.steps, set(), scaler is not None)
        self._modulations += 1

    def end_epoch(self) -> None:
        """End an epoch: methods that evaluate, train copies or rewrite parameters do so now."""
        for method in self._acting():
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
        """Return for each modality the logits that it alone gives, shape ``(B, ...)``.

        They are read through the model's own head by the chosen scores, unless a method has models
        of single modalities.
        """
        return self.evaluate(*args, **kwargs)[1]

    def evaluate(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `predict` and `unimodal_logits` do, from one forward of the model."""
        step = self._observe(args, kwargs)
        jointly, alone = (self.methods.owner(h) for h in ("predict", "predict_unimodal"))
        logits = step.logits if jointly is None else jointly.predict(step)
        return logits, step.unimodal if alone is None else alone.predict_unimodal(step)

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
        if not inputs:
            raise SetupError(
                "export: this method predicts by a rule of its own, which is traced: pass one "
                "batch of the model's inputs, balancer.export(audio, visual)"
            )
        return exported(self, inputs)

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

    def make_modules(self, shapes: Shapes) -> None:
        """Make the methods' own modules and their optimizer: at the first step, or on restore."""
        if self.shapes is not None:
            return
        self.shapes = shapes
        self.methods.build(shapes)
        self.scores.build(shapes, self.seed)
        move(self.scores, shapes.device)
        stepped = self.methods.equip(self.own, self.process_group)
        self.own.take(p for p in modules_of(self.methods, self.scores) if p not in stepped)

    # ------------------------------------------------------------------ leaving

    def detach(self) -> None:
        """Take every hook off the model and the optimizers; they are as they were before."""
        self._leave()
        unwatch(self.notices)

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    # ------------------------------------------------------------------ hooks

    def _gate(self, call: Call) -> tuple[Inputs, dict[str, Tensor]]:
        """Scale features before the head, as methods and the order of the epoch ask for."""

        def factors(features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            gates = self.methods.gate(features, self.epoch)
            for name, kept in ({} if self.batch is None else self.batch[1]).items():
                feature = features[name]
                if len(kept) != len(feature):
                    raise MatchError(
                        f"the head was given {len(feature)} samples of {name}, but the batch from "
                        f"balancer.batches has {len(kept)}"
                    )
                kept = kept.to(feature.device, feature.dtype)
                gates[name] = gates[name] * kept if name in gates else kept
            return gates

        return self.attached.gated(call, factors)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._modulations = 0
        hidden = self.own.optimizer is not None or self.separation is not None  # gradients
        if hidden and self._modulated is not None and not self._modulated.told:
            refuse_untold()
        if self.modulation.in_update_space:
            self.modulation.before_update(held(optimizer), self._active())
        if self.tracker.due(self.steps if self._modulated is None else self._modulated.step):
            self.tracker.before_update(held(optimizer))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        given = (*args[1:], kwargs.get("closure"))  # torch puts the optimizer itself before them
        closure = any(each is not None for each in given)
        bypassed = self._modulated is None and self.handout.waiting
        self.handout.waiting = False
        added, whose = self.evidence.micro_batches > 0, self.attached.bare_model
        stepped = trained(whose, optimizer) if added or bypassed else ()
        if any(added or parameter.grad is not None for parameter in stepped):
            self.evidence = EvidenceSum()
            if self.separation is not None:
                self.separation.forget()
            self.notices.forgotten(closure)
        if closure and self._modulations > 1:
            raise StepError(
                f"{type(optimizer).__name__}.step evaluated its closure {self._modulations} times, "
                "but evidence and noise belong to one gradient per step: use an optimizer that "
                "evaluates its closure once"
            )
        self.notices.stepped()
        if self._modulated is None:
            return
        modulated = self._modulated
        self.modulation.on_updates(modulated.coefficients, self._active(), modulated.step)
        self.tracker.updates()
        if not modulated.stepped:
            self.own.step()
            self.methods.commit(self.epoch)
            self.steps += 1
        modulated.stepped.add(optimizer)
        if len(modulated.stepped) == len(self.optimizers):
            self._modulated = None

    # ------------------------------------------------------------------

    def _active(self) -> set[int]:
        return {index for index, _ in self.methods.active(self.epoch)}

    def _acting(self) -> list[Method]:
        return [method for _, method in self.methods.active(self.epoch)]

    def _observe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        def run() -> tuple[Any, None]:
            return self.attached.model(*args, **kwargs), None

        return self.attached.observe(run, epoch=self.epoch)
