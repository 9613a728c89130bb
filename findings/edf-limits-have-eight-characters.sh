#!/usr/bin/env bash
# One would swear: a signal written to EDF with its own physical limits comes back to within one of 65536 steps,
#   and zero comes back as zero.
# What happens: EDF keeps each limit in eight characters. A signal in volts of +-0.00012345678 gets the limits
#   0.000123 and -0.00012 (the minus sign costs a digit): the amplitude is off by 1.6 % and zero becomes 1.5 microvolts.
#   pyEDFlib says so in warnings of Python only, which many programs silence.
# Seen with: pyEDFlib 0.1.42.
# Why it matters: in sets of EEG, ECG and video, every file gets limits, hence a gain and an offset, of its own. An
#   encoder can read the recording from the offset alone. Write microvolts, or limits that fit in eight characters.
# In equimodal: not met yet; physiological files come in as arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyEDFlib==0.1.42 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import pyedflib

limit = 0.00012345678
signal = limit * np.sin(np.arange(1000) / 10)
signal[:100] = 0
header = pyedflib.highlevel.make_signal_header(
    "EEG", dimension="V", sample_frequency=100, physical_min=-limit, physical_max=limit
)
with pyedflib.EdfWriter("a.edf", 1) as writer:
    writer.setSignalHeaders([header])
    writer.writeSamples([signal])
with pyedflib.EdfReader("a.edf") as reader:
    read = reader.readSignal(0)
    limits = reader.getPhysicalMinimum(0), reader.getPhysicalMaximum(0)

gain = np.ptp(read) / np.ptp(signal)
print(f"pyEDFlib {version('pyEDFlib')}")
print(f"limits asked for: {-limit}, {limit}; in the file: {limits}")
print(f"amplitude read / written: {gain:.4f}; zero reads as {read[50] * 1e6:.2f} microvolts")
held = limits == (-0.00012, 0.000123) and abs(gain - 0.984) < 1e-3 and abs(read[50] - 1.5e-6) < 1e-7
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
