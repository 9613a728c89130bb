"""The reference run: train, choose the epoch by validation, touch the test split once."""

from __future__ import annotations

import contextlib
import logging
import pickle
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

import equimodal
from equimodal.data import Arrays, Splits
from equimodal.errors import SetupError
from equimodal.method import Method
from equimodal.nn import Multimodal
from equimodal.training.history import History
from equimodal.training.models import model_for
from equimodal.training.module import BalancedModule
from equimodal.training.result import Result
from equimodal.training.settings import Settings
from equimodal.training.shuffle import EpochShuffle


def fit(
    splits: Splits,
    method: Method | Sequence[Method],
    settings: Settings | None = None,
    model: Multimodal | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    tensorboard: bool = True,
    callbacks: Sequence[Callback] = (),
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

    Raises:
        SetupError: `out` holds another run, and `resume` is not set.
    """
    settings = (settings or Settings()).suited(splits.card.name)
    described = _describe(method)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory())) if out is None else out
        last = folder / "checkpoints" / "last.ckpt"
        if (folder / "result.json").exists() or last.exists():
            if not resume:
                raise SetupError(
                    f"{folder} holds a run already: go on with it (--resume), or name another "
                    "folder"
                )
            if (folder / "result.json").exists():
                return Result.load(folder / "result.json")
        stack.enter_context(_quiet())
        folder.mkdir(parents=True, exist_ok=True)
        model = model or model_for(splits, seed=settings.seed)
        loaders = _loaders(splits, settings)
        module = BalancedModule(
            model,
            method,
            settings,
            len(splits.classes),
            track_every=max(1, len(loaders["train"]) // 8),
            loaders={"train_loader": loaders["train"], "val_loader": loaders["val"]},
        )
        stack.callback(lambda: module.balancer.detach())
        history = History()
        best = ModelCheckpoint(
            folder / "checkpoints",
            "best",
            monitor="val/accuracy",
            mode="max",
            save_last=True,
            save_on_train_epoch_end=True,  # after the balancer has ended the epoch
            enable_version_counter=False,
        )
        bars: list[Callback] = [RichProgressBar()] if progress else []
        trainer = L.Trainer(
            max_epochs=settings.epochs,
            accelerator="auto",
            devices=1,
            **_precision(settings),
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.clip or None,
            logger=_loggers(folder, tensorboard),
            callbacks=[history, *callbacks, best, *bars],
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            inference_mode=False,  # the layout of the head is found with gradients
        )
        resumed = last if resume and _readable(last) else None
        trainer.fit(module, loaders["train"], loaders["val"], ckpt_path=resumed)
        if trainer.interrupted:
            raise KeyboardInterrupt
        epochs = list(history.epochs)  # loading the best checkpoint takes the history back to it
        (test,) = trainer.test(
            module, loaders["test"], ckpt_path=best.best_model_path, verbose=False
        )
        chosen = _best_epoch(epochs)
        result = Result(
            data=splits.card.name,
            fingerprint=splits.fingerprint,
            method=described,
            settings=asdict(settings),
            best_epoch=chosen,
            val=_of("val", epochs[chosen]),
            test=_of("test", test),
            history=epochs,
            seconds=time.monotonic() - start,
            versions=versions(),
        )
        result.save(folder / "result.json")
    return result


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    return {
        "equimodal": equimodal.__version__,
        "torch": torch.__version__,
        "lightning": L.__version__,
        "python": platform.python_version(),
    }


def _precision(settings: Settings) -> dict[str, Any]:
    if settings.precision == "16" and not torch.cuda.is_available():
        # Lightning takes bfloat16 on a CPU, which by now can do both.
        scaler = torch.amp.GradScaler("cpu")
        return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    return {
        "precision": {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[settings.precision]
    }


def _loaders(splits: Splits, settings: Settings) -> dict[str, DataLoader[Any]]:
    def loader(arrays: Arrays, sampler: EpochShuffle | None = None) -> DataLoader[Any]:
        size = settings.batch_size if sampler else 512
        return DataLoader(arrays, size, sampler=sampler, collate_fn=arrays.collate)

    return {
        "train": loader(splits.train, EpochShuffle(splits.train, settings.seed)),
        "val": loader(splits.val),
        "test": loader(splits.test),
    }


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


def _describe(method: Method | Sequence[Method]) -> str:
    methods = [method] if isinstance(method, Method) else list(method)
    return " + ".join(f"{type(each).__name__}({each.extra_repr()})" for each in methods)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's hints out of the way: they are about loaders of large data sets."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
