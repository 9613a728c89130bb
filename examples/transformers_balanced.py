"""Two sensors of a smartwatch, seven exercises, by the Trainer of Hugging Face transformers."""

from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import equimodal as eq
from equimodal import data
from equimodal.integrations.transformers import BalancedTrainer
from equimodal.nn import CNN1d

SENSORS = ("accelerometer", "gyroscope")


class Watch(nn.Module):
    """An encoder per sensor, and a linear head on the concatenated features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: CNN1d(3, 32, norm="none") for name in SENSORS})
        self.head = nn.Linear(64, 7)

    def forward(
        self, accelerometer: Tensor, gyroscope: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return logits of shape (B, 7) for inputs of shape (B, 3, 100), and the loss."""
        inputs = (accelerometer, gyroscope)
        encoders = self.encoders.values()
        features = [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]
        logits = self.head(torch.cat(features, dim=1))
        return {"logits": logits} | (
            {} if labels is None else {"loss": F.cross_entropy(logits, labels)}
        )


def collate(samples: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Return a batch with the model's argument names."""
    parts = [torch.stack(part) for part in zip(*samples, strict=True)]
    return dict(zip((*SENSORS, "labels"), parts, strict=True))


def accuracy(of: Any) -> dict[str, float]:
    """Return the share of right predictions."""
    return {"accuracy": float((of.predictions.argmax(1) == of.label_ids).mean())}


torch.set_num_threads(1)
torch.manual_seed(0)
splits = data.load("watch")
model = Watch()
with TemporaryDirectory() as folder:
    arguments = transformers.TrainingArguments(
        folder,
        num_train_epochs=3,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=4,
        optim="sgd",
        learning_rate=0.2,
        logging_steps=20,
        eval_strategy="epoch",
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = BalancedTrainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=splits.train,
        eval_dataset=splits.val,
        compute_metrics=accuracy,
        balance=partial(eq.Balancer, eq.OGMGE(0.8), encoders=dict(model.encoders), head=model.head),
    )
    trainer.train()
