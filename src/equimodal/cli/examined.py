"""The run that `equimodal train` left in a folder, to be examined."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from equimodal import data
from equimodal.data import Arrays, Splits
from equimodal.diagnostics.encoders.alone import Alone, alone
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.training.curves import Curves
from equimodal.errors import SetupError
from equimodal.method import Method
from equimodal.methods import available
from equimodal.nn import Multimodal
from equimodal.system.extras import require
from equimodal.training import Encoder, Fusion, Settings, model_for
from equimodal.training.claim import Claim
from equimodal.training.models import ENCODERS, HEADS, describe
from equimodal.training.result import Result

require("train", "lightning")

from lightning.fabric.utilities import move_data_to_device  # noqa: E402


def readers(asked: int | None) -> int:
    """Return how many processes read prepared clips: one per core where none is asked for.

    Raises:
        SetupError: it is below 0.
    """
    workers = (os.cpu_count() or 1) if asked is None else asked
    if workers < 0:
        raise SetupError(f"--workers: expected 0 or more, found {workers}")
    return workers


@dataclass(frozen=True)
class Examined:
    """A finished run: its data, its settings, and the model of its best epoch.

    Args:
        folder: of ``equimodal train --out``.
        source: where the data is now; as noted in the folder by default.
        workers: processes that read prepared clips.

    Raises:
        SetupError: the folder holds no finished run, or the data or the model is another one; when
            something is asked for.
    """

    folder: Path
    source: data.Source | None = None
    workers: int = 0

    @cached_property
    def about(self) -> dict[str, Any]:
        """What run.json says."""
        if (self.folder / "comparison.json").exists():
            raise SetupError(
                f"{self.folder} holds a comparison: name the folder of one run in "
                f"{self.folder / 'runs'}"
            )
        held = Claim(self.folder / "run.json", "a run", {}).held()
        if not held:
            raise SetupError(
                f"{self.folder} has no run.json: expected the folder of `equimodal train --out`"
            )
        if not (self.folder / "result.json").exists():
            raise SetupError(f"{self.folder}: the run is not finished: --resume goes on with it")
        by_class = {kind.__name__: kind for kind in available().values()}
        for each in held["method"].split(" + "):
            kind = by_class.get(each.partition("(")[0])
            if kind is not None and kind.predict is not Method.predict:
                raise SetupError(
                    f"{self.folder}: {kind.name} predicts by a rule of its own and not by the head "
                    "of the model, which is read here: expected a run of another method"
                )
        return held

    @property
    def method(self) -> str:
        """The methods that it was trained by, without their options."""
        return " + ".join(each.partition("(")[0] for each in self.about["method"].split(" + "))

    @cached_property
    def splits(self) -> Splits[Any]:
        """The data, checked to be the same."""
        source = self.noted
        splits = source.load()
        if splits.fingerprint != self.about["fingerprint"]:
            raise SetupError(
                f"{source.name} has splits {splits.fingerprint}, the run in {self.folder} was "
                f"trained on {self.about['fingerprint']}: give the same data and options"
            )
        return splits

    @property
    def noted(self) -> data.Source:
        """Where the data is."""
        if self.source is not None:
            return self.source
        noted = self.about.get("source")
        if noted is None and self.about["data"] in data.available():
            return data.Source(self.about["data"], {"modalities": self.about["modalities"]})
        if noted is None or not (noted["name"] in data.available() or Path(noted["name"]).exists()):
            at = "not noted in it" if noted is None else f"no longer at {noted['name']}"
            raise SetupError(
                f"{self.folder}: the data, {self.about['data']}, is {at}: name it after the "
                "folder, with the options that it was trained with, such as --filter"
            )
        return data.Source(noted["name"], noted["options"])

    @cached_property
    def settings(self) -> Settings:
        """How it was trained."""
        return Settings(**self.about["settings"])

    @cached_property
    def parts(self) -> tuple[Fusion, Encoder]:
        """Which head and which encoders the model has, by their names in the command."""
        for fusion, head in HEADS.items():
            for encoder in ENCODERS:
                if head.__name__ != self.about["model"]["head"]:
                    continue
                try:
                    model = model_for(self.splits, fusion, self.settings.seed, encoder)
                except SetupError:  # no such encoder for these inputs
                    continue
                if describe(model) == self.about["model"]:
                    return fusion, encoder
        raise SetupError(
            f"{self.folder}: the run has a model of its own, made in Python: write a function that "
            "returns it, see `equimodal diagnose --help`"
        )

    def fresh(self) -> Multimodal:
        """Return the model as it was before training."""
        fusion, encoder = self.parts
        return model_for(self.splits, fusion, self.settings.seed, encoder)

    def model(self) -> Multimodal:
        """Return the model of the best epoch."""
        path = self.folder / "checkpoints" / "best.ckpt"
        if not path.exists():
            raise SetupError(f"{path} is missing: the model of the best epoch")
        model = self.fresh()
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict(
            {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}
        )
        return model.to(_device())

    def subject(self) -> Subject:
        """Return the model of the best epoch, with hooks."""
        model = self.model()
        transform = self.splits.train.transform

        def forward(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
            *inputs, target = transform(move_data_to_device(batch, _device()))
            return model(*inputs), target

        return Subject(model, dict(model.encoders.items()), model.head, forward=forward)

    def alone(self, subject: Subject, held_out: str) -> Alone:
        """Train each encoder alone as the run was trained, and evaluate it on a split."""
        settings = self.settings
        return alone(
            subject,
            self.loader("train", shuffle=True),
            self.loader("val"),
            self.loader(held_out),
            lambda parameters: settings.make_optimizer(nn.ParameterList(parameters)),
            settings.epochs or 1,
            fresh=self.fresh,
            schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, settings.lr_step),
            seed=settings.seed,
        )

    def loader(self, split: str, *, shuffle: bool = False) -> DataLoader[Any]:
        """Return the samples of a split."""
        samples = getattr(self.splits, split)
        in_memory = isinstance(samples, Arrays)
        size = 512 if in_memory and not shuffle else self.settings.batch_size
        return samples.loader(  # type: ignore[no-any-return]
            size, shuffle=shuffle, seed=self.settings.seed, workers=0 if in_memory else self.workers
        )

    def curves(self) -> dict[str, Any]:
        """Return the curves of its training."""
        return Curves.from_history(Result.load(self.folder / "result.json").history).to_dict()


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
