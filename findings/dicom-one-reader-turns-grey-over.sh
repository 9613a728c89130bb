#!/usr/bin/env bash
# One would swear: two readers of DICOM give the same grey values for a plain X-ray without compression and without a
#   rescale.
# What happens: where the file says MONOCHROME1, zero is white. SimpleITK turns it over, 4095 minus the value at 12
#   bits; pydicom's pixel_array gives what is stored. With MONOCHROME2 both agree.
# Seen with: pydicom 3.0.2 and SimpleITK 2.5.7.
# Why it matters: which of the two a file has goes with the maker of the device, hence with the hospital. Sets of
#   X-rays with reports, read by the one in preparation and by the other in evaluation, have bone black in some
#   hospitals alone; an image encoder learns the maker. Ask for PhotometricInterpretation, or use pydicom's
#   apply_presentation_lut.
# In equimodal: not met yet; images come in as arrays or image files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.3.5
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import apply_presentation_lut
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

stored = np.array([[0, 100, 4095]], "uint16")


def write(path, meaning):
    about = FileMetaDataset()
    about.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    about.MediaStorageSOPInstanceUID = generate_uid()
    about.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(path, {}, file_meta=about, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = about.MediaStorageSOPClassUID, about.MediaStorageSOPInstanceUID
    image.Modality, image.PhotometricInterpretation, image.SamplesPerPixel = "DX", meaning, 1
    image.Rows, image.Columns = stored.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = stored.tobytes()
    image.PresentationLUTShape = "INVERSE" if meaning == "MONOCHROME1" else "IDENTITY"
    image.save_as(path, enforce_file_format=True)


print(f"pydicom {version('pydicom')}, SimpleITK {version('SimpleITK')}; stored: {stored.ravel().tolist()}")
seen = []
for meaning in ("MONOCHROME2", "MONOCHROME1"):
    write("xray.dcm", meaning)
    image = pydicom.dcmread("xray.dcm")
    one, other = image.pixel_array.ravel(), SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("xray.dcm")).ravel()
    shown = apply_presentation_lut(image.pixel_array, image).ravel()
    seen.append((one.tolist(), other.tolist(), shown.tolist()))
    print(f"{meaning}: pydicom {seen[-1][0]}, SimpleITK {seen[-1][1]}, apply_presentation_lut {seen[-1][2]}")
held = seen[0][0] == seen[0][1] == seen[1][0] == [0, 100, 4095] and seen[1][1] == seen[1][2] == [4095, 3995, 0]
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
