#!/usr/bin/env bash
# One would swear: not-a-number survives in a float data set of HDF5, as in any array of floats, whatever filter packs
#   it.
# What happens: with the scale-offset filter (scaleoffset=3 keeps three decimals) it comes back as a plain number from
#   the range of the others, here 1.5. In other places of a chunk it makes the chunk one that is written without a word
#   and cannot be read again.
# Seen with: h5py 3.16.0 and the HDF5 in its wheel.
# Why it matters: NaN is how missing samples of a sensor are marked, and this filter is what HDF5 offers to pack sensor
#   data small. What was missing becomes a value that could have been measured, so that masks for missing modalities
#   find nothing. Keep a mask of its own, or pack with gzip and shuffle, which lose nothing.
# In equimodal: not met yet; what `equimodal prepare` keeps are Parquet files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet h5py==3.16.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import h5py
import numpy as np

written = np.array([0.0, 1.5, np.nan, 2.25, 3.75], "float32")
with h5py.File("glove.h5", "w") as file:
    file.create_dataset("packed", data=written, scaleoffset=3)
    file.create_dataset("gzip", data=written, compression="gzip", shuffle=True)
with h5py.File("glove.h5") as file:
    packed, zipped = file["packed"][:], file["gzip"][:]
print(f"h5py {version('h5py')}, HDF5 {h5py.version.hdf5_version}")
print(f"written: {written.tolist()}\nread, scaleoffset=3: {packed.tolist()}\nread, gzip: {zipped.tolist()}")
held = np.isfinite(packed).all() and np.isnan(zipped[2])
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
