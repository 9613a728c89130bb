#!/usr/bin/env bash
# One would swear: the graph of log_softmax(x, dim=-1) remembers dim as -1, or as 1 for a matrix.
# What happens: `grad_fn._saved_dim` reads 18446744073709551615: -1 as an unsigned number of 64 bits. It neither
#   equals -1 nor is a valid dimension. So for softmax and cat, and in the tuple that sum keeps.
# Seen with: torch 2.13.0.
# Why it matters: tools that read the autograd graph, to tell logits from probabilities or classes from tokens,
#   take another branch exactly when the user wrote -1, as most do.
# In equimodal: read back as signed numbers (equimodal.criterion.maker).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch

x = torch.randn(2, 3, requires_grad=True)
minus = [
    torch.log_softmax(x, -1).grad_fn._saved_dim,
    torch.softmax(x, -1).grad_fn._saved_dim,
    torch.cat([x, x], -1).grad_fn._saved_dim,
]
plus = torch.log_softmax(x, 1).grad_fn._saved_dim
print(f"torch {version('torch')}")
print(f"dim=-1 is kept as {minus}; dim=1 as {plus}")
held = minus == [2**64 - 1] * 3 and plus == 1
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
