#!/usr/bin/env bash
# One would swear: in evaluation mode, output k of ViLT's image part belongs to patch k of the image, each time.
# What happens: the patches are put in an order drawn anew at each forward. The outputs are the same set in
#   another order; torch's seed decides which. With max_image_length set, even which patches are kept is drawn.
# Seen with: transformers 5.24.0 (ViltModel).
# Why it matters: maps of attention or of gradients over the picture show noise, features cached by place do not
#   line up, and a check that a model gives the same output twice fails for a model without dropout.
# In equimodal: not met yet; a diagnosis by place needs to know it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from transformers import ViltConfig, ViltModel

config = ViltConfig(
    vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    image_size=64, patch_size=16,
)
torch.manual_seed(0)
model = ViltModel(config).eval()
words, picture = torch.tensor([[1, 2, 3]]), torch.randn(1, 3, 64, 64)

def outputs():
    with torch.no_grad():
        return model(input_ids=words, pixel_values=picture).last_hidden_state[0]

one, other = outputs(), outputs()
text = (one[:3] - other[:3]).abs().max().item()
image = (one[4:] - other[4:]).abs().max().item()
nearest = torch.cdist(one[4:], other[4:]).min(1)
print(f"transformers {version('transformers')}, evaluation mode, the same input twice")
print(f"outputs of words differ by {text:.1e}, of patches by {image:.3f}")
print(f"each patch's output is found in the other forward, within {nearest.values.max().item():.1e}, at places"
      f" {nearest.indices.tolist()}")
held = text < 1e-4 and image > 0.01 and nearest.values.max() < 1e-3
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
