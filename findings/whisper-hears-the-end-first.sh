#!/usr/bin/env bash
# One would swear: the log-mel features of Whisper at a time depend on the sound around that time.
# What happens: all features are cut off at 8 decades (of power) below the loudest bin of the whole window. A
#   click in the last few milliseconds of two seconds changes the features of quiet noise at 0.1 s, which become
#   one flat value.
# Seen with: transformers 5.24.0 (WhisperFeatureExtractor).
# Why it matters: occluding or replacing a part of the audio changes the rest as well, so what such a test finds
#   for one stretch is partly due to others. Whether quiet speech before a loud event is there at all depends on
#   the event. Occlude features, not the waveform.
# In equimodal: not met; the fills of a diagnosis work on what enters the model, here the features. A page on
#   audio should say so.
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
from transformers import WhisperFeatureExtractor

quiet = np.random.default_rng(0).normal(scale=1e-4, size=32000).astype("float32")
click = quiet.copy()
click[-100:] = 0.9
extract = WhisperFeatureExtractor()

def early(wave):
    return extract(wave, sampling_rate=16000, return_tensors="np").input_features[0][:, 10]

before, after = early(quiet), early(click)
print(f"transformers {version('transformers')}")
print(f"features at 0.1 s: deviation {before.std():.3f}; with a click at 2 s: {after.std():.3f}")
held = before.std() > 0.02 and after.std() < 1e-6
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
