#!/usr/bin/env bash
# One would swear: a parameter that is trained from step 1000 on is evaluated at a mean of its weights since
#   then.
# What happens: the mean's weight is counted by the steps of the group, not of the parameter. After ten steps
#   that moved it by 1.3, `optimizer.eval()` puts it at 0.08: nearly back where it began.
# Seen with: schedulefree 1.4.1 (AdamWScheduleFree).
# Why it matters: an encoder that is frozen at first, or a modality that is missing early on, is validated and
#   saved almost untrained, and looks like the modality that does not learn. Make a new optimizer when its
#   training starts.
# In equimodal: the arrival of coefficients with these optimizers is measured (docs/optimizers.md,
#   tests/integration/test_arrival.py); late starts are not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet schedulefree==1.4.1 torch==2.13.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import schedulefree
import torch

def moved(idle):
    early, late = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = schedulefree.AdamWScheduleFree([early, late], lr=0.1)
    optimizer.train()
    for step in range(idle + 10):
        early.grad = torch.ones(1)
        late.grad = torch.ones(1) if step >= idle else None
        optimizer.step()
    trained = late.item()
    optimizer.eval()
    return trained, late.item()

late, prompt = moved(1000), moved(0)
print(f"schedulefree {version('schedulefree')}, ten steps of lr 0.1 in one direction")
print(f"from the start: {prompt[0]:.3f} in training, {prompt[1]:.3f} in evaluation")
print(f"after 1000 steps without a gradient: {late[0]:.3f} in training, {late[1]:.3f} in evaluation")
held = abs(late[0]) > 1 and abs(late[1]) < 0.1 and abs(prompt[1]) > 0.4
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
