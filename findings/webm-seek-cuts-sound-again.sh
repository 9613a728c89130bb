#!/usr/bin/env bash
# One would swear: after a seek in WebM, sound is what it is without the seek.
# What happens: the first frame of Opus loses its first 312 samples, as it does at the start of a file where
#   they are the codec's: it holds 648 samples in place of 960, and its time is 7 ms later.
# Seen with: PyAV 18.1.0 and the FFmpeg in its wheel (libopus, Matroska).
# Why it matters: a loader that seeks to a random second of each clip and counts samples from the packet's time
#   puts sound 6.5 ms early against its pictures. Seek earlier than needed and drop what comes first.
# In equimodal: sound is taken only from half a second after a seek (equimodal.data.media.track).
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
def frames(start):
    with av.open("a.webm") as file:
        stream = file.streams.audio[0]
        if start:
            file.seek(start, stream=stream)
        return [(frame.pts, frame.samples) for frame in file.decode(stream) if frame.pts >= 5480][:3]

plain, sought = frames(0), frames(5500)
print(f"PyAV {version('av')}, frames as (milliseconds, samples)")
print(f"decoded from the start: {plain}")
print(f"after a seek to 5.5 s: {sought}")
held = (5494, 960) in plain and sought[0][1] == 648 and sought[1] in plain
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
