"""Methods that decide which samples an epoch has, in Lightning and in the reference run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import equimodal as eq
from equimodal import data
from equimodal.epochs.run import Run
from equimodal.integrations.lightning import Balance
from equimodal.nn import Multimodal
from equimodal.training import Settings, fit, model_for
from support.settings import METHODS
from support.worlds import batch, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]
ENCODERS = {"audio": "audio_net", "visual": "visual_net"}
ORDERING = ["bss", "data-remixing", "modality-valuation", "sample-valuation"]
SAMPLES, SIZE, EPOCHS = 50, 8, 3
SPLITS = data.load("mfeat", modalities=("pix", "mor", "fou"))
QUICK = Settings(epochs=3, batch_size=200)


def test_all_that_order_are_tried() -> None:
    assert [name for name, make in METHODS.items() if make().overrides("order")] == ORDERING


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio_net = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.visual_net = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.fusion = nn.Linear(16, 3)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        logits: Tensor = self.fusion(torch.cat([self.audio_net(audio), self.visual_net(visual)], 1))
        return logits

    def training_step(self, batch: Any, index: int) -> Any:
        *inputs, target = batch
        return Balance.of(self).loss(self(*inputs), target)

    def validation_step(self, batch: Any, index: int) -> None:
        *inputs, target = batch
        self.log("loss", F.cross_entropy(self(*inputs), target))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*batch(SAMPLES, dtype=torch.float32)), SIZE)


def trainer(balance: Balance, **settings: Any) -> L.Trainer:
    quiet = dict.fromkeys(
        ("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False
    )
    given = {"max_epochs": EPOCHS, "accelerator": "cpu", "devices": 1, **quiet, **settings}
    return L.Trainer(callbacks=[balance], **given)  # type: ignore[arg-type]


def by_hand(make: Callable[[], eq.Method], accumulate: int) -> Tensor:
    net, train = Net(), loader()
    optimizer = net.configure_optimizers()
    balancer = eq.Balancer(make(), net, ENCODERS, "fusion", optimizer, train_loader=train)
    for _ in range(EPOCHS):
        batches = list_of(balancer, train)
        for number, ((*inputs, target), of) in enumerate(batches, 1):
            balancer.batch = of
            balancer.backward(balancer.loss(net(*inputs), target) / accumulate)
            balancer.batch = None
            if number % accumulate == 0 or number == len(batches):
                balancer.modulate()
                optimizer.step()
                optimizer.zero_grad()
        balancer.end_epoch()
    return weights(net)


def list_of(balancer: eq.Balancer, train: Any) -> list[Any]:
    return [(drawn, balancer.batch) for drawn in balancer.batches(train)]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ORDERING)
def test_lightning_draws_what_the_method_says(name: str, accumulate: int) -> None:
    """It fetches a batch ahead, and validates between epochs; every step has its own samples."""
    net, train = Net(), loader()
    balance = Balance(METHODS[name](), ENCODERS, "fusion", train_loader=train)
    run = trainer(balance, accumulate_grad_batches=accumulate)
    run.fit(net, balance.batches(train), loader())
    assert torch.equal(weights(net), by_hand(METHODS[name], accumulate))


@pytest.mark.parametrize("name", ORDERING)
def test_a_run_that_goes_on_from_a_checkpoint_is_the_same(name: str, tmp_path: Path) -> None:
    found = []
    for stops in ([EPOCHS], [2, EPOCHS]):
        path = None
        for stop in stops:
            net, train = Net(), loader()
            balance = Balance(METHODS[name](), ENCODERS, "fusion", train_loader=train)
            run = trainer(balance, max_epochs=stop)
            run.fit(net, balance.batches(train), loader(), ckpt_path=path)
            path = tmp_path / "last.ckpt"
            run.save_checkpoint(path)
        found.append(weights(net))
    assert torch.equal(*found)


def test_a_method_without_an_order_is_as_with_the_loader() -> None:
    found = []
    for drawn in (True, False):
        net, train = Net(), loader()
        balance = Balance(eq.OGMGE(0.8), ENCODERS, "fusion")
        trainer(balance).fit(net, balance.batches(train) if drawn else train, loader())
        found.append(weights(net))
    assert torch.equal(*found)


def test_what_cannot_be_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([])

    balance = Balance(eq.SampleValuation(), ENCODERS, "fusion", train_loader=loader())
    with pytest.raises(eq.SetupError, match="Stream is a stream"):
        balance.batches(DataLoader(Stream(), 4))
    with pytest.raises(eq.StepError, match="no trainer is at work with this callback"):
        next(iter(balance.batches(loader())))


# ---------------------------------------------------------------------- the reference run


class Stop(L.Callback):
    """Breaks off as Ctrl-C does, in the middle of an epoch."""

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        if (trainer.current_epoch, rest[-1]) == (2, 1):
            raise KeyboardInterrupt


def reference_by_hand(make: Callable[[], eq.Method], model: Multimodal) -> Tensor:
    settings = QUICK.suited("mfeat")
    optimizer = settings.make_optimizer(model)
    order = data.Order(SPLITS.train, settings.seed, shuffle=True)
    train = DataLoader(
        SPLITS.train, settings.batch_size, sampler=order, collate_fn=SPLITS.train.collate
    )
    balancer = eq.Balancer(
        make(),
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        train_loader=train,
        seed=settings.seed,
    )
    for epoch in range(3):
        order.set_epoch(epoch)
        for *inputs, target in balancer.batches(train):
            balancer.backward(balancer.loss(model(*inputs), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
    return weights(model)


@pytest.mark.parametrize("make", [lambda: eq.SampleValuation(1), lambda: eq.DataRemixing(1)])
def test_the_reference_run_is_the_loop_of_the_design_and_goes_on(make: Any, tmp_path: Path) -> None:
    model = model_for(SPLITS, seed=QUICK.seed)
    kept: list[Tensor] = []

    class Keep(L.Callback):
        def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            kept.append(weights(model))

    straight = fit(SPLITS, make(), QUICK, model, callbacks=[Keep()])
    assert torch.equal(kept[0], reference_by_hand(make, model_for(SPLITS, seed=QUICK.seed)))
    options: Any = {"out": tmp_path, "tensorboard": False}
    with pytest.raises(KeyboardInterrupt):
        fit(SPLITS, make(), QUICK, callbacks=[Stop()], **options)
    resumed = fit(SPLITS, make(), QUICK, resume=True, **options)
    assert str(resumed.history) == str(straight.history)  # a ratio may be NaN
    assert resumed.test == straight.test


class Wrecks(eq.Method):
    """Rewrites the encoders when an epoch ends, as re-learning does, only worse."""

    name = "wrecks"

    def end_epoch(self, run: Run) -> None:
        with torch.no_grad():
            for name in run.names:
                for owned in run.parameters(name):
                    owned.parameter.zero_()


def test_the_model_that_is_tested_is_the_one_that_was_validated() -> None:
    result = fit(SPLITS, Wrecks(), QUICK)
    assert result.best_epoch == 0
    assert result.val["accuracy"] > 0.7
    assert result.test["accuracy"] > 0.7, "tested as it was after the epoch had ended"
