#!/usr/bin/env bash
# One would swear: a column of type float64 comes back as float64 when a data set is asked for NumPy arrays.
# What happens: `with_format('numpy')` makes it float32 without a word (so does the format 'torch'), although
#   the features say float64. Seconds since 1970 are then multiples of 128: two frames a minute apart have one
#   time.
# Seen with: datasets 5.2.0.
# Why it matters: cameras, microphones and robots are aligned by such time stamps. After the format is set,
#   nearest-in-time pairs the wrong frames, and no test on short made-up times shows it. Pass dtype:
#   `with_format('numpy', dtype=numpy.float64)`, or keep times from the start of the recording.
# In equimodal: not met yet; media are aligned by their own clocks, and no time stamps are read from tables.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
python3 -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import datasets
import numpy as np

times = [1764540000.25, 1764540060.5]
table = datasets.Dataset.from_dict({"time": times})
plain = table.with_format("numpy")[:]["time"]
asked = table.with_format("numpy", dtype=np.float64)[:]["time"]
print(f"datasets {version('datasets')}, the column is {table.features['time'].dtype}")
print(f"with_format('numpy'): {plain.dtype}, {plain.astype(float).tolist()}")
print(f"with dtype=float64: {asked.dtype}, {asked.tolist()}")
held = plain.dtype == np.float32 and plain[0] == plain[1] and asked.tolist() == times
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
