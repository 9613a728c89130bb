"""Batches that run again, where a trainer drives the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import transformers
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import equimodal as eq
from equimodal.integrations.lightning import Balance
from equimodal.integrations.transformers import BalancedTrainer
from support.worlds import batch, weights

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec"
)
SAMPLES, SIZE, EPOCHS = 24, 6, 2
ENCODERS = {"audio": "audio_net", "visual": "visual_net"}


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio_net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3))
        self.visual_net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))
        self.fusion = nn.Linear(16, 3)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        both = torch.cat([self.audio_net(audio), self.visual_net(visual)], dim=1)
        logits: Tensor = self.fusion(both)
        return logits

    def training_step(self, batch: Any, index: int) -> Any:
        audio, visual, target = batch
        return Balance.of(self).loss(self(audio, visual), target)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*batch(SAMPLES, dtype=torch.float32)), SIZE)


def by_hand(scaled: bool = False) -> tuple[Net, eq.Balancer]:
    net = Net()
    optimizer = net.configure_optimizers()
    balancer = eq.Balancer(eq.MASAM(), net, ENCODERS, "fusion", optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**8)
    torch.manual_seed(5)
    for _ in range(EPOCHS):
        for audio, visual, target in loader():
            for _ in balancer.passes():
                with torch.autocast("cpu", torch.float16, enabled=scaled):
                    loss = balancer.loss(net(audio, visual), target)
                balancer.backward(scaler.scale(loss))
            balancer.modulate(scaler if scaled else None)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        balancer.end_epoch()
    return net, balancer


def trainer(callback: Balance, **settings: Any) -> L.Trainer:
    off = ("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger")
    plain: dict[str, Any] = dict.fromkeys(off, False)
    return L.Trainer(
        **plain, max_epochs=EPOCHS, accelerator="cpu", devices=1, callbacks=[callback], **settings
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_lightning_equals_the_plain_loop(scaled: bool) -> None:
    callback, net = Balance(eq.MASAM(), ENCODERS, "fusion"), Net()
    plugins = []
    if scaled:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        plugins.append(MixedPrecision("16-mixed", "cpu", scaler))
    torch.manual_seed(5)
    trainer(callback, plugins=plugins).fit(net, loader())
    expected, balancer = by_hand(scaled)
    assert torch.equal(weights(net), weights(expected))
    for (name, found), (_, other) in zip(
        net.named_buffers(), expected.named_buffers(), strict=True
    ):
        assert torch.equal(found, other), name
    assert str(callback.state_dict()["methods"]) == str(balancer.state_dict()["methods"])


def test_lightning_has_only_the_last_micro_batch_at_hand() -> None:
    callback = Balance(eq.MASAM(), ENCODERS, "fusion")
    with pytest.raises(eq.SetupError, match="accumulate_grad_batches=1, found 2"):
        trainer(callback, accumulate_grad_batches=2).fit(Net(), loader())


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, audio: Tensor, visual: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.net(audio, visual)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Samples(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        self.parts = batch(SAMPLES, dtype=torch.float32)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        names = ("audio", "visual", "labels")
        return {name: part[index] for name, part in zip(names, self.parts, strict=True)}


def hugging_face(folder: Path, accumulate: int = 1) -> BalancedTrainer:
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    named = {name: f"net.{part}" for name, part in ENCODERS.items()}
    return BalancedTrainer(
        model=model,
        args=transformers.TrainingArguments(
            str(folder),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=SIZE,
            gradient_accumulation_steps=accumulate,
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=Samples(),
        optimizers=(optimizer, schedule),
        balance=lambda model, optimizer: eq.Balancer(
            eq.MASAM(), model, named, "net.fusion", optimizer
        ),
    )


def test_transformers_equals_the_plain_loop(tmp_path: Path) -> None:
    run = hugging_face(tmp_path)
    for module in run.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # its trainer seeds what is drawn
    run.train()
    assert run.balancer is not None
    expected = Net()
    expected.audio_net[2].p = 0.0
    optimizer = expected.configure_optimizers()
    balancer = eq.Balancer(eq.MASAM(), expected, ENCODERS, "fusion", optimizer)
    for _ in range(EPOCHS):
        for audio, visual, target in loader():
            for _ in balancer.passes():
                balancer.backward(balancer.loss(expected(audio, visual), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(weights(run.model.net), weights(expected))


def test_transformers_has_only_the_last_micro_batch_at_hand(tmp_path: Path) -> None:
    with pytest.raises(eq.SetupError, match="gradient_accumulation_steps=1, found 2"):
        hugging_face(tmp_path, accumulate=2).train()
