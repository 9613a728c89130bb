#!/usr/bin/env bash
# One would swear: writing a sample without an image into row 1 of a batch fails, or leaves the row without an image.
# What happens: `batch[1] = sample` writes the keys that the sample has, and the image of whoever was in row 1 before
#   stays. Arithmetic and cat of the same two raise KeyError.
# Seen with: tensordict 0.15.3.
# Why it matters: batches and replay buffers are filled row by row. A sample whose camera failed is trained with the
#   image of another, and its label: a missing modality becomes a wrong one. Fill the gap (NaN, zeros and a mask)
#   before writing.
# In equimodal: not met; batches are plain dictionaries of tensors, made anew each time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 tensordict==0.15.3 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from tensordict import TensorDict

batch = TensorDict({"audio": torch.tensor([[1.0], [2.0]]), "image": torch.tensor([[10.0], [20.0]])}, batch_size=[2])
sample = TensorDict({"audio": torch.tensor([3.0])}, batch_size=[])
batch[1] = sample
try:
    batch[0] + sample
    refused = False
except KeyError:
    refused = True
print(f"tensordict {version('tensordict')}, torch {version('torch')}")
print(f"written into row 1: {sample.to_dict()}")
print(f"row 1: audio {batch['audio'][1].item()}, image {batch['image'][1].item()}; the sum refuses: {refused}")
held = batch["audio"][1] == 3 and batch["image"][1] == 20 and refused
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
