#!/usr/bin/env bash
# One would swear: the latest pts + duration of the packets of a video is its end.
# What happens: with B-frames and a variable rate it lies seconds behind it: in MP4 the duration of a packet is
#   the distance to the next one in the order of decoding, so that a picture before a pause may carry the pause
#   of another.
# Seen with: PyAV 18.1.0 and the FFmpeg in its wheel (libx264).
# Why it matters: recordings of phones and screens have a variable rate. A length taken from packets stretches
#   the video against its sound, and frames picked evenly over it fall where there is no picture. Take pts
#   alone, sorted.
# In equimodal: media are placed by the times of frames (equimodal.data.media).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

from fractions import Fraction

import av
import numpy as np

base = Fraction(1, 12800)
times = [n / 25 for n in range(12)] + [3.0, 3.04, 3.08, 9.0] + [9.04 + n / 25 for n in range(23)]
with av.open("a.mp4", "w") as file:
    stream = file.add_stream("libx264", rate=25, options={"bf": "3"})
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    stream.codec_context.time_base = base
    for n, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * n, np.uint8))
        frame.pts, frame.time_base = round(time / base), base
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
with av.open("a.mp4") as file:
    stated = file.duration / 1e6
    end = max(float((p.pts + p.duration) * p.time_base) for p in file.demux() if p.size)
print(f"PyAV {version('av')}")
print(f"last picture at {max(times):.2f} s, stated length {stated:.2f} s, latest pts + duration {end:.2f} s")
held = abs(stated - max(times)) < 0.1 and end - stated > 1
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
