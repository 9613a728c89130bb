#!/usr/bin/env bash
# One would swear: two modalities have four subsets, so a budget of four evaluations gives their exact Shapley values
#   with any estimator of shapiq; at the least, the values add up to what both have together.
# What happens: with kernel estimators and SVARM they are exact (2.5 and 3.5). StratifiedSamplingSV gives 1 and 2, with
#   any seed: what each has alone, the synergy of 3 is gone. OwenSamplingSV gives 1 and 0. PermutationSamplingSV gives
#   the whole synergy to one of the two, or halves it, by the seed. They count one subset several times, and what was
#   not reached stays zero. No warning; only result.estimated is True.
# Seen with: shapiq 1.4.1.
# Why it matters: Shapley values over modalities have two to four players, far below what these estimators were made
#   for. Read as they are, a model that joins its modalities looks as if it did not. Use ExactComputer.
# In equimodal: Shapley values of up to eight modalities are computed from all subsets (equimodal.diagnostics).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet shapiq==1.4.1 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import shapiq


def game(coalitions):
    audio, visual = np.atleast_2d(coalitions).astype(float).T
    return audio + 2 * visual + 3 * audio * visual


print(f"shapiq {version('shapiq')}; both together have 6.0, exact values are 2.5 and 3.5")
seen = {}
for name in ("KernelSHAP", "SVARM", "StratifiedSamplingSV", "OwenSamplingSV", "PermutationSamplingSV"):
    estimator = getattr(shapiq.approximator, name)
    found = [estimator(n=2, random_state=seed).approximate(budget=4, game=game) for seed in range(3)]
    seen[name] = [value.get_n_order_values(1).round(2).tolist() for value in found]
    print(f"{name}: {seen[name]}, estimated: {found[0].estimated}")
held = seen["KernelSHAP"] == seen["SVARM"] == [[2.5, 3.5]] * 3 and seen["StratifiedSamplingSV"] == [[1, 2]] * 3
raise SystemExit(0 if held and seen["OwenSamplingSV"] == [[1, 0]] * 3 else "the behaviour has changed")
PYTHON
