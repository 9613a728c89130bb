#!/usr/bin/env bash
# One would swear: with a gradient of zero, what is left of the movement is momentum, and dies away in some tens of
#   steps, as with SGD.
# What happens: Muon makes the momentum orthogonal, and so brings it back to full size: the weights move at full speed,
#   in the old direction, for more than 300 steps after the last gradient, until the momentum has all but vanished. SGD
#   with the same momentum is at 18 % after 30 steps and below 1 % after 100. Only a gradient of None stops it.
# Seen with: torch 2.13.0 (torch.optim.Muon).
# Why it matters: zeros are what the encoder of a missing modality gets from a batch, and what a coefficient of zero
#   makes of a leading one. It is not paused: it walks on along the last batch that it saw. Set gradients to None.
# In equimodal: space="update" scales what the optimizer makes of gradients, and a coefficient of 0 is a stop there
#   (docs/optimizers.md).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import torch

torch.manual_seed(0)
gradients = torch.randn(10, 8, 8)
print(f"torch {version('torch')}")
seen = {}
for name, settings in (("Muon", {"weight_decay": 0.0}), ("SGD", {"momentum": 0.95, "nesterov": True})):
    weight = torch.nn.Parameter(torch.zeros(8, 8))
    optimizer = getattr(torch.optim, name)([weight], lr=0.01, **settings)
    moved = []
    for step in range(310):
        before = weight.detach().clone()
        weight.grad = gradients[step] if step < 10 else torch.zeros(8, 8)
        optimizer.step()
        moved.append((weight.detach() - before).norm().item())
    seen[name] = [moved[9 + after] / moved[9] for after in (1, 30, 100, 300)]
    lengths = ", ".join(f"{length:.2f}" for length in seen[name])
    print(f"{name}: steps 1, 30, 100, 300 after the last gradient, in lengths of the last one with it: {lengths}")
    weight.grad, before = None, weight.detach().clone()
    optimizer.step()
    stopped = torch.equal(weight, before)
    print(f"  with a gradient of None it stops: {stopped}")
held = stopped and min(seen["Muon"]) > 0.9 and seen["SGD"][1] < 0.3 and seen["SGD"][2] < 0.01
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
