#!/usr/bin/env bash
# One would swear: reading an EDF file gives each channel as it was recorded; if a slow channel must be brought to the
#   rate of a fast one, its values stay within the range of the recording.
# What happens: MNE brings every channel to the highest rate in the file with an FFT. A respiration channel of 16 Hz
#   beside EEG of 256 Hz comes back sixteen times as long, and a step from 0 to 50 rings from -7 to 57. Read alone, the
#   same channel of the same file has 16 Hz and lies between 0 and 50.
# Seen with: MNE 1.13.2 and pyEDFlib 0.1.42.
# Why it matters: what a modality looks like depends on which others are read with it, and it rings before events, so
#   that a model sees the future. Read modalities of different rates one by one (include=).
# In equimodal: not met yet; physiological files come in as arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mne==1.13.2 pyEDFlib==0.1.42 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import mne
import numpy as np
import pyedflib

seconds, fast, slow = 4, 256, 16
breath = np.zeros(seconds * slow)
breath[len(breath) // 2 :] = 50
headers = [
    pyedflib.highlevel.make_signal_header(
        name, dimension="uV", sample_frequency=rate, physical_min=-100, physical_max=100
    )
    for name, rate in (("EEG", fast), ("RESP", slow))
]
with pyedflib.EdfWriter("a.edf", 2, file_type=pyedflib.FILETYPE_EDF) as writer:
    writer.setSignalHeaders(headers)
    writer.writeSamples([np.random.default_rng(0).normal(size=seconds * fast), breath])

def read(**options):
    raw = mne.io.read_raw_edf("a.edf", verbose="error", **options)
    return raw.get_data(picks="RESP")[0] * 1e6, raw.info["sfreq"]

together, rate = read()
alone, own_rate = read(include=["RESP"])
print(f"MNE {version('mne')}")
print(f"alone: {own_rate} Hz, {len(alone)} samples, {alone.min():.1f} to {alone.max():.1f}")
print(f"beside EEG: {rate} Hz, {len(together)} samples, {together.min():.1f} to {together.max():.1f}")
held = own_rate == slow and rate == fast and abs(alone.max() - 50) < 0.1 and together.max() > 55 and together.min() < -5
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
