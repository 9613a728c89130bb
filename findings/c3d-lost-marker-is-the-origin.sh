#!/usr/bin/env bash
# One would swear: two readers of C3D give the same positions of markers for the same file, and a marker that the
#   cameras lost is not a number in both.
# What happens: ezc3d gives NaN, the package c3d gives the position (0, 0, 0), the origin of the laboratory, and says
#   that the marker was lost only in a fourth column (residual -1), which loaders cut away with [:, :3].
# Seen with: c3d 0.6.0 and ezc3d 1.7.2.
# Why it matters: with one reader a gap is caught by any check for finite values; with the other, motion jumps to the
#   origin and back. Whoever fills missing modalities by NaN misses these.
# In equimodal: not met yet; motion capture comes in as arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet c3d==0.6.0 ezc3d==1.7.2 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import c3d
import ezc3d
import numpy as np

points = np.full((3, 2, 5), 7.0)  # axis, marker, frame
points[:, 1, 2] = np.nan
file = ezc3d.c3d()
file["parameters"]["POINT"]["RATE"]["value"] = [100]
file["parameters"]["POINT"]["LABELS"]["value"] = ["HEAD", "HAND"]
file["data"]["points"] = points
file.write("a.c3d")

one = ezc3d.c3d("a.c3d")["data"]["points"][:3, 1, 2]
with open("a.c3d", "rb") as handle:
    frames = [points.copy() for _, points, _ in c3d.Reader(handle).read_frames()]
other = frames[2][1]
print(f"ezc3d {version('ezc3d')}: the lost hand is at {one}")
print(f"c3d {version('c3d')}: the lost hand is at {other[:3]}, residual {other[3]}")
held = np.isnan(one).all() and (other[:3] == 0).all() and other[3] == -1
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
