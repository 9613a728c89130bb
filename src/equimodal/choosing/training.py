"""One training of what a user builds: their loop, with a checkpoint after each epoch."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.balancer import Balancer
from equimodal.choosing.answering import Answering
from equimodal.choosing.build import Build, build_of
from equimodal.choosing.late import weighed, weights_on
from equimodal.choosing.seeds import seed_all, seed_epoch
from equimodal.errors import MatchError, SetupError
from equimodal.method import Method
from equimodal.methods import teachers_of
from equimodal.methods.registry import find
from equimodal.methods.supplied import TEACHERS, takes_teachers
from equimodal.system.files import partial_of
from equimodal.tasks import note
from equimodal.training.cost import Spent

BEST, LAST = "best.pt", "last.pt"


class Training:
    """A model on its way.

    Args:
        spec: see `equimodal.choosing.train.train`.
        folder: with checkpoints, if it has begun.
        make: gives what is trained, untrained; what the specification names by default.
    """

    def __init__(
        self, spec: Mapping[str, Any], folder: Path, make: Callable[[], Build] | None = None
    ) -> None:
        self.spec, self.folder, self.make = spec, folder, make
        self.seed: int = spec["seed"]
        path = Path(spec["path"]) if spec.get("path") else None
        self.taught = 0.0  # operations of training teachers
        methods = [self._made(name, options) for name, options in spec["methods"]]
        seed_all(self.seed)
        self.built: Build = (
            build_of(spec["build"], self.seed, path, spec.get("folds", 0))
            if make is None
            else make()
        )
        for optimizer in self.built.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * spec["rate"]
        schedules = self.built.schedule(self.built.optimizer) if self.built.schedule else []
        self.schedules: list[Any] = (
            list(schedules) if isinstance(schedules, list | tuple) else [schedules]
        )
        built = self.built
        more: dict[str, Any] = {} if built.forward is None else {"forward": built.forward}
        self.balancer = Balancer(
            methods,
            built.model,
            built.encoders,
            built.head,
            built.optimizer,
            criterion=built.criterion,
            features=built.features,
            scores=built.scores,
            train_loader=built.train,
            val_loader=built.val,
            seed=self.seed,
            epochs=built.epochs,
            **more,
        )
        late = bool(spec.get("late"))
        self.ruled = late or any(method.overrides("predict") for method in methods)
        enabled = built.precision == "16"
        self.scaler = torch.amp.GradScaler(built.device.type, enabled=enabled)
        self.history: list[float] = []
        self.spent = Spent()
        self.spent.add(self.taught)

    def run(self) -> list[float]:
        """Train to the end from wherever it was, and return the score of every epoch."""
        self._resume()
        for epoch in range(len(self.history), self.built.epochs):
            seed_epoch(self.seed, epoch, self.built.train)
            self._epoch()
            score = self._answers(self.built.val)[0]
            self.history.append(float(self.built.scored(*score).mean()))
            if self.built.schedule_every == "epoch":
                for schedule in self.schedules:
                    _stepped(schedule, self.history[-1])
            before = map(or_worst, self.history[:-1])
            if or_worst(self.history[-1]) > max(before, default=-math.inf):
                _save(self.folder / BEST, self._models())
            # After the best is kept: methods may rewrite parameters when the epoch ends.
            with self.spent.between():
                self.balancer.end_epoch()
            self.spent.end_epoch()
            _save(self.folder / LAST, {**self._models(), **self._rest()})
            note(self.folder, epoch + 1)
        if all(math.isnan(score) for score in self.history):
            raise SetupError("the score of validation data is NaN in every epoch: it has diverged")
        return self.history

    @property
    def operations(self) -> float | None:
        """Floating-point operations; None where an earlier version began, which counted none."""
        whole = self.spent.epochs == self.built.epochs
        return self.spent.operations if whole else None

    def take(self, many: int) -> None:
        """Take some steps, and answer and score one batch of validation data."""
        self._epoch(many)
        self.built.scored(*self._answers(itertools.islice(self.built.val, 1))[0])

    def judged(self, split: str) -> dict[str, Any]:
        """Return what the best epoch scores on a split: for all, and for each sample if it can.

        Raises:
            FileNotFoundError: the best model is not kept.
        """
        self._load(torch.load(self.folder / BEST, weights_only=False))
        loader: Any = getattr(self.built, split)
        (outputs, targets), alone = self._answers(loader, alone=bool(self.spec.get("late")))
        weights = None
        if self.spec.get("late"):
            if split == "val":
                weights = weights_on(alone, targets, self.built.scored, self.built.criterion)
            else:
                held = json.loads((self.folder / "result.json").read_text())
                weights = held["weights"]
            outputs = weighed(alone, weights, self.built.criterion)
        scores = self.built.scored(outputs, targets)
        samples = scores.tolist() if scores.ndim == 1 else None
        return {"score": float(scores.mean()), "samples": samples, "weights": weights}

    # ------------------------------------------------------------------

    def _epoch(self, steps: int | None = None) -> None:
        built, balancer = self.built, self.balancer
        built.model.train()
        for batch in itertools.islice(balancer.batches(built.train), steps):
            with self.spent.step() if steps is None else contextlib.nullcontext():
                self._step(batch)
            if built.schedule_every == "step":
                for schedule in self.schedules:
                    schedule.step()

    def _step(self, batch: Any) -> None:
        built, balancer = self.built, self.balancer
        for _ in balancer.passes():
            with self._autocast():
                logits, target, *told = built.run(built.model, batch)
                loss = balancer.loss(logits, target, **({"present": told[0]} if told else {}))
            balancer.backward(self.scaler.scale(loss))  # as it is where the scaler is off
        balancer.modulate(self.scaler if self.scaler.is_enabled() else None)
        if built.clip:
            for optimizer in built.optimizers if self.scaler.is_enabled() else ():
                with contextlib.suppress(RuntimeError):  # `modulate` has done it
                    self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(built.model.parameters(), built.clip)
        for optimizer in built.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in built.optimizers:
            optimizer.zero_grad()

    def _autocast(self) -> Any:
        if self.built.precision == "32":
            return contextlib.nullcontext()
        kind = torch.bfloat16 if self.built.precision == "bf16" else torch.float16
        return torch.autocast(self.built.device.type, kind)

    def _answers(
        self, loader: Any, alone: bool = False
    ) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
        self.built.model.eval()
        outputs, targets, parts = [], [], []
        with torch.no_grad():
            for batch in loader:
                answering = Answering(self.balancer, alone)
                output, target, *_ = self.built.run(answering, batch)
                if self.ruled and not answering.called:
                    raise MatchError(
                        "forward: expected it to call model(...), found that it runs parts of the "
                        "model itself: a method that answers by a rule of its own is left out so"
                    )
                outputs.append(output.float().cpu())
                targets.append(target.cpu())
                parts.append({n: each.float().cpu() for n, each in answering.alone.items()})
        if not outputs:
            raise SetupError("val and test: expected samples, found a loader without any")
        of_each = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return (torch.cat(outputs), torch.cat(targets)), of_each

    def _made(self, name: str, options: Mapping[str, Any]) -> Method:
        """Make a method; its teachers are trained before, in a folder of their own."""
        kind, spec = find(name), {**self.spec, "methods": [("ensemble", {})], "late": False}
        if not takes_teachers(kind):
            return kind(**options)
        own = self.folder / TEACHERS
        taught = Training(spec, own, self.make)
        with taught.balancer as balancer:
            if spec.get("tried"):  # of one step: untrained ones do
                taught.take(1)
            else:
                own.mkdir(parents=True, exist_ok=True)
                taught.run()
                self.taught += taught.spent.operations
                taught._load(torch.load(own / BEST, weights_only=False))
            return kind(**options, teachers=teachers_of(balancer, next(iter(taught.built.val))))

    def _models(self) -> dict[str, Any]:
        return {"model": self.built.model.state_dict(), "balancer": self.balancer.state_dict()}

    def _rest(self) -> dict[str, Any]:
        return {
            "optimizers": [each.state_dict() for each in self.built.optimizers],
            "schedules": [each.state_dict() for each in self.schedules],
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "spent": self.spent.state_dict(),
        }

    def _load(self, held: Mapping[str, Any]) -> None:
        self.built.model.load_state_dict(held["model"])
        self.balancer.load_state_dict(held["balancer"])

    def _resume(self) -> None:
        try:
            held = torch.load(self.folder / LAST, weights_only=False)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return
        self._load(held)
        for place, optimizer in enumerate(self.built.optimizers):
            optimizer.load_state_dict(held["optimizers"][place])
        for place, schedule in enumerate(self.schedules):
            schedule.load_state_dict(held["schedules"][place])
        self.scaler.load_state_dict(held["scaler"])
        self.history = held["history"]
        if "spent" in held:
            self.spent.load_state_dict(held["spent"])


def _stepped(schedule: Any, score: float) -> None:
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        schedule.step(score if schedule.mode == "max" else -score)
    else:
        schedule.step()


def _save(path: Path, held: Mapping[str, Any]) -> None:
    torch.save(held, partial_of(path))
    partial_of(path).replace(path)


def or_worst(score: float) -> float:
    """Return a score as it is ranked: what is no number is worse than any."""
    return -math.inf if math.isnan(score) else score
