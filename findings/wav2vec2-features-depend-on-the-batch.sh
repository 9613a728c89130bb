#!/usr/bin/env bash
# One would swear: the input that the extractor of Wav2Vec2 makes of a clip has mean 0 and variance 1, whatever
#   else is in the batch.
# What happens: with its defaults, mean and variance are taken after padding. A clip of half a second beside one
#   of two seconds comes out twice as loud as alone, and its padding is not zero.
# Seen with: transformers 5.24.0 (Wav2Vec2FeatureExtractor, return_attention_mask=False by default).
# Why it matters: the same clip gets another embedding in another batch. In a diagnosis that takes sounds from
#   other samples, loudness tells which clip was short, and Shapley values over modalities move with the batch
#   size. Pass return_attention_mask=True, or cut clips to one length first.
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
from transformers import Wav2Vec2FeatureExtractor

rng = np.random.default_rng(0)
short, long = (rng.normal(scale=0.1, size=n).astype("float32") for n in (8000, 32000))
options = {"sampling_rate": 16000, "return_tensors": "np", "padding": True}
extract = Wav2Vec2FeatureExtractor()
alone = extract(short, **options).input_values[0]
beside = extract([short, long], **options).input_values[0]
masked = extract([short, long], return_attention_mask=True, **options).input_values[0]
print(f"transformers {version('transformers')}")
print(f"deviation of the short clip alone: {alone.std():.3f}; beside the long one: {beside[:8000].std():.3f}")
print(f"with return_attention_mask=True: {masked[:8000].std():.3f}; padding: {beside[8000]:.5f}, {masked[8000]:.5f}")
held = abs(alone.std() - 1) < 0.01 and beside[:8000].std() > 1.9 and abs(masked[:8000].std() - 1) < 0.01
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
