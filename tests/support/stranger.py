"""A stranger's project: a small two-stream network with quirks of its own, and data for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset


class Pairs(Dataset[dict[str, Tensor]]):
    """Dicts, as many projects have them; the picture is weak, the sound is strong."""

    def __init__(self, samples: int, seed: int, *, numbers: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.target = torch.randint(3, (samples,), generator=generator)
        centres = torch.eye(3)
        self.sound = centres[self.target] + 0.6 * torch.randn(samples, 3, generator=generator)
        noise = torch.randn(samples, 3, generator=generator)
        self.picture = torch.cat([centres[self.target] + 1.2 * noise, noise], dim=1)
        if numbers:
            self.target = self.target.float() + 0.1 * torch.randn(samples, generator=generator)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"wav": self.sound[place], "img": self.picture[place], "y": self.target[place]}


class TwoStream(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.ears = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.1))
        self.eyes = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.judge = nn.Linear(32, outputs)

    def forward(self, sample: dict[str, Tensor]) -> Tensor:
        features = torch.cat([self.ears(sample["wav"]), self.eyes(sample["img"])], dim=1)
        return (
            self.judge(features).squeeze(1)
            if self.judge.out_features == 1
            else self.judge(features)
        )


def forward(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return model(batch), batch["y"]


def macro_recall(outputs: Tensor, targets: Tensor) -> Tensor:
    """One number for all samples, and not the accuracy."""
    right = outputs.argmax(dim=1) == targets
    return torch.stack([right[targets == c].double().mean() for c in range(3)]).mean()


def macro_auc(outputs: Tensor, targets: Tensor) -> Tensor:
    """The area under the curve of each class against the others, in the mean."""
    areas = []
    for each in range(3):
        inside, outside = outputs[targets == each, each], outputs[targets != each, each]
        areas.append((inside[:, None] > outside[None]).double().mean())
    return torch.stack(areas).mean()


def warmed(optimizers: list[torch.optim.Optimizer]) -> list[Any]:
    """Up for some steps, then down."""
    return [
        torch.optim.lr_scheduler.LambdaLR(each, lambda step: min((step + 1) / 4, 4 / (step + 1)))
        for each in optimizers
    ]


def schedules(optimizers: list[torch.optim.Optimizer]) -> list[Any]:
    return [torch.optim.lr_scheduler.StepLR(each, 2, 0.5) for each in optimizers]


def build() -> dict[str, Any]:
    """Two optimizers, schedules, clipping, mixed precision, and a score that is no accuracy."""
    model = TwoStream(3)
    eyes = list(model.eyes.parameters())
    rest = [*model.ears.parameters(), *model.judge.parameters()]
    return {
        "model": model,
        "encoders": {"sound": model.ears, "picture": model.eyes},
        "head": model.judge,
        "optimizer": [
            torch.optim.AdamW(eyes, lr=0.01),
            torch.optim.SGD(rest, lr=0.1, momentum=0.9),
        ],
        "schedule": schedules,
        "clip": 1.0,
        "precision": "bf16",
        "score": macro_recall,
        "forward": forward,
        "train": DataLoader(Pairs(240, 0), 40, shuffle=True),
        "val": DataLoader(Pairs(120, 1), 60),
        "test": DataLoader(Pairs(120, 2), 60),
        "epochs": 3,
    }


ODD: dict[str, Any] = {}


def odd() -> dict[str, Any]:
    """The same, with what a test has changed."""
    return {**build(), "train": DataLoader(Pairs(40, 0), 20), "epochs": 2, **ODD}


TOLD: list[int | None] = []


def folding(fold: int | None = None) -> dict[str, Any]:
    """The fold of its data held out that it is told; half precision, a schedule of steps, areas."""
    TOLD.append(fold)
    other: dict[str, Any] = {
        "precision": "16", "schedule": warmed, "schedule_every": "step", "score": macro_auc,
    }  # fmt: skip
    if fold is None:
        return {**build(), **other}
    whole = Pairs(360, 0)
    held = [n for n in range(360) if n % 5 == fold]
    kept = [n for n in range(360) if n % 5 != fold]
    return {
        **build(),
        **other,
        "train": DataLoader(Subset(whole, kept), 40, shuffle=True),
        "val": DataLoader(Subset(whole, held), 60),
    }


def regression() -> dict[str, Any]:
    """A number is predicted; how good it is follows from its squared error."""
    model = TwoStream(1)
    return {
        "model": model,
        "encoders": {"sound": model.ears, "picture": model.eyes},
        "head": model.judge,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
        "criterion": nn.MSELoss(),
        "forward": forward,
        "train": DataLoader(Pairs(200, 0, numbers=True), 40, shuffle=True),
        "val": DataLoader(Pairs(100, 1, numbers=True), 50),
        "test": DataLoader(Pairs(100, 2, numbers=True), 50),
        "epochs": 2,
    }
