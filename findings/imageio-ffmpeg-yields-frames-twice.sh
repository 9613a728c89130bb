#!/usr/bin/env bash
# One would swear: the frames that imageio-ffmpeg yields are the frames of the file, as many as its
#   count_frames_and_secs says.
# What happens: 120 frames of a recording with a variable rate come out as 239: ffmpeg is asked for raw video, and
#   repeats frames up to an even rate, 30 a second. count_frames_and_secs says 120. Of an MP4 of the same frames come
#   238, and its metadata give the mean rate of 15.38 for them: index over fps is twice the time.
# Seen with: imageio-ffmpeg 0.8.1 and the ffmpeg in its wheel; files written by PyAV 18.1.0.
# Why it matters: recordings of phones, screens and calls have a variable rate. Labels per frame, boxes, and features
#   that another reader made no longer match by index, and frames taken at index / fps drift against the sound. Read
#   the times of frames.
# In equimodal: media are placed by the times of frames (equimodal.data.media).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet imageio-ffmpeg==0.8.1 av==18.1.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np

times = [k / 30 for k in range(60)] + [2 + k / 10 for k in range(60)]


def write(path):
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 2 * index, "uint8"), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


print(f"imageio-ffmpeg {version('imageio-ffmpeg')}, ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}")
held = True
for path in ("variable.mkv", "variable.mp4"):
    write(path)
    with av.open(path) as file:
        stored = [frame.time for frame in file.decode(video=0)]
    frames = imageio_ffmpeg.read_frames(path)
    about = next(frames)
    yielded, (counted, _) = sum(1 for _ in frames), imageio_ffmpeg.count_frames_and_secs(path)
    print(f"{path}: stored {len(stored)}, counted {counted}, yielded {yielded} at {about['fps']} frames a second")
    print(f"  the last at {stored[-1]:.2f} s, by its index at {(yielded - 1) / about['fps']:.2f} s")
    held = held and len(stored) == counted == 120 and yielded > 200
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
