#!/usr/bin/env bash
# One would swear: what was encoded and flushed comes out again, to the last sample, give or take the loss of
#   the codec.
# What happens: FFmpeg's MP2 encoder delays by 481 samples and has nothing to flush: a click 200 samples before
#   the end is not in the file, although the file is as long as the sound.
# Seen with: PyAV 18.1.0 and the FFmpeg in its wheel.
# Why it matters: MPEG files with MP2 are the format of GRID. Clips cut and encoded again lose 10 ms of sound at
#   each end of each clip, while their pictures stay.
# In equimodal: nothing is encoded again on the way from a download to batches.
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

rate = 48000
wave = np.zeros(1152 * 40, np.int16)
wave[-200] = 30000
with av.open("a.mp2", "w", format="mp2") as file:
    stream = file.add_stream("mp2", rate=rate, layout="mono")
    for start in range(0, len(wave), 1152):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1152], layout="mono")
        frame.sample_rate, frame.pts = rate, start
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
with av.open("a.mp2") as file:
    resampler = av.AudioResampler("s16", "mono", rate)
    read = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in resampler.resample(frame)]
out = np.concatenate(read).astype(int)
print(f"PyAV {version('av')}")
print(f"{len(wave)} samples in, {len(out)} out; the click of 30000 comes out as {np.abs(out).max()}")
held = np.abs(out).max() < 5000 and len(out) >= len(wave)
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
