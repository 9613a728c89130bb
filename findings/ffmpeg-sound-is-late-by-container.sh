#!/usr/bin/env bash
# One would swear: sound that goes into a file at one second comes out at one second, in whatever container.
# What happens: out of MP4 it does; out of FLV and MPEG-TS with AAC it comes 1024 samples late (23 ms at 44.1
#   kHz), out of AVI with MP3 1105, out of MPEG-PS with AC-3 256: what the codec puts first is trimmed only
#   where the container tells.
# Seen with: PyAV 18.1.0 and the FFmpeg in its wheel.
# Why it matters: data sets of talking faces come as FLV (CREMA-D) and MPEG (GRID), and are then converted by
#   some and not by others. Sound against lips shifts by half a frame or more between copies of one data set,
#   and between audio files and the sound in the video.
# In equimodal: media are placed by their own clocks (equimodal.data.media); what a codec adds in these
#   containers is worth a table in docs/raw-data.md.
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

rate = 44100

def late(name, video, audio):
    wave = np.zeros(3 * rate, np.int16)
    wave[rate] = 30000
    with av.open(name, "w") as file:
        pictures = file.add_stream(video, rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream(audio, rate=rate, layout="mono")
        packets = []
        for n in range(75):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            frame.pts = n
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], layout="mono")
            frame.sample_rate, frame.pts = rate, start
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            file.mux(packet)
    with av.open(name) as file:
        resampler = av.AudioResampler("s16", "mono", rate)
        read = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return int(np.concatenate(read).argmax()) - rate

expected = {
    ("a.mp4", "mpeg4", "aac"): 0,
    ("a.flv", "flv", "aac"): 1024,
    ("a.ts", "mpeg2video", "aac"): 1024,
    ("a.avi", "mpeg4", "libmp3lame"): 1105,
    ("a.mpg", "mpeg2video", "ac3"): 256,
}
found = {key: late(*key) for key in expected}
print(f"PyAV {version('av')}")
for (name, _, audio), samples in found.items():
    print(f"{name} with {audio}: late by {samples} samples")
held = all(abs(found[key] - samples) <= 2 for key, samples in expected.items())
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
