"""The model of the reference run, as a LightningModule that `Balance` balances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from equimodal.integrations.lightning import Balance
from equimodal.nn import Multimodal
from equimodal.noise import mix
from equimodal.training.settings import Settings


class BalancedModule(L.LightningModule):
    """Trains and evaluates a `Multimodal` model by the methods of a `Balance` callback.

    Logs under ``val/`` and ``test/`` loss, accuracy and macro-F1 of the model, and the accuracy of
    every modality read through the joint head (or of the methods' own models of it).

    Args:
        model: encoders and head.
        settings: see `Settings`; without None.
        classes: how many.
        transform: turns a batch of the loader into the model's inputs and the target, on the
            device it is on; nothing by default.
    """

    def __init__(
        self,
        model: Multimodal,
        settings: Settings,
        classes: int,
        transform: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.transform = transform or torch.nn.Identity()
        self.settings = settings
        self.answers: list[tuple[Tensor, Tensor]] = []  # found and true, of the test split
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

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule."""
        optimizer = self.settings.make_optimizer(self.model)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, self.settings.lr_step)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_train_epoch_start(self) -> None:
        # Dropout draws from the global generator, which no checkpoint holds.
        torch.manual_seed(mix(self.settings.seed, self.current_epoch))

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        """Return the loss of a batch."""
        logits, target, *present = self.run(self.model, batch)
        return Balance.of(self).loss(logits, target, **({"present": present[0]} if present else {}))

    def run(self, model: torch.nn.Module, batch: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the logits and the target of a batch as a loader gives it.

        And which samples have which modality, where some lack one.
        """
        made = self.transform(batch)
        *inputs, target = made
        present = getattr(made, "present", None)
        return (model(*inputs), target, *([] if present is None else [present]))

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        """Evaluate on a batch of the validation split."""
        self._evaluate(batch, "val")

    def on_test_start(self) -> None:
        self.answers.clear()

    def test_step(self, batch: Sequence[Tensor], index: int) -> None:
        """Evaluate on a batch of the test split."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Sequence[Tensor], stage: str) -> None:
        *inputs, target = self.transform(batch)
        balancer = Balance.of(self)
        logits, alone = balancer.evaluate(*inputs)
        loss = balancer.criterion.total(logits, target)
        # Of segments each counts: logits (B, T, C), classes (B, T).
        logits, target = logits.flatten(0, -2), target.flatten()
        metrics: Any = self.scores[f"{stage}_metrics"]
        metrics["accuracy"].update(logits, target)
        metrics["macro_f1"].update(logits, target)
        if stage == "test":
            self.answers.append((logits.argmax(dim=1).cpu(), target.cpu()))
        for name, single in alone.items():
            metrics[f"accuracy_{name}"].update(single.flatten(0, -2), target)
        self.log(f"{stage}/loss", loss, on_epoch=True, batch_size=len(target))
        self.log_dict(
            {f"{stage}/{_spell(name)}": metric for name, metric in metrics.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(target),
        )


def _spell(name: str) -> str:
    return name.replace("accuracy_", "accuracy/")
