#!/usr/bin/env bash
# One would swear: an optimizer around another that inherits from Optimizer, sets param_groups and does not call
#   super().__init__() fails at once, or never.
# What happens: it steps; `zero_grad` works; and its second step raises AttributeError (no attribute
#   '_optimizer_step_pre_hooks'). zero_grad wraps the class's step with a profiler's, and that asks for the
#   hooks.
# Seen with: torch 2.13.0.
# Why it matters: wrappers of this kind are pasted into training scripts (SAM, Lookahead, gradient surgery). A
#   loop that sets gradients to None by hand never meets it; a test of one step passes.
# In equimodal: wrappers are hooked by the optimizer within and by the object's own step
#   (equimodal.update.wrappers).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch

class Around(torch.optim.Optimizer):
    def __init__(self, inner):
        self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state
        self.defaults = inner.defaults

    def step(self, closure=None):
        return self.inner.step(closure)

weight = torch.nn.Parameter(torch.ones(2))
around = Around(torch.optim.SGD([weight], lr=0.1))
weight.grad = torch.ones(2)
around.step()
around.step()
around.zero_grad()
error = None
try:
    around.step()
except AttributeError as raised:
    error = str(raised)
print(f"torch {version('torch')}")
print(f"two steps, zero_grad, then a step: {error}")
held = error is not None and "_optimizer_step_pre_hooks" in error
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
