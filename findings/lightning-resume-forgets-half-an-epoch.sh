#!/usr/bin/env bash
# One would swear: a run resumed in the middle of an epoch from Lightning's own checkpoint ends that epoch with
#   the metrics that the uninterrupted run has.
# What happens: a metric logged with on_epoch=True is the mean of the batches since the resume alone (4.5 in
#   place of 2.5 here), although batches, weights and steps go on where they were; what was logged only before
#   is not there at all.
# Seen with: lightning 2.6.6.
# Why it matters: the best checkpoint, early stopping and schedules on a plateau decide by a mean of the tail of
#   an epoch, or stop for a metric that is missing. A modality that comes early in an epoch loses its curve.
# In equimodal: means in logs are tested (tests/integration/test_means_in_logs.py); a resume within an epoch is
#   tested for weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet lightning==2.6.6 torch==2.13.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import logging
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        if number < 2:
            self.log("early", torch.tensor(1.0), on_step=False, on_epoch=True)
        self.log("number", torch.tensor(float(number)), on_step=False, on_epoch=True)
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def run(path=None):
    keep = ModelCheckpoint("kept", filename="{step}", every_n_train_steps=4, save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[keep], enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(6, 1)), ckpt_path=path)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}, trainer.global_step

whole, resumed = run(), run("kept/step=4.ckpt")
print(f"lightning {version('lightning')}, six batches; the metric is the number of the batch")
print(f"in one go: {whole[0]} at step {whole[1]}")
print(f"resumed after four: {resumed[0]} at step {resumed[1]}")
held = whole == ({"early": 1.0, "number": 2.5}, 6) and resumed == ({"number": 4.5}, 6)
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
