#!/usr/bin/env bash
# One would swear: whole numbers saved into a NIfTI file of an integer type come back as whole numbers.
# What happens: a segmentation that is a float array and takes the header of its scan (int16) is stretched over the
#   whole range of int16, with a slope in the header. Labels 1, 2, 3 come back as 0.99998, 1.99997, 2.99995: no
#   comparison with == holds, and a conversion to integers makes them 0, 1, 2.
# Seen with: nibabel 5.4.2.
# Why it matters: scan and labels are usually saved with one header. Models that learn from images and masks lose a
#   class, and classes trade places. Give integers, or round.
# In equimodal: not met yet; volumes come in as arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet nibabel==5.4.2 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import nibabel as nib
import numpy as np

scan = nib.Nifti1Image(np.zeros((2, 2, 2), "int16"), np.eye(4))
labels = np.arange(8.0).reshape(2, 2, 2)
nib.save(nib.Nifti1Image(labels, scan.affine, scan.header), "labels.nii")
read = nib.load("labels.nii").get_fdata()
print(f"nibabel {version('nibabel')}")
print(f"saved: {labels.ravel().tolist()}")
print(f"read: {np.round(read.ravel(), 5).tolist()}")
print(f"as integers: {read.astype(int).ravel().tolist()}")
held = read.astype(int).ravel().tolist() == [0, 0, 1, 2, 4, 5, 6, 6]
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
