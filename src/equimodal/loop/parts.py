"""What a balancer is made of, and where training stands."""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from equimodal.attach.call import Call
from equimodal.attach.capture import leave
from equimodal.attach.features import Given, Inputs
from equimodal.attach.misfits import Head
from equimodal.attach.tokens import Tokens
from equimodal.composing.composition import Composition, modules_of
from equimodal.composing.holding import hold, refuse_held
from equimodal.composing.refusals import refuse_incapable
from equimodal.criterion import Criterion, Kind, Loss
from equimodal.epochs.passes import Forward, last_is_target
from equimodal.epochs.redrive import refuse_stream
from equimodal.errors import MatchError, SetupError
from equimodal.evidence import EvidenceSum
from equimodal.loop.handout import Handout
from equimodal.loop.ledger import Ledger
from equimodal.loop.notices import Notices
from equimodal.loop.placeholders import Placeholders
from equimodal.loop.replay import Replay
from equimodal.loop.together import together
from equimodal.loop.watching import watch
from equimodal.matching import Attachment
from equimodal.method import Method, Need
from equimodal.modalities import Encoders
from equimodal.noise import NoiseSource
from equimodal.readout import move
from equimodal.scores import scores_from
from equimodal.step import Shapes, Step
from equimodal.system import ranks
from equimodal.system.hooks import weakly
from equimodal.update.arrival import judge
from equimodal.update.modulation import Modulation
from equimodal.update.optimizers import (
    Optimizer,
    given_optimizers,
    hook_steps,
    refuse_foreign,
)
from equimodal.update.own import Factory, OwnOptimizer, leading, like
from equimodal.update.separation import Separation
from equimodal.update.shared import shared
from equimodal.update.staged import say_untrained
from equimodal.update.tracking import Tracker

Gradients = dict[nn.Parameter, Tensor]
_Made = TypeVar("_Made", bound="Parts")


class Parts(ABC):
    """What a balancer is made of, checked and put together.

    Everything below takes these, and none the balancer itself. Arguments are those of
    `equimodal.Balancer`.

    Attributes:
        attached: the model with its hooks.
        methods: as one.
        modulation, separation, own, tracker: what happens to gradients and updates.
        trunk: what happens to gradients of a shared trunk, by tokens; None without `tokens`.
        ledger: what belongs to the gradients that are there.
        handout: losses that were given to the user's loop.
        notices: what is said once.
        shapes: of the features, from the first step on.
        batch: positions and kept modalities of the batch that `batches` has given out.
        driven: whether the loop goes through `batches`.
        modulations: within one ``optimizer.step(closure)``.
        running: which pass over the batches of a step runs now; 0 outside of `passes`.
        replay: what methods were before the first of those passes.
        earlier: gradients that were there before them.
        epoch: epochs ended so far.
        steps: optimizer steps taken so far.
    """

    def __init__(
        self,
        methods: Method | Sequence[Method],
        model: nn.Module,
        encoders: Encoders,
        head: Head | None = None,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        features: Given | None = None,
        criterion: Loss = F.cross_entropy,
        outputs: Kind | None = None,
        scores: Any = "auto",
        forward: Forward = last_is_target,
        train_loader: Iterable[Any] | None = None,
        val_loader: Iterable[Any] | None = None,
        own_optimizer: Factory | None = None,
        seed: int = 0,
        track_every: int = 0,
        epochs: int | None = None,
        micro_batches: int | None = None,
        tokens: Tokens | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if micro_batches is not None and micro_batches < 1:
            raise SetupError(f"micro_batches: expected 1 or more, or None, found {micro_batches}")
        self.micro_batches = micro_batches
        self.optimizers = given_optimizers(optimizer)
        self.criterion = Criterion(criterion, outputs)
        self.scores = scores_from(scores)
        refuse_held([self.scores])
        self.forward, self.train_loader, self.val_loader = forward, train_loader, val_loader
        self.seed, self.epoch, self.steps = seed, 0, 0
        self.attached = Attachment(model, encoders, head, features, self.scores, self.criterion)
        self.names = self.attached.names
        modalities, sharding = self.attached.modalities, self.attached.sharding
        self.process_group = together(model, sharding, process_group)
        refuse_foreign(self.attached.bare_model, self.optimizers)
        supplied: set[Need] = {"scores", "encoder inputs", "sample identities"}
        supplied |= set() if train_loader is None else {"training data"}
        supplied |= set() if val_loader is None else {"held-out data"}
        supplied |= set() if epochs is None else {"length of training"}
        self.epochs = epochs
        self.methods = Composition(methods, self.names, seed, frozenset(supplied), epochs)
        if train_loader is not None and self.methods.needs("sample identities"):
            refuse_stream(train_loader)
        refuse_incapable(self.methods, ranks.world_size(self.process_group), sharding is not None)
        self.modulation = Modulation(self.methods.methods, modalities, NoiseSource(seed), sharding)
        if tokens is None:  # a trunk may be all that trains
            say_untrained(self.modulation, self.optimizers)
        judge(self.optimizers, self.modulation)
        combining = self.methods.owner("combine")
        static = isinstance(model, DistributedDataParallel) and model.static_graph
        self.separation = None if combining is None else Separation(combining, modalities, static)
        self.tracker = Tracker(modalities, track_every, sharding)
        self.own = OwnOptimizer(
            leading(self.optimizers),
            own_optimizer or like(self.optimizers),
            () if self.attached.head is None else self.attached.head.parameters(),
        )
        self.shapes: Shapes | None = None
        self.handout = Handout()
        self.batch: tuple[Tensor, Mapping[str, Tensor]] | None = None
        self.driven = False
        self._agreed = False
        self.modulations = self.running = 0
        self.replay: Replay | None = None
        self.earlier: Gradients | None = None
        self.notices = Notices(modalities, self.optimizers)
        self.placeholders = Placeholders(self.attached.bare_model, criterion, self.notices.once)
        handles = self.methods.attach(self.attached.bare_model, modalities)
        self.tokens, source = tokens, self.modulation.source
        self.trunk = shared(
            tokens,
            self.attached.bare_model,
            modalities,
            self.methods.methods,
            source,
            handles,
            sharding,
        )
        self.ledger = Ledger(
            modalities,
            self.optimizers,
            self.own,
            self.separation,
            self.modulation,
            self.notices,
            handles,
        )
        if self.trunk is not None:
            self.ledger.others.append(self.trunk.forget)
        self.notices.waiting = weakly(self._waiting)
        handles += hook_steps(self.optimizers, self._before_step, self._after_step)
        watch(self.notices)
        self.attached.reader.needs_calls = self.methods.needs("encoder inputs")
        if self.methods.any("gate") or self.methods.any("order"):
            self.attached.recorder.gate = weakly(self._gate)
        self.attached.recorder.attach()
        # A balancer that is dropped, as in a notebook cell that is run again, takes its hooks off.
        self._leave = weakref.finalize(self, leave, self.attached.recorder, handles)
        self._leave.atexit = False
        hold([*self.methods, self.scores], self._leave)

    @property
    def evidence(self) -> EvidenceSum:
        """The evidence of the micro-batches that were backpropagated since the last step."""
        return self.ledger.evidence

    def make_modules(self, shapes: Shapes) -> None:
        """Make the methods' own modules and their optimizer: at the first step, or on restore."""
        if self.shapes is not None:
            return
        self.shapes = shapes
        self.methods.build(shapes)
        self.scores.build(shapes, self.seed)
        move(self.scores, shapes.device)
        if self.replay is not None:
            self.replay.built()
        stepped = self.methods.equip(self.own, self.process_group)
        self.own.take(p for p in modules_of(self.methods, self.scores) if p not in stepped)

    def agree(self) -> None:
        """Refuse, at the first step, ranks with different seeds.

        Raises:
            SetupError: they have.
        """
        if not self._agreed:
            device = next(self.attached.bare_model.parameters()).device
            self._agreed = ranks.agreed(self.seed, device, self.process_group)

    def active(self) -> set[int]:
        """Return the indices of the methods that act in this epoch."""
        return {index for index, _ in self.methods.active(self.epoch)}

    def scored(self) -> bool:
        """Return whether evidence is taken in this step."""
        return self.methods.needs("scores") or self.tracker.due(self.steps)

    def acting(self) -> list[Method]:
        """Return the methods that act in this epoch."""
        return [method for _, method in self.methods.active(self.epoch)]

    def repeating(self) -> Method | None:
        """Return the method that may run the batches of a step again, if it acts."""
        method = self.methods.owner("perturb")
        return method if method is not None and method.acts(self.epoch) else None

    def alone(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of every modality alone, by the rule that is used for inference."""
        owner = self.methods.owner("predict_unimodal")
        return step.unimodal if owner is None else owner.predict_unimodal(step)

    def remade(
        self: _Made, method: Method, model: nn.Module, optimizers: list[Optimizer], criterion: Loss
    ) -> _Made:
        """Return one like this, of another method, for a copy of the model."""
        attached = self.attached
        return type(self)(
            method,
            model,
            optimizer=optimizers,
            **attached.described(),
            features=attached.given,
            criterion=criterion,
            outputs=self.criterion.given,
            scores=copy.deepcopy(self.scores, {id(attached.head): None}),
            forward=self.forward,
            seed=self.seed,
            tokens=None if self.tokens is None else self.tokens.on(attached.bare_model),
            process_group=self.process_group,
        )

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

    def _waiting(self) -> bool:
        return self.ledger.waiting

    @abstractmethod
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Act before a step of an optimizer."""

    @abstractmethod
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Act after it."""
