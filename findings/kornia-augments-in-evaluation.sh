#!/usr/bin/env bash
# One would swear: augmentations that are modules of a model stop with model.eval(), as dropout does.
# What happens: kornia's go on: pictures are flipped and erased in evaluation as in training. Its modules do take
#   eval(), and say training=False.
# Seen with: kornia 0.9.0, torch 2.13.0.
# Why it matters: augmentation on the device, as the first module of an image encoder, is how kornia is meant to be
#   used. The image is then disturbed in validation and the sound is not: images look weaker than they are, and
#   balancing acts on it. Call them only while self.training.
# In equimodal: not met; a model's forward is called as it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 kornia==0.9.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import kornia.augmentation as augmentation
import torch

encoder = torch.nn.Sequential(
    augmentation.RandomHorizontalFlip(p=1.0), augmentation.RandomErasing(p=1.0), torch.nn.Dropout(0.5)
)
encoder.eval()
image = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8)
print(f"kornia {version('kornia')}, torch {version('torch')}")
changed = {}
for module in encoder:
    changed[type(module).__name__] = not torch.equal(module(image), image)
    print(f"{type(module).__name__}: training={module.training}, changes the image: {changed[type(module).__name__]}")
held = changed == {"RandomHorizontalFlip": True, "RandomErasing": True, "Dropout": False}
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
