#!/usr/bin/env bash
# One would swear: with accumulation over four batches, the optimizer steps on means over four batches; what is
#   left at the end of an epoch is averaged over what is left.
# What happens: the last step of an epoch of six batches takes two batches and divides them by four: half the
#   gradient of the others.
# Seen with: accelerate 1.15.0.
# Why it matters: the same batches weigh half, in each epoch, and a rule that compares gradients or updates
#   between steps sees a jump at the end. Under a sampler that keeps modalities together, it is one modality
#   that comes last.
# In equimodal: evidence is summed over what was accumulated, not over what was planned; the size of that last
#   gradient is left to Accelerate.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet accelerate==1.15.0 torch==2.13.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from accelerate import Accelerator

accelerator = Accelerator(gradient_accumulation_steps=4, cpu=True)
model = torch.nn.Linear(1, 1, bias=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = torch.utils.data.DataLoader(torch.ones(6, 1), batch_size=1)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
steps = []
for batch in loader:
    with accelerator.accumulate(model):
        accelerator.backward(model(batch).mean())
        if accelerator.sync_gradients:
            steps.append(model.weight.grad.item())
        optimizer.step()
        optimizer.zero_grad()
print(f"accelerate {version('accelerate')}, six batches whose gradients are 1 each, four to a step")
print(f"gradient at each step: {steps}")
held = steps == [1.0, 0.5]
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
