#!/usr/bin/env bash
# One would swear: an EDF+ file whose recording was paused (EDF+D) is read with the pause in it, or refused.
# What happens: MNE joins the pieces without a word: 38 seconds with two pauses come back as 24 in a row. The onsets of
#   annotations stay on the clock of the recording: an event noted while the signal was 600 microvolts is at 20.5 s,
#   and there the joined signal is 2000 microvolts. pyEDFlib refuses the file.
# Seen with: MNE 1.13.2 and pyEDFlib 0.1.42.
# Why it matters: long recordings of EEG with video are saved with cuts. From the first cut on, EEG and video, and EEG
#   and its own events, are apart by the length of all cuts, and a model that should learn from both learns that they
#   are unrelated. Look for EDF+D in bytes 192 to 197, and add up the onsets of the records yourself.
# In equimodal: not met yet; physiological files come in as arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mne==1.13.2 pyEDFlib==0.1.42 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import warnings

import mne
import numpy as np
import pyedflib

RATE, ROOM = 10, 80
onsets = [0, 1, 2, 3, 4, 15, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37]


def fields(width, *values):
    return b"".join(str(value).ljust(width).encode() for value in values)


def record(index, onset):
    notes = f"+{onset}\x14\x14\x00" + (f"+{onset}.5\x14event\x14\x00" if onset == 20 else "")
    return np.full(RATE, index * 100, "<i2").tobytes() + notes.encode().ljust(ROOM, b"\0")


header = fields(8, 0) + fields(80, "X X X X", "Startdate 01-JAN-2020 X X X") + fields(8, "01.01.20", "00.00.00", 768)
header += fields(44, "EDF+D") + fields(8, len(onsets), 1) + fields(4, 2) + fields(16, "EEG Fz", "EDF Annotations")
header += fields(80, "", "") + fields(8, "uV", "", -32768, -1, 32767, 1, -32768, -32768, 32767, 32767)
header += fields(80, "", "") + fields(8, RATE, ROOM // 2) + fields(32, "", "")
with open("paused.edf", "wb") as file:
    file.write(header + b"".join(record(index, onset) for index, onset in enumerate(onsets)))
print(f"MNE {version('mne')}, pyEDFlib {version('pyEDFlib')}")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    raw = mne.io.read_raw_edf("paused.edf", preload=True, verbose="warning")
(event,) = raw.annotations
value = raw.get_data()[0, round(event["onset"] * RATE)] * 1e6
print(f"recorded: {onsets[-1] + 1} s with pauses, event at 20.5 s while the signal was 600 uV")
print(f"MNE: {len(raw.times) / RATE:.0f} s, at {event['onset']} s the signal is {value:.0f} uV; warnings: {len(said)}")
try:
    pyedflib.EdfReader("paused.edf")
    refused = False
except OSError as error:
    refused = True
    print(f"pyEDFlib: {error}")
held = len(raw.times) == len(onsets) * RATE and event["onset"] == 20.5 and round(value) == 2000 and not said and refused
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
