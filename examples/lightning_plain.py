"""A smartwatch's accelerometer and gyroscope tell seven exercises apart: training in Lightning."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from equimodal import data


class Net(L.LightningModule):
    """An encoder for each sensor, and a linear layer on both features."""

    def __init__(self) -> None:
        super().__init__()
        self.accelerometer_net = self.encoder()
        self.gyroscope_net = self.encoder()
        self.fusion = nn.Linear(2 * 32, 7)

    def encoder(self) -> nn.Module:
        """Return a network from ``(B, 3, 100)`` to ``(B, 32)``."""
        return nn.Sequential(
            nn.Conv1d(3, 16, kernel_size=5, stride=2),
            nn.ReLU(),
            nn.Conv1d(16, 32, kernel_size=5, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )

    def forward(self, accelerometer: Tensor, gyroscope: Tensor) -> Tensor:
        """Return logits, shape ``(B, 7)``."""
        features = [self.accelerometer_net(accelerometer), self.gyroscope_net(gyroscope)]
        logits: Tensor = self.fusion(torch.cat(features, dim=1))
        return logits

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Return the loss of a batch."""
        accelerometer, gyroscope, target = batch
        return nn.functional.cross_entropy(self(accelerometer, gyroscope), target)

    def validation_step(self, batch: Any, index: int) -> None:
        """Log the accuracy on a batch of the validation data."""
        accelerometer, gyroscope, target = batch
        accuracy = (self(accelerometer, gyroscope).argmax(dim=1) == target).float().mean()
        self.log("accuracy", accuracy, batch_size=len(target))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main() -> None:
    """Train for six epochs, and print the accuracy on subjects that were not trained on."""
    L.seed_everything(0, verbose=False)
    splits = data.load("watch")
    trainer = L.Trainer(
        max_epochs=6,
        accelerator="cpu",
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), splits.train.loader(32, shuffle=True), splits.val.loader(500))
    print(f"validation accuracy {trainer.callback_metrics['accuracy']:.3f}")


if __name__ == "__main__":
    main()
