"""Means over an epoch are of the steps that have a value, in every log."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import equimodal as eq
from equimodal.integrations.lightning import Balance
from equimodal.update.tracking import existing

SIZE, STEPS, WITHOUT = 8, 6, 3


class Lacking(L.LightningModule):
    """One batch of an epoch has no visual."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio, self.visual = nn.Linear(10, 6), nn.Linear(12, 6)
        self.head = nn.Linear(12, 3)
        self.seen: list[dict[str, float]] = []

    def training_step(self, batch: Any, index: int) -> Tensor:
        audio, visual, target = batch
        there = torch.full((len(target),), index != WITHOUT)
        features = [self.audio(audio), self.visual(visual) * there[:, None]]
        logits = self.head(torch.cat(features, 1))
        return Balance.of(self).loss(logits, target, present={"visual": there})

    def on_train_batch_end(self, *args: Any) -> None:
        self.seen.append(Balance.of(self).metrics())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def samples() -> Dataset[Any]:
    draws = torch.Generator().manual_seed(0)
    count = SIZE * STEPS
    audio, visual = (torch.randn(count, width, generator=draws) for width in (10, 12))
    return TensorDataset(audio, visual, torch.randint(3, (count,), generator=draws))


def test_a_batch_without_a_modality_leaves_lightnings_means_finite(tmp_path: Path) -> None:
    module = Lacking()
    balance = Balance(
        eq.OGM(0.8), {"audio": "audio", "visual": "visual"}, "head",
        features={"audio": slice(0, 6), "visual": slice(6, 12)}, log_every_n_steps=1,
    )  # fmt: skip
    trainer = L.Trainer(
        max_epochs=1, callbacks=[balance], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=tmp_path,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(samples(), SIZE))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert any(not math.isfinite(value) for step in module.seen for value in step.values())
    for name in ("evidence/visual", "ratio/audio", "ratio/visual", "update_ratio/audio"):
        values = [step[name] for step in module.seen if math.isfinite(step[name])]
        assert len(values) < STEPS
        assert logged[f"balance/{name}"] == pytest.approx(sum(values) / len(values), rel=1e-5)
    assert all(math.isfinite(value) for value in logged.values())


def test_the_trainers_log_leaves_out_what_a_step_has_not(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    from equimodal.integrations.transformers import BalancedTrainer

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.audio, self.visual = nn.Linear(10, 6), nn.Linear(12, 6)
            self.head = nn.Linear(12, 3)

        def forward(self, audio: Tensor, visual: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.head(torch.cat([self.audio(audio), self.visual(visual)], 1))
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Lacks(BalancedTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
            outputs, labels = model(**inputs), inputs["labels"]
            there = torch.full((len(labels),), self.state.global_step != WITHOUT)
            present = {"visual": there}
            assert self.balancer is not None
            return self.balancer.loss(outputs["logits"], labels, present=present)

    def balance(model: Any, optimizer: Any) -> eq.Balancer:
        encoders = {"audio": model.audio, "visual": model.visual}
        return eq.Balancer(
            eq.OGM(0.8, space="update"), model, encoders, model.head, optimizer, track_every=1
        )

    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=STEPS, per_device_train_batch_size=SIZE,
        logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows = [dict(zip(("audio", "visual", "labels"), each, strict=True)) for each in samples()]  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Lacks(model=Model(), args=arguments, train_dataset=rows, balance=balance)
        trainer.train()
    logs = [each for each in trainer.state.log_history if "loss" in each]
    assert len(logs) == STEPS
    numbers = [value for each in logs for value in each.values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in numbers)
    assert sum("balance/ratio/visual" in each for each in logs) == STEPS - 1


def test_a_loss_that_is_not_finite_is_not_left_out() -> None:
    metrics = {"loss/joint": math.nan, "update_norm/a": math.inf, "ratio/a": math.nan, "ratio/b": 2}
    assert existing(metrics).keys() == {"loss/joint", "update_norm/a", "ratio/b"}
