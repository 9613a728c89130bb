#!/usr/bin/env bash
# One would swear: after a seek in WebM the first frame of Opus that is decoded is as long as the others.
# What happens: its first 312 samples are dropped again, as at the start of the file, and its time is only a
#   guess at the millisecond: it holds 648 samples in place of 960.
# Seen with: PyAV 18.1.0 and the FFmpeg in its wheel (libopus, Matroska).
# Why it matters: loaders that seek to a random second of each clip get sound that is 6.5 ms short, or early
#   against its pictures, whenever the first frame is counted from its pts. Seek earlier than needed and drop
#   the first frame.
# In equimodal: media are decoded from the start of a clip; a loader of ours that seeks needs a test of this
#   kind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import av
import numpy as np

with av.open("a.webm", "w") as file:
    stream = file.add_stream("libopus", rate=48000, layout="mono")
    for start in range(0, 6 * 48000, 960):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), layout="mono")
        frame.sample_rate, frame.pts = 48000, start
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
with av.open("a.webm") as file:
    stream = file.streams.audio[0]
    file.seek(1200, stream=stream)
    frames = [(frame.pts, frame.samples) for _, frame in zip(range(3), file.decode(stream))]
print(f"PyAV {version('av')}")
print(f"frames after a seek to 1.2 s (milliseconds, samples): {frames}")
held = frames[0][1] < 960 and frames[1][1] == 960
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
