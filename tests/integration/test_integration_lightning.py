"""A user's LightningModule with `Balance`: the loop of the design, whatever the trainer does."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import re
import runpy
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
)
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.tuner import Tuner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.integrations.lightning import Balance
from equimodal.scores import Function
from equimodal.testing import spawn
from equimodal.training.engine import interruptible
from support.examples import diff
from support.worlds import batch, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]
# Lightning, where a checkpoint is restored without all callbacks that were there when it was saved:
SET_ASIDE = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
ROOT = Path(__file__).parents[2]
EPOCHS, BATCHES, SIZE, ACCUMULATE, CLIP = (
    3,
    30,
    4,
    4,
    0.3,
)  # 24 steps, the last of each of 2 batches
ENCODERS = {"audio": "audio_net", "visual": "visual_net"}
METHODS: dict[str, Callable[[], Any]] = {
    "ogm-ge": lambda: eq.OGMGE(0.8),
    "ogm-ge, updates": lambda: eq.OGMGE(0.8, space="update"),
    "multi-loss": eq.MultiLoss,
    "ogm-ge, smoothed, and multi-loss": lambda: [eq.OGMGE(0.8, smoothing=0.9), eq.MultiLoss()],
}
RANKED = ("ogm-ge", "ogm-ge, smoothed, and multi-loss")  # starting processes takes the time


class Net(L.LightningModule):
    """As a user writes it: two encoders, a head, a schedule."""

    def __init__(self, momentum: float = 0.9, gamma: float = 0.7, size: int = SIZE) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio_net = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 8), nn.Tanh())
        self.visual_net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 8), nn.Tanh())
        self.fusion = nn.Linear(16, 3)
        self.momentum, self.gamma, self.batch_size, self.lr = momentum, gamma, size, 0.1

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        logits: Tensor = self.fusion(torch.cat([self.audio_net(audio), self.visual_net(visual)], 1))
        return logits

    def training_step(self, batch: Any, index: int) -> Any:
        audio, visual, target = batch
        return Balance.of(self).loss(self(audio, visual), target)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.lr, self.momentum, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.gamma)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def train_dataloader(self) -> Any:
        return loader(self.batch_size)


class Validated(Net):
    def validation_step(self, batch: Any, index: int) -> None:
        audio, visual, target = batch
        self.log("val/loss", F.cross_entropy(self(audio, visual), target))


def loader(size: int = SIZE, seed: int = 1, samples: int = BATCHES * SIZE) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*batch(samples, seed=seed, dtype=torch.float32)), size)


def trainer(*callbacks: L.Callback, **settings: Any) -> L.Trainer:
    quiet = dict.fromkeys(
        ("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False
    )
    if any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        del quiet["enable_checkpointing"]
    loop = {
        "max_epochs": EPOCHS,
        "accumulate_grad_batches": ACCUMULATE,
        "gradient_clip_val": CLIP,
        "accelerator": "cpu",
        "devices": 1,
    }
    return L.Trainer(**{**quiet, **loop, **settings, "callbacks": list(callbacks)})  # type: ignore[arg-type]


def balance(methods: Any = None, **settings: Any) -> Balance:
    return Balance(eq.OGMGE(0.8) if methods is None else methods, ENCODERS, "fusion", **settings)


def by_hand(
    methods: Any,
    net: Net | None = None,
    epochs: int = EPOCHS,
    data: Any = None,
    precision: torch.dtype | None = None,
    replica: nn.Module | None = None,
    stop: int = sys.maxsize,
    **settings: Any,
) -> tuple[Tensor, eq.Balancer]:
    """The loop of the design in plain torch: the slow twin of all that follows."""
    net = net or Net()
    data = data or loader()
    made = net.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]
    balancer = eq.Balancer(methods, replica or net, ENCODERS, "fusion", optimizer, **settings)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == torch.float16)
    for _ in range(epochs):
        for index, (audio, visual, target) in enumerate(data):
            last = (index + 1) % ACCUMULATE == 0 or index + 1 == len(data)
            waits = isinstance(replica, DistributedDataParallel) and not last
            with replica.no_sync() if waits else contextlib.nullcontext():  # type: ignore[union-attr]
                with torch.autocast("cpu", precision, enabled=precision is not None):
                    loss = balancer.loss((replica or net)(audio, visual), target)
                balancer.backward(scaler.scale(loss / ACCUMULATE))
            if last:
                scaler.unscale_(optimizer)
                balancer.modulate(scaler)
                nn.utils.clip_grad_norm_(net.parameters(), CLIP)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            if balancer.steps == stop:
                return weights(net), balancer
        balancer.end_epoch()
        schedule.step()
    return weights(net), balancer


def anatomy(net: L.LightningModule, run: L.Trainer) -> Any:
    """All that a balancer could leave on a module, its optimizer and the trainer."""
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks)) for module in net.modules()
    ]
    steps = [
        (len(o._optimizer_step_pre_hooks), len(o._optimizer_step_post_hooks))
        for o in run.optimizers
    ]
    inner = [run.strategy, run.precision_plugin]
    functions = [(type(o), n) for o in inner for n, value in vars(o).items() if callable(value)]
    ours = [n for n, value in vars(net).items() if type(value).__module__.startswith("equimodal")]
    return hooks, steps, sorted(map(str, functions)), ours, list(net.state_dict())


class Plain(Net):
    def training_step(self, batch: Any, index: int) -> Any:
        return F.cross_entropy(self(*batch[:2]), batch[2])


@pytest.fixture(scope="module")
def untouched() -> Callable[[L.LightningModule, L.Trainer], None]:
    """Asserts that a module and its trainer are as without a balancer."""
    net, plain = Plain(), trainer(max_epochs=1)
    plain.fit(net)
    expected = anatomy(net, plain)

    def check(net: L.LightningModule, run: L.Trainer) -> None:
        found = anatomy(net, run)
        assert (found[0], found[2:]) == (expected[0], expected[2:])
        assert all(hooks == (0, 0) for hooks in found[1])
        with pytest.raises(eq.StepError, match="no balancer is at work on this module"):
            Balance.of(net)

    return check


# ---------------------------------------------------------------------- the loop of the design


@pytest.mark.parametrize("name", METHODS)
def test_equal_to_the_plain_loop(name: str, untouched: Any) -> None:
    net, callback = Net(), balance(METHODS[name]())
    run = trainer(callback)
    run.fit(net)
    expected, balancer = by_hand(METHODS[name]())
    assert run.global_step == balancer.steps == 24
    assert torch.equal(weights(net), expected)
    assert str(callback.state_dict()) == str(balancer.state_dict())
    untouched(net, run)


def test_settings_reach_the_balancer() -> None:
    settings: dict[str, Any] = {"seed": 3, "scores": eq.Probe(), "criterion": nn.CrossEntropyLoss()}
    net = Net()
    trainer(balance(**settings)).fit(net)
    expected, _ = by_hand(eq.OGMGE(0.8), **copy.deepcopy(settings))
    assert torch.equal(weights(net), expected)
    assert not torch.equal(weights(net), by_hand(eq.OGMGE(0.8))[0])


def test_scores_may_refer_to_the_module_and_encoders_be_its_modules() -> None:
    """The balancer has copies of the scores, but they must not copy the module."""

    class Scoring(Net):
        def alone(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            audio, visual = self.fusion.weight.split(8, dim=1)
            return {"audio": features["audio"] @ audio.T, "visual": features["visual"] @ visual.T}

    net, twin = Scoring(), Scoring()
    encoders = {"audio": net.audio_net, "visual": [net.visual_net]}
    trainer(Balance(eq.OGMGE(0.8), encoders, net.fusion, scores=Function(net.alone))).fit(net)
    expected, _ = by_hand(eq.OGMGE(0.8), twin, scores=Function(twin.alone))
    assert torch.equal(weights(net), expected)


class Whole(L.LightningModule):
    """A network within a LightningModule, which itself has no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def training_step(self, batch: Any, index: int) -> Any:
        return {"loss": Balance.of(self).loss(self.net(*batch[:2]), batch[2])}

    def configure_optimizers(self) -> Any:
        return self.net.configure_optimizers()


def test_a_network_within_the_module() -> None:
    whole = Whole()
    run = trainer(balance(model="net"))
    run.fit(whole, loader())
    assert torch.equal(weights(whole.net), by_hand(eq.OGMGE(0.8))[0])


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["ogm-ge", "multi-loss"])
def test_mixed_precision(precision: torch.dtype, name: str) -> None:
    """Modulation comes after unscaling and before clipping: else not a bit would agree."""
    net = Net()
    scaler = torch.amp.GradScaler("cpu") if precision == torch.float16 else None
    kind: Any = "16-mixed" if scaler else "bf16-mixed"
    trainer(balance(METHODS[name]()), plugins=[MixedPrecision(kind, "cpu", scaler)]).fit(net)
    expected, _ = by_hand(METHODS[name](), precision=precision)
    assert torch.equal(weights(net), expected)
    assert not torch.equal(weights(net), by_hand(METHODS[name]())[0])


def test_others_hooks_see_the_modulated_gradient_before_it_is_clipped() -> None:
    norms: list[tuple[float, float]] = []

    class Watching(Net):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            norm = nn.utils.get_total_norm([p.grad for p in self.audio_net.parameters()])
            norms.append((norm.item(), Balance.of(self).metrics()["gradient_norm/audio"]))

    trainer(balance(eq.OGM(0.8), log_every_n_steps=1)).fit(Watching())
    ratios = [seen / raw for seen, raw in norms]
    assert min(ratios) < 0.99
    assert max(ratios) == pytest.approx(1.0)


def on_ranks(rank: int) -> dict[str, tuple[Tensor, Tensor, str]]:
    """Lightning's own ddp strategy in processes that are there already, as under torchrun."""
    os.environ["LOCAL_RANK"] = str(rank)
    results = {}
    for name in RANKED:
        make = METHODS[name]
        net, callback = Net(), balance(make())
        part = [tuple(t[rank::2] for t in whole) for whole in loader(2 * SIZE, samples=240)]
        run = trainer(callback, devices=2, strategy="ddp", use_distributed_sampler=False)
        run.fit(net, DataLoader(part, batch_size=None))  # type: ignore[arg-type]
        twin = Net()
        expected, _ = by_hand(make(), twin, data=part, replica=DistributedDataParallel(twin))
        state = {k: v for k, v in callback.state_dict().items() if k != "evidence"}
        results[name] = (weights(net), expected, str(state))
    return results


def test_two_ranks_by_the_ddp_strategy_equal_the_plain_ddp_loop() -> None:
    first, second = spawn(on_ranks)
    for name in RANKED:
        ours, expected, state = first[name]
        assert torch.equal(ours, second[name][0]), name
        assert state == second[name][2], name
        assert torch.equal(ours, expected), name


# ---------------------------------------------------------------------- what trainers do


class Resumable(DataLoader[Any]):
    """Knows where it is in an epoch, as torchdata's StatefulDataLoader does."""

    def __init__(self) -> None:
        super().__init__(loader().dataset, SIZE)
        self.begin = self.given = 0

    def __iter__(self) -> Any:
        begin, self.begin = self.begin, 0
        self.given = begin
        for index, each in enumerate(super().__iter__()):
            if index >= begin:
                self.given = index + 1
                yield each

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.begin = state["given"] % BATCHES


@SET_ASIDE
@pytest.mark.parametrize("name", METHODS)
def test_resumed_in_mid_epoch_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, *rest: Any) -> None:
            if trainer.global_step == 12:  # half of the second epoch
                raise RuntimeError("power cut")

    saving = ModelCheckpoint(tmp_path, "at-{step}", every_n_train_steps=11)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer(saving, balance(METHODS[name]()), Stop()).fit(Net(), Resumable())
    net, callback = Net(), balance(METHODS[name]())
    run = trainer(callback)
    run.fit(net, Resumable(), ckpt_path=tmp_path / "at-step=11.ckpt")
    expected, balancer = by_hand(METHODS[name]())
    assert torch.equal(weights(net), expected)
    assert callback.state_dict()["epoch"] == balancer.epoch == EPOCHS
    assert str(callback.state_dict()) == str(balancer.state_dict())


@SET_ASIDE
def test_means_over_an_epoch_outlive_a_stop_in_the_middle_of_it(tmp_path: Path) -> None:
    class Keep(L.Callback):
        def __init__(self) -> None:
            self.logged: list[dict[str, float]] = []

        def on_train_epoch_end(self, run: L.Trainer, module: L.LightningModule) -> None:
            self.logged.append({k: float(v) for k, v in run.callback_metrics.items()})

    straight, resumed = Keep(), Keep()
    saving = ModelCheckpoint(tmp_path, "at-{step}", every_n_train_steps=11, save_top_k=-1)
    trainer(balance(log_every_n_steps=2), straight, saving).fit(Net(), Resumable())
    again = trainer(balance(log_every_n_steps=2), resumed)
    again.fit(Net(), Resumable(), ckpt_path=tmp_path / "at-step=11.ckpt")
    assert len(straight.logged) == EPOCHS
    assert "balance/loss/joint" in straight.logged[1]
    assert resumed.logged == straight.logged[1:]


def test_evidence_is_lost_with_the_gradients_of_a_window_that_was_cut(tmp_path: Path) -> None:
    """Lightning does not save accumulated gradients."""
    path, counts = tmp_path / "cut.ckpt", []

    class Cut(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, *rest: Any) -> None:
            if rest[-1] == 13:  # the second micro-batch of four
                trainer.save_checkpoint(path)

    class Count(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, *rest: Any) -> None:
            counts.append(Balance.of(module).evidence.micro_batches)

    trainer(balance(), Cut(), max_epochs=1).fit(Net(), Resumable())
    (state,) = torch.load(path, weights_only=True)["callbacks"].values()
    assert state["evidence"]["micro_batches"] == 2
    callback = balance()
    trainer(callback, Count(), max_epochs=1).fit(Net(), Resumable(), ckpt_path=path)
    assert counts[:6] == [1, 0, 1, 2, 3, 0]  # batches 14 to 19
    assert callback.state_dict()["steps"] == 8


@SET_ASIDE
@pytest.mark.parametrize("after_training_epoch", [True, False])
def test_resumed_from_the_end_of_an_epoch(after_training_epoch: bool, tmp_path: Path) -> None:
    """Whether the checkpoint was written before the epoch was ended, on validation, or after."""
    ends: list[int] = []

    class Counting(eq.OGMGE):
        def end_epoch(self, run: Any) -> None:
            ends.append(run.epoch)

    saving = ModelCheckpoint(
        tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=after_training_epoch
    )
    trainer(saving, balance(Counting(0.8)), num_sanity_val_steps=2).fit(
        Validated(), val_dataloaders=loader(60, seed=2)
    )
    assert ends == [0, 1, 2]
    saved = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    (state,) = (value for key, value in saved["callbacks"].items() if key.startswith("Balance"))
    assert state["epoch"] == (1 if after_training_epoch else 0)
    ends.clear()
    net, callback = Validated(), balance(Counting(0.8))
    trainer(callback).fit(
        net, val_dataloaders=loader(60, seed=2), ckpt_path=tmp_path / "epoch=0.ckpt"
    )
    assert ends == ([1, 2] if after_training_epoch else [0, 1, 2])
    assert torch.equal(weights(net), by_hand(eq.OGMGE(0.8))[0])


def test_early_stopping(untouched: Any) -> None:
    net, callback = Validated(), balance()
    run = trainer(EarlyStopping("val/loss", patience=1, mode="max"), callback, max_epochs=9)
    run.fit(net, val_dataloaders=loader(60, seed=2))
    assert run.current_epoch == callback.state_dict()["epoch"] == 2
    assert torch.equal(weights(net), by_hand(eq.OGMGE(0.8), epochs=2)[0])
    untouched(net, run)


def test_ended_by_steps_in_mid_epoch() -> None:
    net = Net()
    trainer(balance(), max_epochs=None, max_steps=11).fit(net)
    assert torch.equal(weights(net), by_hand(eq.OGMGE(0.8), stop=11)[0])


@pytest.mark.parametrize("name", ["ogm-ge", "ogm-ge, smoothed, and multi-loss"])
@pytest.mark.parametrize("first", [True, False], ids=["finder first", "balance first"])
def test_the_learning_rate_finder_leaves_no_trace(name: str, first: bool, tmp_path: Path) -> None:
    """Also where the finder's steps made the methods' own modules, and whichever callback is first."""
    finder = LearningRateFinder(num_training_steps=9, update_attr=False)
    callbacks = [finder, balance(METHODS[name]())]
    net = Net()
    run = trainer(*callbacks[:: 1 if first else -1], default_root_dir=tmp_path)
    run.fit(net)
    assert finder.optimal_lr is not None
    assert len(finder.optimal_lr.results["loss"]) >= 8
    assert torch.equal(weights(net), by_hand(METHODS[name]())[0])


def test_the_learning_rate_finder_trains_by_the_method(tmp_path: Path) -> None:
    """Lightning sets all callbacks aside for it, but its losses are those of balanced steps."""
    losses = []
    for method in (eq.OGMGE(0.8), eq.Joint()):
        tuner = Tuner(trainer(balance(method), default_root_dir=tmp_path))
        found = tuner.lr_find(Net(), num_training=9, update_attr=False)
        assert found is not None
        losses.append(found.results["loss"])
    assert losses[0] != losses[1]


def test_the_tuner_and_then_a_fit(tmp_path: Path, untouched: Any) -> None:
    net, callback = Net(), balance(eq.Ensemble())
    run = trainer(callback, default_root_dir=tmp_path)
    tuner = Tuner(run)
    tuner.scale_batch_size(net, init_val=SIZE, max_trials=1)
    tuner.lr_find(net, num_training=9, update_attr=False)
    untouched(net, run)
    run.fit(net)
    assert torch.equal(weights(net), by_hand(eq.Ensemble())[0])


def test_the_batch_size_finder_leaves_no_trace(tmp_path: Path) -> None:
    net = Net(size=2)
    finder = BatchSizeFinder(init_val=2, max_trials=2, steps_per_trial=2)
    trainer(finder, balance(eq.Ensemble()), default_root_dir=tmp_path).fit(net)
    assert net.batch_size == SIZE
    assert torch.equal(weights(net), by_hand(eq.Ensemble())[0])


def test_a_second_fit_goes_on() -> None:
    """Epochs, steps and noise are counted on by one trainer, and anew by another."""
    net, callback = Net(momentum=0.0, gamma=1.0), balance()
    run = trainer(callback, max_epochs=1)
    run.fit(net)
    assert run.fit_loop.max_epochs == 1
    run.fit_loop.max_epochs = EPOCHS
    run.fit(net)
    expected, balancer = by_hand(eq.OGMGE(0.8), Net(momentum=0.0, gamma=1.0))
    assert torch.equal(weights(net), expected)
    assert callback.state_dict()["steps"] == balancer.steps
    other = Net()
    trainer(callback).fit(other)
    assert torch.equal(weights(other), by_hand(eq.OGMGE(0.8))[0])
    assert callback.state_dict()["steps"] == balancer.steps


class Evaluating(Net):
    found: dict[str, Tensor]

    def test_step(self, batch: Any, index: int) -> None:
        self.found = Balance.of(self).unimodal_logits(*batch[:2])


@SET_ASIDE
def test_evaluation_after_training_has_what_the_method_learned(
    tmp_path: Path, untouched: Any
) -> None:
    """The unimodal models of an ensemble are the method's own; they are in the checkpoint too."""
    saving = ModelCheckpoint(tmp_path, "end")
    net, callback = Evaluating(), balance(eq.Ensemble())
    run = trainer(callback, saving)
    run.fit(net)
    run.save_checkpoint(tmp_path / "saved.ckpt")
    held_out = loader(60, seed=2, samples=60)
    _, balancer = by_hand(eq.Ensemble())
    balancer.attached.model.eval()
    with torch.no_grad():
        expected = balancer.unimodal_logits(*next(iter(held_out))[:2])
    # Another process does not know yet which input of the head is which modality: gradients tell.
    anew = trainer(balance(eq.Ensemble()), inference_mode=False)
    for each, path in ((run, None), (anew, tmp_path / "saved.ckpt")):
        net.found = {}
        each.test(net, held_out, ckpt_path=path, verbose=False)
        assert all(torch.equal(net.found[name], expected[name]) for name in ENCODERS)
        untouched(net, each)


def test_logging() -> None:
    class Keep(L.Callback):
        def __init__(self) -> None:
            self.logged: list[dict[str, float]] = []

        def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    keep = Keep()
    seen: dict[int, float] = {}

    class Watching(Net):
        def on_train_batch_end(self, *args: Any) -> None:
            balancer = Balance.of(self)
            if balancer.steps % 3 == 1:
                seen[balancer.steps] = balancer.metrics()["update_norm/audio"]

    trainer(balance(log_every_n_steps=3, log_prefix="train/"), keep).fit(Watching())
    names = {
        "evidence/audio",
        "ratio/visual",
        "coefficient/audio",
        "loss/joint",
        "update_ratio/audio",
    }
    assert {f"train/{name}" for name in names} <= set(keep.logged[0])
    epochs = [
        [value for step, value in seen.items() if (step - 1) // 8 == e] for e in range(EPOCHS)
    ]
    means = [sum(values) / len(values) for values in epochs]
    assert [len(values) for values in epochs] == [3, 3, 2]
    assert [epoch["train/update_norm/audio"] for epoch in keep.logged] == pytest.approx(means)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaling"])
def test_a_training_step_may_return_nothing(scaled: bool) -> None:
    """For single micro-batches, the last of a step, and all of a step."""
    none = {2, 7, 8, 9, 10, 11}

    class Skipping(Net):
        def training_step(self, batch: Any, index: int) -> Any:
            return None if index in none else super().training_step(batch, index)

    net = Skipping()
    plugins = [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))] if scaled else None
    callback = balance(eq.OGM(0.8))
    trainer(callback, max_epochs=1, plugins=plugins).fit(net)
    assert weights(net).isfinite().all()
    # Without scaling Lightning steps on what the other micro-batches gave; with it, it does not.
    assert callback.state_dict()["steps"] == (6 if scaled else 7)
    assert callback.state_dict()["evidence"]["micro_batches"] == 0


def test_copies_made_during_training_carry_nothing() -> None:
    """As weight averaging makes them."""
    copies: list[Net] = []

    class Copy(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, *rest: Any) -> None:
            if not copies:
                copies.extend([copy.deepcopy(module), pickle.loads(pickle.dumps(module))])

    trainer(balance(), Copy(), max_epochs=1).fit(Net())
    for each in copies:
        with pytest.raises(eq.StepError, match="no balancer is at work"):
            Balance.of(each)
        each(*batch(4, dtype=torch.float32)[:2]).sum().backward()
        assert list(each.state_dict()) == list(Net().state_dict())


def test_the_network_is_compiled_after_the_balancer_is_there() -> None:
    class Compiling(Net):
        def on_fit_start(self) -> None:
            self.audio_net.compile(backend="eager")
            self.visual_net.compile(backend="eager")

    net = Compiling()
    run = trainer(balance(eq.OGM(0.8)), max_epochs=1)
    run.fit(net)
    torch.testing.assert_close(weights(net), by_hand(eq.OGM(0.8), epochs=1)[0])
    assert not torch.equal(weights(net), by_hand(eq.Joint(), epochs=1)[0])
    with pytest.raises(eq.SetupError, match="is already compiled"):
        trainer(balance(eq.OGM(0.8)), max_epochs=1).fit(net)


def test_the_balancer_is_gone_after_training() -> None:
    """And the callback, with its state, can be pickled for the next process."""
    callback, balancers = balance(), []

    class Watch(L.Callback):
        def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            balancers.append(weakref.ref(Balance.of(module)))

    trainer(callback, Watch(), max_epochs=1).fit(Net())
    gc.collect()
    assert balancers[0]() is None
    again = pickle.loads(pickle.dumps(callback))
    assert str(again.state_dict()) == str(callback.state_dict())
    assert again.state_dict()["steps"] == 8


# ---------------------------------------------------------------------- breaking off


@SET_ASIDE
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["forward", "validation", "finder"])
def test_hooks_are_gone_after_an_error(
    error: Any, where: str, untouched: Any, tmp_path: Path
) -> None:
    class Breaking(Net):
        def training_step(self, batch: Any, index: int) -> Any:
            loss = super().training_step(batch, index)
            if where != "validation" and index == 2:
                raise error("broken")
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            if where == "validation":
                raise error("broken")

    net, callback = Breaking(), balance()
    finder = LearningRateFinder(num_training_steps=9, update_attr=False)
    callbacks = [finder, callback] if where == "finder" else [callback]
    run = trainer(*callbacks, default_root_dir=tmp_path, num_sanity_val_steps=0)
    with pytest.raises(error), interruptible():
        run.fit(net, val_dataloaders=loader(60, seed=2))
    untouched(net, run)


def refused(expected: type[Exception], match: str, untouched: Any, net: Net, *callbacks: Any, **settings: Any) -> None:  # fmt: skip
    run = trainer(*callbacks, **settings)
    with pytest.raises(expected, match=match):
        run.fit(net)
    untouched(net, run)


def test_a_loss_that_is_not_the_balancers_is_refused(untouched: Any) -> None:
    class Forgotten(Net):
        def training_step(self, batch: Any, index: int) -> Any:
            return F.cross_entropy(self(*batch[:2]), batch[2])

    match = r"training_step returns Balance\.of\(self\)\.loss\(logits, target\)"
    refused(eq.StepError, match, untouched, Forgotten(), balance())


def test_manual_optimisation_is_refused(untouched: Any) -> None:
    net = Net()
    net.automatic_optimization = False
    settings = {"gradient_clip_val": None, "accumulate_grad_batches": 1}
    refused(eq.SetupError, r"using=self\.manual_backward", untouched, net, balance(), **settings)


def test_what_the_refusal_of_manual_optimisation_proposes_works() -> None:
    class Manual(Net):
        balancer: eq.Balancer

        def configure_optimizers(self) -> Any:
            self.automatic_optimization = False
            optimizer = super().configure_optimizers()["optimizer"]
            self.balancer = eq.Balancer(eq.OGMGE(0.8), self, ENCODERS, "fusion", optimizer)
            return optimizer

        def training_step(self, batch: Any, index: int) -> None:
            loss = self.balancer.loss(self(*batch[:2]), batch[2]) / ACCUMULATE
            self.balancer.backward(loss, using=self.manual_backward)
            if (index + 1) % ACCUMULATE == 0 or index + 1 == BATCHES:
                self.balancer.modulate()
                optimizer: Any = self.optimizers()
                self.clip_gradients(optimizer, CLIP)
                optimizer.step()
                optimizer.zero_grad()

    net = Manual()
    trainer(max_epochs=1, accumulate_grad_batches=1, gradient_clip_val=None).fit(net)
    assert torch.equal(weights(net), by_hand(eq.OGMGE(0.8), epochs=1)[0])


def test_a_module_compiled_as_a_whole_is_refused(untouched: Any) -> None:
    net = torch.compile(Net(), backend="eager")
    with pytest.raises(eq.SetupError, match=r"compile the network in its on_fit_start"):
        trainer(balance()).fit(net)


def test_an_unknown_encoder_is_refused(untouched: Any) -> None:
    callback = Balance(eq.OGM(0.8), {"audio": "audio_ned", "visual": "visual_net"}, "fusion")
    refused(eq.SetupError, "did you mean 'audio_net'", untouched, Net(), callback)


def test_an_encoder_of_another_module_is_refused(untouched: Any) -> None:
    callback = Balance(eq.OGM(0.8), {"audio": Net().audio_net, "visual": "visual_net"}, "fusion")
    refused(eq.SetupError, "not a module of the model that was given", untouched, Net(), callback)


def test_a_method_that_decides_the_order_of_samples_is_refused(untouched: Any) -> None:
    class Ordered(eq.Joint):
        name = "ordered"

        def order(self, samples: int, epoch: int) -> eq.Order | None:
            return None

    refused(
        eq.SetupError, r"give it balance\.batches\(loader\)", untouched, Net(), balance(Ordered())
    )


def test_accumulation_that_a_method_refuses_is_refused_at_the_start(untouched: Any) -> None:
    class Single(eq.Joint):
        name = "single"
        capabilities = eq.Capabilities(accumulation="refused")

    refused(eq.SetupError, "accumulate_grad_batches=1", untouched, Net(), balance(Single()))
    trainer(balance(Single()), accumulate_grad_batches=1, max_epochs=1).fit(Net())


def test_strategies_that_shard_are_refused() -> None:
    """They cannot start without a GPU: the callback is asked as the trainer would ask it."""
    strategy = SimpleNamespace(strategy=FSDPStrategy(), global_step=0)
    with pytest.raises(eq.SetupError, match=r'FSDPStrategy shards parameters.*"ddp"'):
        balance().setup(strategy, Net(), "fit")  # type: ignore[arg-type]


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(eq.SetupError, match="unknown setting 'score': did you mean 'scores'"):
        balance(score=eq.Probe())
    with pytest.raises(eq.SetupError, match="unknown setting 'optimizer'"):
        balance(optimizer=None)


def test_settings_are_those_of_the_balancer() -> None:
    import inspect

    from equimodal.integrations.lightning import SETTINGS

    # which follow from the trainer and the callback
    ours = {"track_every", "process_group", "epochs"}
    keywords = {
        p.name
        for p in inspect.signature(eq.Balancer).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    assert set(SETTINGS) == keywords - ours


def test_a_module_without_the_callback_is_told(untouched: Any) -> None:
    refused(eq.StepError, r"L\.Trainer\(callbacks=\[Balance\(\.\.\.\)\]\)", untouched, Net())


# ---------------------------------------------------------------------- the example and the page

EXAMPLES = [ROOT / "examples" / f"lightning_{name}.py" for name in ("plain", "balanced")]


def test_the_examples_run(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    accuracies = []
    for path in EXAMPLES:
        runpy.run_path(str(path), run_name="__main__")
        (number,) = re.findall(r"validation accuracy (0\.\d+)", capsys.readouterr().out)
        accuracies.append(float(number))
    assert min(accuracies) > 0.5  # 7 classes
    assert accuracies[0] != accuracies[1]


def test_the_examples_differ_in_five_lines_which_the_page_shows() -> None:
    changed = [line for line in diff(*EXAMPLES).splitlines() if line[0] in "+-"]
    assert sum(line[0] == "+" for line in changed) <= 5
    assert sum(line[0] == "-" for line in changed) <= 5
    page = (ROOT / "docs" / "trainers" / "lightning.md").read_text()
    shown = re.findall(r"```diff\n(.*?)\n```", page, flags=re.DOTALL)
    assert shown == [diff(*EXAMPLES)]
