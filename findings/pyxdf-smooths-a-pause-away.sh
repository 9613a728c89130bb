#!/usr/bin/env bash
# One would swear: where a sensor dropped out for four seconds, its time stamps in a recording of the Lab Streaming
#   Layer jump by four seconds; all samples keep the time that they were stamped with, to within their jitter.
# What happens: load_xdf smooths time stamps by default, and lays one straight line through all that is not parted by
#   500 samples or more, which is ten seconds at 50 Hz. The largest step is then 22 ms, samples before the pause come
#   up to 2.2 seconds early, those behind it up to 1.8 seconds late. Nothing is said while the rate is off by less than
#   10 %.
# Seen with: pyxdf 1.17.5.
# Why it matters: wireless EMG, EEG and gloves drop out like this, beside a camera that does not. Windows around events
#   are cut from another moment than the pictures, by another error in each recording. Pass dejitter_timestamps=False,
#   or a lower jitter_break_threshold_samples.
# In equimodal: not met yet; recordings of sensors come in as arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyxdf==1.17.5 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import struct

import numpy as np
import pyxdf


def chunk(tag, *parts):
    body = struct.pack("<H", tag) + b"".join(parts)
    return b"\x04" + struct.pack("<I", len(body)) + body


def sample(time, value):
    return b"\x08" + struct.pack("<df", time, value)


stamped = np.arange(3000) / 50 + 100
stamped = stamped[(stamped < 120) | (stamped >= 124)]
number = struct.pack("<I", 1)
header = b"<info><name>EMG</name><type>EMG</type><channel_count>1</channel_count><nominal_srate>50</nominal_srate>"
header += b"<channel_format>float32</channel_format></info>"
samples = b"".join(sample(time, 0.0) for time in stamped)
offsets = [chunk(4, number, struct.pack("<dd", time, 0.0)) for time in range(100, 161, 5)]
with open("emg.xdf", "wb") as file:
    file.write(b"XDF:" + chunk(1, b"<info><version>1.0</version></info>") + chunk(2, number, header))
    file.write(chunk(3, number, b"\x04", struct.pack("<I", len(stamped)), samples) + b"".join(offsets))
    file.write(chunk(6, number, b"<info><sample_count>%d</sample_count></info>" % len(stamped)))
print(f"pyxdf {version('pyxdf')}")
errors = {}
for smooth in (True, False):
    stream = pyxdf.load_xdf("emg.xdf", dejitter_timestamps=smooth)[0][0]
    times, rate = stream["time_stamps"], stream["info"]["effective_srate"]
    errors[smooth] = times - stamped
    span = f"{errors[smooth].min():+.2f} to {errors[smooth].max():+.2f} s"
    print(f"dejitter_timestamps={smooth}: off by {span}, largest step {np.diff(times).max():.2f} s, {rate:.1f} Hz")
held = errors[True].min() < -2 and errors[True].max() > 1.5 and abs(errors[False]).max() < 1e-6
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
