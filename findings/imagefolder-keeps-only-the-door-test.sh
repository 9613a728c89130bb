#!/usr/bin/env bash
# One would swear: `load_dataset('imagefolder', data_dir=...)` loads the pictures in the folder; without folders
#   named train and test, all are in one split.
# What happens: one file whose name has the word test or eval between separators (door_test_01.png) makes a test
#   split of such files, and all others vanish without a word: here 2 of 5 pictures are left, and there is no
#   train split.
# Seen with: datasets 5.2.0. The readers audiofolder and videofolder find their files in the same way.
# Why it matters: recordings are named by people: door_test, mic-test, eval_speaker. In sets with a folder per
#   modality, one folder loses most of its files and the other none. Give data_files={'train': 'd/**'}.
# In equimodal: not met yet; `equimodal prepare manifest` takes splits from the manifest alone, never from
#   names.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
python3 -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 pillow==13.0.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
names = ["dog/bark_01.png", "dog/bark_02.png", "bell/ring_01.png", "bell/door_test_01.png", "bell/eval-3.png"]
for name in names:
    path = Path("pictures", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
loaded = datasets.load_dataset("imagefolder", data_dir="pictures", cache_dir="cache")
given = datasets.load_dataset("imagefolder", data_files={"train": "pictures/**"}, cache_dir="cache")
print(f"datasets {version('datasets')}, {len(names)} pictures in the folder")
print(f"loaded by folder: { {k: len(v) for k, v in loaded.items()} }")
print(f"loaded with data_files: { {k: len(v) for k, v in given.items()} }")
held = {k: len(v) for k, v in loaded.items()} == {"test": 2} and len(given["train"]) == 5
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
