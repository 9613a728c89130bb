"""The reference run: train, choose the epoch by validation, touch the test split once."""

from __future__ import annotations

import contextlib
import pickle
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

import equimodal
from equimodal.data import Arrays, Samples, Source, Splits, available
from equimodal.errors import SetupError, warn
from equimodal.integrations.lightning import Balance
from equimodal.method import Method
from equimodal.nn import Multimodal, segment_cross_entropy
from equimodal.training.claim import Claim
from equimodal.training.counting import Counting
from equimodal.training.diverged import Finite, marked, refuse_diverged
from equimodal.training.engine import Until, interruptible, precision, quiet
from equimodal.training.history import History
from equimodal.training.models import describe, model_for
from equimodal.training.module import BalancedModule
from equimodal.training.per_class import PerClass
from equimodal.training.result import Result
from equimodal.training.settings import Settings
from equimodal.training.unfit import refuse_constant, unseen


def fit(
    splits: Splits[Samples],
    method: Method | Sequence[Method],
    settings: Settings | None = None,
    model: Multimodal | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    tensorboard: bool = True,
    callbacks: Sequence[Callback] = (),
    workers: int = 0,
    source: Source | None = None,
    until: int | None = None,
    taught: Path | None = None,
) -> Result:
    """Train a model by a method, and evaluate the epoch that is best on the validation split.

    Args:
        splits: the data; test is evaluated once, at the end.
        method: one method, or several that compose.
        settings: how to train.
        model: one that suits the data by default.
        out: folder for checkpoints, logs and the result; nothing is kept by default.
        resume: go on from the last checkpoint in `out`; return the result that is there already.
        progress: show a progress bar.
        tensorboard: log for TensorBoard too, beside CSV.
        callbacks: further callbacks of Lightning.
        workers: processes that read the data; for prepared clips as many as there are cores.
        source: where the splits were loaded from, to be noted in `out`: `equimodal diagnose` loads
            them again.
        until: evaluate this epoch, counted from 0, and train no further: nothing is chosen, and
            the method gets no held-out data. See `refit`.
        taught: folder of the run of the method's teachers: what it cost counts too.

    Raises:
        SetupError: `out` holds a run and `resume` is not set, or a run with other settings; or a
            modality is the same in all training samples.
        DivergedError: a loss is no longer a number; `out` says so.
        KeyboardInterrupt: it was interrupted; `resume` goes on from the last whole epoch.
    """
    settings = (settings or Settings()).suited(splits.card.name)
    described = _describe(method)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory())) if out is None else out
        last = folder / "checkpoints" / "last.ckpt"
        model = model or model_for(splits, seed=settings.seed)
        claim = _claim(folder, splits, described, model, settings, source)
        if begun(folder):
            if not resume:
                refuse_diverged(folder)
                raise SetupError(
                    f"{folder} holds a run already: go on with it (--resume), or name another "
                    "folder"
                )
            claim.check("source")  # the data may have moved: the fingerprint tells
            if (folder / "result.json").exists():
                return Result.load(folder / "result.json")
        refuse_constant(splits)
        if untrained := unseen(splits):
            warn(untrained)
        stack.enter_context(marked(folder))
        stack.enter_context(quiet())
        stack.enter_context(interruptible())
        loaders = _loaders(splits, settings, workers)
        module = BalancedModule(model, settings, len(splits.classes), splits.train.transform)
        balance = Balance(
            method,
            dict(model.encoders.items()),
            model.head,
            model=model,
            log_every_n_steps=max(1, len(loaders["train"]) // 8),
            log_prefix="train/",
            seed=settings.seed,
            forward=module.run,
            train_loader=loaders["train"],
            val_loader=loaders["val"] if until is None else None,
            criterion=_criterion(splits),
        )
        with balance.make(module, [settings.make_optimizer(model)], epochs=settings.epochs):
            pass  # what cannot be attached is refused before anything is written
        if not _readable(last):
            claim.path.unlink(missing_ok=True)  # of a run that did not finish its first epoch
        claim.write()
        history, counting = History(), Counting()
        best = ModelCheckpoint(
            folder / "checkpoints",
            "best",
            monitor="val/accuracy" if until is None else None,
            mode="max",
            every_n_epochs=1 if until is None else until + 1,
            # As it was validated: methods may rewrite parameters when the epoch ends after that.
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        # Not `save_last`, which saves only together with the best; and after it, to know of it.
        every = ModelCheckpoint(
            folder / "checkpoints",
            "last",
            save_on_train_epoch_end=True,  # after the balancer has ended the epoch
            enable_version_counter=False,
        )
        more: list[Callback] = [RichProgressBar()] if progress else []
        more += [] if until is None else [Until(until)]
        trainer = L.Trainer(
            max_epochs=settings.epochs,
            accelerator="auto",
            devices=1,
            **precision(settings),
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.clip or None,
            logger=_loggers(folder, tensorboard),
            callbacks=counting.around(balance, history, *callbacks, Finite(), best, every, *more),
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            use_distributed_sampler=False,  # the loaders have samplers that know their rank
            inference_mode=False,  # the layout of the head is found with gradients
        )
        resumed = last if resume and _readable(last) else None
        train: Any = loaders["train"]
        if any(each.overrides("order") for each in _methods(method)):
            train = balance.batches(train)
        trainer.fit(module, train, loaders["val"], ckpt_path=resumed)
        if trainer.interrupted:
            raise KeyboardInterrupt
        epochs = list(history.epochs)  # loading the best checkpoint takes both back to it
        operations = counting.operations(len(epochs), taught)
        (test,) = trainer.test(
            module, loaders["test"], ckpt_path=best.best_model_path, verbose=False
        )
        answers = [torch.cat(each) for each in zip(*module.answers, strict=True)]
        chosen = _best_epoch(epochs) if until is None else until
        result = Result(
            data=splits.card.name,
            fingerprint=splits.fingerprint,
            method=described,
            settings=asdict(settings),
            best_epoch=chosen,
            val=_of("val", epochs[chosen]) if until is None else {},
            test=_of("test", test),
            history=epochs,
            seconds=time.monotonic() - start,
            versions=versions(),
            right="".join("01"[right] for right in (answers[0] == answers[1]).tolist()),
            operations=operations,
        )
        PerClass.of(answers[0], answers[1], splits.classes).write(folder)
        result.save(folder / "result.json")
    return result


def begun(folder: Path) -> bool:
    """Whether a folder holds a run, finished or to be resumed.

    Raises:
        SetupError: it holds a comparison.
    """
    if (folder / "comparison.json").exists():
        raise SetupError(f"{folder} holds a comparison, not a run: name another folder")
    return (folder / "result.json").exists() or (folder / "checkpoints" / "last.ckpt").exists()


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    return {
        "equimodal": equimodal.__version__,
        "torch": torch.__version__,
        "lightning": L.__version__,
        "python": platform.python_version(),
    }


def _claim(
    folder: Path,
    splits: Splits[Samples],
    method: str,
    model: Multimodal,
    settings: Settings,
    source: Source | None,
) -> Claim:
    return Claim(
        folder / "run.json",
        "a run",
        {
            "data": splits.card.name,
            "modalities": list(splits.modalities),
            "fingerprint": splits.fingerprint,
            "method": method,
            "model": describe(model),
            "inputs": {name: list(shape) for name, shape in splits.train.shapes.items()},
            "settings": asdict(settings),
            "source": None if source is None else _noted(source),
        },
    )


def _noted(source: Source) -> dict[str, Any]:
    """Return a source as JSON values; a path such that it is found from any folder."""
    path = Path(source.name)
    name = str(path.resolve()) if path.exists() and source.name not in available() else source.name
    return {"name": name, "options": dict(source.options)}


def _loaders(
    splits: Splits[Samples], settings: Settings, workers: int
) -> dict[str, DataLoader[Any]]:
    def evaluated(samples: Samples) -> DataLoader[Any]:
        # Small samples in large batches; clips would fill the memory.
        size = 512 if isinstance(samples, Arrays) else settings.batch_size
        return samples.loader(size, workers=workers)

    return {
        "train": splits.train.loader(
            settings.batch_size, shuffle=True, seed=settings.seed, workers=workers
        ),
        "val": evaluated(splits.val),
        "test": evaluated(splits.test),
    }


def _criterion(splits: Splits[Samples]) -> Any:
    """Return the loss that the targets want: a class for each sample, or for each segment of it."""
    return segment_cross_entropy if splits.train.target.ndim > 1 else F.cross_entropy


def _loggers(folder: Path, tensorboard: bool) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(folder, name="csv", version="")]
    if tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    return loggers


def _best_epoch(epochs: Sequence[dict[str, float]]) -> int:
    """The first of the epochs with the highest validation accuracy, as the checkpoint takes it."""
    return max(range(len(epochs)), key=lambda epoch: (epochs[epoch]["val/accuracy"], -epoch))


def _readable(checkpoint: Path) -> bool:
    """Whether a checkpoint is there whole: a run may have been killed while it wrote one."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return False
    return True


def _of(stage: str, values: Any) -> dict[str, float]:
    prefix = f"{stage}/"
    return {k.removeprefix(prefix): float(v) for k, v in values.items() if k.startswith(prefix)}


def _methods(method: Method | Sequence[Method]) -> list[Method]:
    return [method] if isinstance(method, Method) else list(method)


def _describe(method: Method | Sequence[Method]) -> str:
    described = " + ".join(
        f"{type(each).__name__}({each.extra_repr()})" for each in _methods(method)
    )
    return re.sub(r" at 0x[0-9a-f]+", "", described)  # a function is the same in another process
