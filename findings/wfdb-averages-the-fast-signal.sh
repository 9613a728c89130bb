#!/usr/bin/env bash
# One would swear: rdrecord gives the samples of a record. Where signals have different rates, it gives each at its own,
#   or refuses.
# What happens: with the default smooth_frames=True, the faster signal is averaged down to the frame rate. An ECG of
#   400 Hz beside respiration of 100 Hz comes back with 100 samples a second; a wave whose period is one frame is gone,
#   and record.samps_per_frame still says [4, 1].
# Seen with: wfdb 4.3.1.
# Why it matters: the records of intensive care (ECG, blood pressure, respiration) have such signals. The ECG encoder
#   gets a quarter of its data without a word, and looks like the weaker modality. Pass smooth_frames=False.
# In equimodal: not met yet; physiological files come in as arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet wfdb==4.3.1 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import wfdb

ecg = np.tile([0.0, 1.0, 2.0, 3.0], 100)
breath = np.arange(100.0)
wfdb.wrsamp(
    "record", fs=100, units=["mV", "mV"], sig_name=["ecg", "resp"], fmt=["16", "16"],
    e_p_signal=[ecg, breath], samps_per_frame=[4, 1],
)
plain = wfdb.rdrecord("record")
whole = wfdb.rdrecord("record", smooth_frames=False)
print(f"wfdb {version('wfdb')}")
print(f"default: {plain.p_signal.shape}, ECG from {plain.p_signal[:, 0].min()} to {plain.p_signal[:, 0].max()},"
      f" samps_per_frame {plain.samps_per_frame}")
print(f"smooth_frames=False: lengths {[len(s) for s in whole.e_p_signal]},"
      f" ECG from {whole.e_p_signal[0].min()} to {whole.e_p_signal[0].max():.3f}")
held = (
    plain.p_signal.shape == (100, 2)
    and np.allclose(plain.p_signal[:, 0], 1.5, atol=1e-3)
    and plain.samps_per_frame == [4, 1]
    and np.allclose(whole.e_p_signal[0], ecg, atol=1e-3)
)
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
