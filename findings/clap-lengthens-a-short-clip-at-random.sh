#!/usr/bin/env bash
# One would swear: the features of short sounds are a function of the sounds.
# What happens: with its default truncation ("fusion"), the extractor of CLAP marks one clip of each batch, drawn by
#   NumPy's global generator, as longer than ten seconds when none is. The fusing model then runs its other branch on
#   that clip. The same batch gives another mark at the next call.
# Seen with: transformers 5.24.0 (ClapFeatureExtractor).
# Why it matters: an audio embedding depends on a draw and on the size of the batch, in evaluation too. Comparing audio
#   as it is with audio blanked compares two draws. Use truncation="rand_trunc" for short clips, or set is_longer.
# In equimodal: not met; features are taken as the user's extractor gives them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from transformers import ClapFeatureExtractor

extract = ClapFeatureExtractor()
rng = np.random.default_rng(0)
sounds = [rng.normal(size=48000).astype("float32") for _ in range(6)]
np.random.seed(0)
marks = [extract(sounds, sampling_rate=48000, return_tensors="np").is_longer.ravel() for _ in range(8)]
print(f"transformers {version('transformers')}, truncation={extract.truncation!r}, six clips of one second")
print(f"which clip is said to be longer than ten seconds: {[m.tolist().index(True) for m in marks]}")
held = all(m.sum() == 1 for m in marks) and len({m.argmax() for m in marks}) > 1
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
