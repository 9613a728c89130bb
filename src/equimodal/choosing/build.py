"""What is trained: a user's own model, or a small one that suits a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from equimodal import data
from equimodal.criterion.kind import labelled
from equimodal.data.folds import FOLDS, folded, folds_of
from equimodal.epochs.passes import last_is_target
from equimodal.errors import SetupError, unknown
from equimodal.tasks.function import function_of
from equimodal.training import Settings, model_for

NEEDED = {
    "model": "as it is before training, on its device",
    "encoders": "a dict of the modalities and the modules that encode them",
    "head": "the module that turns the features into logits, or None",
    "optimizer": "of the model, or a list of several",
    "train": "training data, batches (input, ..., target)",
    "val": "held-out data to choose by",
    "test": "data that is opened once, at the end",
    "epochs": "how many",
}
OPTIONAL = {
    "schedule": "a function of the optimizer (or the list of them) that returns schedulers",
    "schedule_every": '"epoch" or "step"',
    "score": "(outputs, targets) to a number for each sample, or to one for all; higher is better",
    "clip": "largest norm of the gradient of all parameters",
    "precision": '"bf16" or "16", mixed precision',
    "forward": "(model, batch) to (logits, target)",
    "criterion": "loss of (logits, target)",
    "features": "where the head's inputs hold each feature",
    "scores": "how unimodal logits are read",
}
FOLD = "fold"  # an argument of the function: which fold of training and validation data to hold out
PASTED = ("forward", "criterion", "features", "scores")  # what the line to paste names, if given
# What the function says for `equimodal diagnose` alone.
IGNORED = ("loader", "train_loader", "alone", "classes", "name", "data")


@dataclass(frozen=True)
class Build:
    """A model with all that training it takes; see `NEEDED` and `OPTIONAL` for the fields."""

    model: nn.Module
    encoders: Mapping[str, Any]
    head: Any
    optimizer: Any
    train: Iterable[Any]
    val: Iterable[Any]
    test: Iterable[Any]
    epochs: int
    schedule: Callable[[Any], Any] | None = None
    schedule_every: Literal["epoch", "step"] = "epoch"
    score: Callable[[Tensor, Tensor], Tensor] | None = None
    clip: float | None = None
    precision: Literal["32", "bf16", "16"] = "32"
    forward: Callable[..., Any] | None = None
    criterion: Callable[..., Tensor] = F.cross_entropy
    features: Any = None
    scores: Any = "auto"
    splits: Any = None  # of a data set of ours
    given: tuple[str, ...] = ()  # of `PASTED`, by a function of the user's

    @property
    def optimizers(self) -> list[optim.Optimizer]:
        """All optimizers, in the order given."""
        several = isinstance(self.optimizer, list | tuple)
        return list(self.optimizer) if several else [self.optimizer]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def run(self, model: Any, batch: Any) -> tuple[Any, ...]:
        """Run a model, or what stands for it, on a batch."""
        if self.forward is not None:
            found: tuple[Any, ...] = self.forward(model, batch)
            return found
        return last_is_target(model, _moved(batch, self.device))

    def scored(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how good answers are, for each sample or for all together; higher is better."""
        if self.score is not None:
            return torch.as_tensor(self.score(outputs, targets)).double()
        if targets.is_floating_point() and outputs.shape == targets.shape:
            if labelled(self.criterion):
                right = (outputs > 0) == (targets > 0.5)
                return right.reshape(len(targets), -1).double().mean(1)
            return -(outputs - targets).reshape(len(targets), -1).square().mean(1).double()
        return (outputs.argmax(dim=1) == targets).double()


def build_of(
    what: str | Mapping[str, Any], seed: int, folder: Path | None = None, folds: int = 0
) -> Build:
    """Make what is trained, after seeding.

    Args:
        what: ``package.module:function``; or a source of data with settings, as JSON values.
        seed: of initial values, of a small model's order of samples, and of the fold.
        folder: where modules of the user's are found.
        folds: of training and validation data, one of which is held out; 0 for the split as it is.

    Raises:
        SetupError: the function says something else than is asked for.
    """
    torch.manual_seed(seed)
    if not isinstance(what, str):
        return _of_source(what, seed, folds)
    made = function_of(what, folder)(**({FOLD: seed % folds} if folds else {}))
    if is_dataclass(made) and not isinstance(made, type):
        made = {each.name: getattr(made, each.name) for each in fields(made)}
    if not isinstance(made, Mapping):
        raise SetupError(
            f"{what}(): expected a dict with {', '.join(NEEDED)}, found {type(made).__name__}"
        )
    for name in made:
        if name not in (*NEEDED, *OPTIONAL, *IGNORED):
            raise SetupError(f"{what}(): " + unknown("entry", str(name), [*NEEDED, *OPTIONAL]))
    if missing := [f"{name} ({about})" for name, about in NEEDED.items() if name not in made]:
        raise SetupError(f"{what}(): missing {'; '.join(missing)}")
    made = {name: value for name, value in made.items() if name not in IGNORED}
    built = Build(**made, given=tuple(name for name in PASTED if name in made))
    _refuse(what, built)
    return built


def _refuse(what: str, built: Build) -> None:
    if built.epochs < 1:
        raise SetupError(f"{what}(): epochs: expected 1 or more, found {built.epochs}")
    if len(built.encoders) < 2:
        found = ", ".join(built.encoders) or "none"
        raise SetupError(f"{what}(): encoders: expected two or more, found {found}")
    if any(not isinstance(each, optim.Optimizer) for each in built.optimizers):
        raise SetupError(f"{what}(): optimizer: expected torch optimizers, not yet scheduled")
    if built.precision not in ("32", "bf16", "16"):
        raise SetupError(f"{what}(): precision: expected 32, bf16 or 16, found {built.precision}")
    if built.schedule_every not in ("epoch", "step"):
        raise SetupError(f"{what}(): schedule_every: expected epoch or step")
    for name in ("train", "val", "test"):
        given = getattr(built, name)
        if isinstance(given, Iterator):
            raise SetupError(
                f"{what}(): {name}: expected what can be passed over every epoch, such as a "
                f"DataLoader or a list, found a {type(given).__name__}, which ends after one pass"
            )
    if built.val is built.test:
        raise SetupError(f"{what}(): val and test are one loader: hold out other data for test")


def folds_for(
    what: str | Mapping[str, Any], folder: Path | None, few: int, splits: Any = None
) -> tuple[int, int]:
    """Return into how many folds data is parted, and how many samples these hold; 0 for none.

    Data of ours is where its validation split has fewer samples than `few`; that of a user's
    function wherever it takes ``fold=``.

    Args:
        what: see `build_of`.
        folder: where modules of the user's are found.
        few: validation samples, below which data of ours is parted.
        splits: of data of ours, where it is loaded already.

    Raises:
        SetupError: the function takes ``fold`` and has no default for it.
    """
    if not isinstance(what, str):
        splits = data.Source(**what["source"]).load() if splits is None else splits
        folds = folds_of(splits) if len(splits.val) < few else 0
        return folds, len(splits.train) + len(splits.val)
    taken = inspect.signature(function_of(what, folder)).parameters.get(FOLD)
    if taken is None:
        return 0, 0
    if taken.default is taken.empty:
        raise SetupError(f"{what}(fold): expected a default, such as None for a split of your own")
    return FOLDS, 0


def _of_source(what: Mapping[str, Any], seed: int, folds: int) -> Build:
    splits: Any = data.Source(**what["source"]).load()
    if folds:
        splits = folded(splits, seed % folds, folds)
    settings = Settings(**{**what["settings"], "seed": seed}).suited(splits.card.name)
    model = model_for(splits, seed=seed, encoder=what["encoder"])
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    transform = splits.train.transform
    size = settings.batch_size

    def forward(model: Any, batch: Any) -> tuple[Any, Any]:
        device = next(built.model.parameters()).device
        *inputs, target = transform(_moved(batch, device))
        return model(*inputs), target

    def schedule(optimizer: Any) -> Any:
        return optim.lr_scheduler.StepLR(optimizer, settings.lr_step)

    built = Build(
        model=model,
        encoders=dict(model.encoders.items()),
        head=model.head,
        optimizer=settings.make_optimizer(model),
        train=splits.train.loader(size, shuffle=True, seed=seed),
        val=splits.val.loader(size),
        test=splits.test.loader(size),
        epochs=settings.epochs or 1,
        schedule=schedule,
        clip=settings.clip or None,
        precision=settings.precision,
        forward=forward,
        splits=splits,
    )
    return built


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return [_moved(each, device) for each in batch]
    return batch
