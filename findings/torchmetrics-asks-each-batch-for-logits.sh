#!/usr/bin/env bash
# One would swear: BinaryAUROC depends on the order of scores alone, and batches change nothing: it takes logits as
#   well as probabilities.
# What happens: each batch is asked on its own whether it is logits. A batch whose logits all lie between 0 and 1 is
#   taken as it is, any other goes through the sigmoid. The same eight logits give 1.00 at once and 0.88 in two
#   batches.
# Seen with: torchmetrics 1.9.0.
# Why it matters: logits close to zero are those of the weak modality, or of the beginning of training. Its AUROC is
#   then measured on two scales, and moves with the batch size and the order of samples, while that of the strong
#   modality, with large logits, is right. Apply the sigmoid before.
# In equimodal: not met; AUROC is not among its metrics.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from torchmetrics.classification import BinaryAUROC

logits = torch.tensor([0.1, 0.2, 0.1, 0.2, -3.0, 0.15, -1.0, 0.3])
labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
print(f"torchmetrics {version('torchmetrics')}, torch {version('torch')}")
seen = {}
for size in (8, 4):
    for name, scores in (("logits", logits), ("probabilities", logits.sigmoid())):
        metric = BinaryAUROC()
        for batch in range(0, 8, size):
            metric.update(scores[batch : batch + size], labels[batch : batch + size])
        seen[name, size] = metric.compute().item()
        print(f"AUROC of {name} in batches of {size}: {seen[name, size]:.3f}")
held = seen["logits", 4] == 0.875 and seen["logits", 8] == seen["probabilities", 4] == seen["probabilities", 8] == 1
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
