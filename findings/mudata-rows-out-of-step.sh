#!/usr/bin/env bash
# One would swear: two modalities in a MuData that hold the same samples are in step: row k of each belongs to sample k
#   of the container.
# What happens: the container's own order is that of the first modality, and the second keeps the order it came in. A
#   slice (mdata[:2], a mask, a list of names) brings rows in step, the whole does not, and writing and reading keeps
#   it so.
# Seen with: mudata 0.3.10, anndata 0.12.19.
# Why it matters: with mdata["rna"].X and mdata["prot"].X side by side, a model learns from pairs that are none, while
#   a trial on a slice is right. Take mdata[mdata.obs_names].copy() first, or look at obsmap.
# In equimodal: not met yet; modalities come in as arrays of one order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet mudata==0.3.10 anndata==0.12.19 pandas==2.3.3 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import anndata
import mudata
import numpy as np
import pandas as pd


def modality(names, values):
    table = anndata.AnnData(np.array(values)[:, None], obs=pd.DataFrame(index=names))
    table.var_names = ["value"]
    return table


both = {"rna": modality(["s1", "s2", "s3"], [1.0, 2.0, 3.0]), "prot": modality(["s3", "s1", "s2"], [30.0, 10.0, 20.0])}
mudata.MuData(both).write("both.h5mu")
data = mudata.read("both.h5mu")
print(f"mudata {version('mudata')}, anndata {version('anndata')}")
seen = {}
for name, part in (("all", data), ("data[:2]", data[:2]), ("data[data.obs_names]", data[data.obs_names])):
    seen[name] = [part[key].X.ravel().tolist() for key in ("rna", "prot")]
    print(f"{name}: samples {list(part.obs_names)}, rna {seen[name][0]}, prot {seen[name][1]}")
held = [values[1] for values in seen.values()] == [[30, 10, 20], [10, 20], [10, 20, 30]]
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
