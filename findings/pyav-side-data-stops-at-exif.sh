#!/usr/bin/env bash
# One would swear: the side data of a decoded frame can be listed: what PyAV has no name for is left out or
#   given a number.
# What happens: one kind without a name (EXIF, 31, of a JPEG taken upright by a phone) makes the whole list
#   raise ValueError, so that the kinds it knows cannot be read either. frame.rotation of the same frame works.
# Seen with: PyAV 18.1.0.
# Why it matters: rotation, motion vectors and regions of interest come as side data. A loader that looks for
#   one of them fails on pictures of phones only, and one that catches errors drops just these samples: those of
#   some people, places and devices.
# In equimodal: clips that cannot be decoded are named with the reason by `equimodal prepare`, never dropped in
#   silence.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 pillow==13.0.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import av
import numpy as np
from PIL import Image

exif = Image.Exif()
exif[0x0112] = 6
Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save("phone.jpg", exif=exif)
Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save("plain.jpg")

def listed(name):
    with av.open(name) as file:
        frame = next(file.decode(video=0))
        try:
            return f"{len(list(frame.side_data))} kinds", frame.rotation
        except ValueError as error:
            return f"ValueError: {error}", frame.rotation

plain, phone = listed("plain.jpg"), listed("phone.jpg")
print(f"PyAV {version('av')}, side data and rotation")
print(f"a plain JPEG: {plain}")
print(f"a JPEG with EXIF: {phone}")
held = plain[0].endswith("kinds") and phone[0].startswith("ValueError")
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
