#!/usr/bin/env bash
# One would swear: reading an array some of whose data did not arrive is an error.
# What happens: a chunk that is not in the folder reads as the fill value, zero by default, without a word. And since
#   chunks that hold nothing but zeros are not written, no reader can tell a lost chunk from a silent one.
# Seen with: zarr 3.1.6.
# Why it matters: replay buffers of robots are kept in zarr, one array per camera. A copy that broke off gives a camera
#   that is black in some episodes: a modality that loses, for a reason no training log shows. Use a fill value that
#   cannot occur (NaN), or count the chunks (nchunks_initialized) with write_empty_chunks.
# In equimodal: not met yet; what `equimodal prepare` keeps are Parquet files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet zarr==3.1.6 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr

camera = zarr.create_array("camera.zarr", shape=(4, 3), chunks=(1, 3), dtype="float32")
camera[:] = np.arange(1, 13).reshape(4, 3)
Path("camera.zarr/c/2/0").unlink()
read = zarr.open_array("camera.zarr", mode="r")[:]

dark = zarr.create_array("dark.zarr", shape=(4, 3), chunks=(1, 3), dtype="float32")
dark[:] = 0
print(f"zarr {version('zarr')}")
print(f"third chunk lost:\n{read}")
print(f"array of zeros, wholly written: {dark.nchunks_initialized} of {dark.nchunks} chunks exist")
held = (read[2] == 0).all() and (read[[0, 1, 3]] > 0).all() and dark.nchunks_initialized == 0
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
