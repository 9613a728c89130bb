#!/usr/bin/env bash
# One would swear: scaling all gradients of a parameter by 0.25 makes its steps smaller (as with SGD) or leaves
#   them as they are (as with Adam).
# What happens: with Kate the parameter moves four times as far: its step is in proportion to one over the
#   gradient.
# Seen with: pytorch_optimizer 4.1.0.
# Why it matters: every method that throttles the leading modality by a coefficient on its gradients pushes it
#   instead; clipping by norm does so for all.
# In equimodal: the trial of an optimizer measures it, says so, and its row is in the table of
#   docs/optimizers.md (tests/integration/test_arrival.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pytorch_optimizer==4.1.0 torch==2.13.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from pytorch_optimizer import load_optimizer

def distance(name, scale):
    weight = torch.nn.Parameter(torch.ones(5))
    optimizer = load_optimizer(name)([weight], lr=1e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        weight.grad = scale * (torch.randn(5, generator=draw) + 1)
        optimizer.step()
    return (weight.detach() - 1).norm().item()

ratios = {name: distance(name, 0.25) / distance(name, 1.0) for name in ("sgd", "adamw", "kate")}
print(f"pytorch_optimizer {version('pytorch_optimizer')}, gradients scaled by 0.25")
print("distance covered, as a multiple:", {name: round(ratio, 3) for name, ratio in ratios.items()})
held = ratios["kate"] > 3 and abs(ratios["sgd"] - 0.25) < 0.05 and abs(ratios["adamw"] - 1) < 0.05
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
