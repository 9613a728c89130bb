#!/usr/bin/env bash
# One would swear: sound in [-1, 1] is the valid range of a float signal; +1.0 is the loudest sample there is.
# What happens: the signal is multiplied by 32768 and cast to 16 bits, so that +1.0 becomes -1.0. Clipped speech, whose
#   crests are flat at +1.0, gets each crest turned over: loudness +71 %, spectral flux more than twice. Clipped at
#   0.9999 it is as it should be. Read from an MP3, which overshoots, it is louder still. Nothing is said.
# Seen with: opensmile 2.6.0. Files of 16 bits never reach +1.0 and are right.
# Why it matters: eGeMAPS is the standard set of features for emotion in speech, and people clip when they shout.
#   Clipping then reads as arousal, in the audio alone, and copies of one data set as WAV and as MP3 differ. Multiply
#   by less than one first.
# In equimodal: not met; features are taken as the user's extractor gives them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet opensmile==2.6.0 audinterface==1.4.0 soundfile==0.14.0 pandas==2.3.3 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import opensmile
import soundfile

rate = 16000
time = np.arange(2 * rate) / rate
voice = sum(np.sin(2 * np.pi * 150 * k * time + k) / k for k in range(1, 8)) * (1 + 0.3 * np.sin(2 * np.pi * 3 * time))
voice = 1.5 * voice / np.abs(voice).max()
soundfile.write("clipped.mp3", voice.clip(-1, 1), rate)
extract = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
rows = {
    "clipped at 0.9999": extract.process_signal(voice.clip(-0.9999, 0.9999).astype("float32"), rate),
    "clipped at 1": extract.process_signal(voice.clip(-1, 1).astype("float32"), rate),
    "clipped at 1, from an MP3": extract.process_file("clipped.mp3"),
}
print(f"opensmile {version('opensmile')}")
seen = [row[["loudness_sma3_amean", "spectralFlux_sma3_amean"]].iloc[0].to_numpy() for row in rows.values()]
for name, (loudness, flux) in zip(rows, seen):
    print(f"{name}: loudness {loudness:.2f}, spectral flux {flux:.2f}")
held = all(other[0] > 1.5 * seen[0][0] and other[1] > 1.8 * seen[0][1] for other in seen[1:])
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
