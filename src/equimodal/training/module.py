"""A balanced model for Lightning's automatic optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from equimodal.balancer import Balancer
from equimodal.method import Method
from equimodal.nn import Multimodal
from equimodal.noise import mix
from equimodal.training.settings import Settings


class BalancedModule(L.LightningModule):
    """Trains and evaluates a `Multimodal` model by a method, through the public API alone.

    Logs under ``train/`` what `Balancer.metrics` says (the mean over the measured steps of an
    epoch), and under ``val/`` and ``test/`` loss, accuracy and macro-F1 of the model, and the
    accuracy of every modality read through the joint head (or of the methods' own models of it).

    Args:
        model: encoders and head.
        method: one method or several that compose.
        settings: see `Settings`; without None.
        classes: how many.
        track_every: measure every so many steps.
        loaders: the training and the validation data, for methods that need them.
    """

    def __init__(
        self,
        model: Multimodal,
        method: Method | Sequence[Method],
        settings: Settings,
        classes: int,
        track_every: int = 10,
        loaders: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.method = (method,)  # in a tuple: not a submodule of this one
        self.track_every = track_every
        self.loaders = dict(loaders or {})
        self._balancer: Balancer | None = None
        self._restored: dict[str, Any] | None = None
        self._tracked = -1
        self.scores = torch.nn.ModuleDict(
            {
                f"{stage}_metrics": torch.nn.ModuleDict(
                    {
                        "accuracy": MulticlassAccuracy(classes, average="micro"),
                        "macro_f1": MulticlassF1Score(classes, average="macro"),
                        **{
                            f"accuracy_{name}": MulticlassAccuracy(classes, average="micro")
                            for name in model.encoders
                        },
                    }
                )
                for stage in ("val", "test")
            }
        )

    @property
    def balancer(self) -> Balancer:
        """The balancer, made together with the optimizer."""
        if self._balancer is None:
            self.configure_optimizers()
        assert self._balancer is not None
        return self._balancer

    def configure_optimizers(self) -> Any:
        """Make the optimizer, its schedule, and the balancer that needs it."""
        optimizer = self.settings.make_optimizer(self.model)
        if self._balancer is not None:
            self._balancer.detach()
        self._balancer = Balancer(
            self.method[0],
            self.model,
            dict(self.model.encoders.items()),
            self.model.head,
            optimizer,
            seed=self.settings.seed,
            track_every=self.track_every,
            **self.loaders,
        )
        if self._restored is not None:
            self._balancer.load_state_dict(self._restored)
            self._restored = None
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, self.settings.lr_step)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    # ------------------------------------------------------------------ the loop of the design

    def on_train_epoch_start(self) -> None:
        # Dropout draws from the global generator, which no checkpoint holds.
        torch.manual_seed(mix(self.settings.seed, self.current_epoch))

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        """Return the loss of a batch."""
        *inputs, target = batch
        return self.balancer.loss(self.model(*inputs), target)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate a loss, scaled or not."""

        def plainly(loss: Tensor) -> None:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]

        self.balancer.backward(loss, using=plainly)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Once per accumulated step, after unscaling and before clipping.
        self.balancer.modulate(getattr(self.trainer.precision_plugin, "scaler", None))

    def on_train_batch_end(self, *args: Any) -> None:
        tracker = self.balancer.tracker
        if self.balancer.steps > self._tracked and tracker.due(self.balancer.steps - 1):
            self._tracked = self.balancer.steps
            named = {f"train/{name}": value for name, value in self.balancer.metrics().items()}
            self.log_dict(named, on_step=False, on_epoch=True, batch_size=1)

    def on_train_epoch_end(self) -> None:
        self.balancer.end_epoch()

    # ------------------------------------------------------------------ evaluation

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        """Evaluate on a batch of the validation split."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Sequence[Tensor], index: int) -> None:
        """Evaluate on a batch of the test split."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Sequence[Tensor], stage: str) -> None:
        *inputs, target = batch
        logits, alone = self.balancer.evaluate(*inputs)
        metrics: Any = self.scores[f"{stage}_metrics"]
        metrics["accuracy"].update(logits, target)
        metrics["macro_f1"].update(logits, target)
        for name, single in alone.items():
            metrics[f"accuracy_{name}"].update(single, target)
        loss = self.balancer.criterion.total(logits, target)
        self.log(f"{stage}/loss", loss, on_epoch=True, batch_size=len(target))
        self.log_dict(
            {f"{stage}/{_spell(name)}": metric for name, metric in metrics.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(target),
        )

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["equimodal"] = self.balancer.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._restored = checkpoint[
                "equimodal"
            ]  # the balancer is made with the optimizer, soon
        else:
            self.balancer.load_state_dict(checkpoint["equimodal"])


def _spell(name: str) -> str:
    return name.replace("accuracy_", "accuracy/")
