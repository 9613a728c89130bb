#!/usr/bin/env bash
# One would swear: log-mel features of one sound are the same each time.
# What happens: the default options add noise (dither of 3e-5, drawn anew with each extractor and by no
#   generator that can be seeded from Python). For a pure tone in [-1, 1], single features differ by more than
#   one natural logarithm between two extractions; with dither = 0 they agree in every bit.
# Seen with: kaldi-native-fbank 1.23.0.
# Why it matters: features computed in the loader and features in the cache differ, and so do audio as it is and
#   audio that was to be left alone. In bands where there is no sound the encoder learns the dither. Set
#   frame_opts.dither = 0.
# In equimodal: spectrograms are compared with this package with dither off
#   (tests/unit/data/batches/test_batch_spectrograms.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet kaldi-native-fbank==1.23.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import kaldi_native_fbank as knf
import numpy as np

tone = np.sin(0.1 * np.arange(16000)).astype("float32")

def features(dither=None):
    options = knf.FbankOptions()
    if dither is not None:
        options.frame_opts.dither = dither
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, tone.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])

apart = np.abs(features() - features()).max()
calm = np.abs(features(0) - features(0)).max()
print(f"kaldi-native-fbank {version('kaldi-native-fbank')}")
print(f"largest difference of two extractions: {apart:.2f}; without dither: {calm}")
held = apart > 0.1 and calm == 0
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
