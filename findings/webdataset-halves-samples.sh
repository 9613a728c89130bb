#!/usr/bin/env bash
# One would swear: files of one key in a shard make one sample; or, if the shard is in the wrong order, an
#   error.
# What happens: only neighbours are joined. A tar file that holds all pictures and then all sounds gives six
#   samples of one modality each in place of three with both, and nothing is said.
# Seen with: webdataset 1.0.2.
# Why it matters: tar of two folders, one per modality, writes this order. A pipeline that fills in what is
#   missing, as those for missing modalities do, trains on samples without sound and then without pictures, and
#   never on a pair. Write with --sort=name from one folder, or ask for both (to_tuple raises).
# In equimodal: not met yet; shards are Parquet files, where a row has all modalities.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet webdataset==1.0.2 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import io
import tarfile

import webdataset

def shard(name, names):
    with tarfile.open(name, "w") as tar:
        for member in names:
            info = tarfile.TarInfo(member)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))

names = [f"{i}.{kind}" for kind in ("jpg", "wav") for i in range(3)]
shard("by-modality.tar", names)
shard("by-key.tar", sorted(names))

def read(name):
    samples = webdataset.WebDataset(name, shardshuffle=False)
    return [sorted(key for key in sample if not key.startswith("__")) for sample in samples]

apart, joined = read("by-modality.tar"), read("by-key.tar")
print(f"webdataset {version('webdataset')}")
print(f"pictures first, then sounds: {apart}")
print(f"sorted by key: {joined}")
held = apart == [["jpg"]] * 3 + [["wav"]] * 3 and joined == [["jpg", "wav"]] * 3
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
