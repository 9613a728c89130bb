#!/usr/bin/env bash
# One would swear: after `b.load_state_dict(a.state_dict())` the two optimizers go their own ways.
# What happens: they share the tensors of their state: a step of b changes the momentum of a. load_state_dict
#   copies the dictionary but not tensors whose type and device agree. With Adam the count of steps is shared as
#   well.
# Seen with: torch 2.13.0.
# Why it matters: a method that trains copies of a model from the current state (to measure overfitting, or what
#   one modality gains) disturbs the run that it measures. Deep-copy the state first.
# In equimodal: copies of a model are trained with a deep copy of the state (equimodal.epochs.run).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch

def one(kind, **settings):
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    return weight, kind([weight], lr=0.1, **settings)

print(f"torch {version('torch')}")
held = True
for kind, settings, key in ((torch.optim.SGD, {"momentum": 0.9}, "momentum_buffer"), (torch.optim.Adam, {}, "step")):
    (first, a), (_, b) = one(kind, **settings), one(kind, **settings)
    a.step()
    before = a.state[first][key].item()
    b.load_state_dict(a.state_dict())
    b.step()
    after = a.state[first][key].item()
    print(f"{kind.__name__}: {key} of the first optimizer before {before:.2f}, after a step of the second {after:.2f}")
    held = held and before != after
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
