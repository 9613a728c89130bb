#!/usr/bin/env bash
# One would swear: sound and pictures of one file, read by decord, are on one clock: the click at two seconds is at two
#   seconds.
# What happens: AudioReader puts the first sample at zero, whenever the sound begins. In a recording whose sound begins
#   half a second after the pictures, the click comes at 1.52 s, while VideoReader gives the flash at 2.00 s. AVReader,
#   of the same package, has both in frame 50.
# Seen with: decord 0.6.0; file written by PyAV 18.1.0.
# Why it matters: cut clips, screen recordings and calls often begin with one of the two. The loaders of video models
#   take VideoReader and AudioReader, and get sound early by another amount for each file. Read the start of the stream
#   with PyAV and pad.
# In equimodal: media are placed by their own clocks (equimodal.data.media).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet decord==0.6.0 av==18.1.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

from fractions import Fraction

import av
import decord
import numpy as np

RATE = 48000
with av.open("late.mkv", "w") as file:
    pictures, sound = file.add_stream("libx264", rate=25), file.add_stream("aac", rate=RATE)
    pictures.width = pictures.height = 64
    pictures.pix_fmt, sound.layout = "yuv420p", "mono"
    for index in range(125):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255 * (index == 50), "uint8"), format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        file.mux(pictures.encode(frame))
    file.mux(pictures.encode())
    wave = np.zeros((1, 5 * RATE), "float32")
    wave[0, 72000:72200] = 0.8 * np.sin(np.arange(200) / 2)  # 1.5 s after 0.5 s
    for start in range(0, wave.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(wave[:, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, RATE // 2 + start, Fraction(1, RATE)
        file.mux(sound.encode(frame))
    file.mux(sound.encode())


def loud(samples):
    return np.abs(samples.asnumpy()[0]) > 0.2


video = decord.VideoReader("late.mkv")
flash = next(video.get_frame_timestamp(k)[0] for k in range(len(video)) if video[k].asnumpy().mean() > 100)
click = loud(decord.AudioReader("late.mkv", mono=True)[:]).argmax() / RATE
both = decord.AVReader("late.mkv", mono=True)
joint = [k for k in range(len(both)) if loud(both[k][0]).any()]
print(f"decord {version('decord')}; flash and click were written at 2.00 s")
print(f"VideoReader: {flash:.2f} s; AudioReader: {click:.2f} s; AVReader: click in frame {joint}, of 25 a second")
held = abs(flash - 2) < 0.01 and abs(click - 1.5) < 0.05 and joint == [50]
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
