#!/usr/bin/env bash
# One would swear: where a short clip is padded, the features of the Audio Spectrogram Transformer are those of silence.
# What happens: the mel frames are padded with 0 before they are normalised, and 0 is the log of an energy far above
#   silence. True silence is -1.28 in the features, padding is +0.47: louder than white noise of amplitude 0.1.
# Seen with: transformers 5.24.0 (ASTFeatureExtractor).
# Why it matters: a clip of 1 s is followed by 9 s of a loud wall, and its length can be read from it. Who blanks the
#   audio by a zero waveform compares silence with that wall; fill to the full length before the extractor.
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
from transformers import ASTFeatureExtractor

extract = ASTFeatureExtractor()

def features(wave):
    return extract(wave, sampling_rate=16000, return_tensors="np").input_values[0]

silence = features(np.zeros(16000, "float32"))
noise = features(np.random.default_rng(0).normal(scale=0.1, size=16000).astype("float32"))
print(f"transformers {version('transformers')}, features {silence.shape}")
print(f"a second of silence: {silence[:90].mean():.3f}; of white noise: {noise[:90].mean():.3f}")
print(f"the padding behind either: {silence[200:].mean():.3f}, {noise[200:].mean():.3f}")
held = silence[:90].max() < -1.2 and silence[200:].min() > 0.46 and silence[200:].min() > noise[:90].mean()
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
