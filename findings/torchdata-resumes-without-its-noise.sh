#!/usr/bin/env bash
# One would swear: a StatefulDataLoader resumed in the middle of an epoch goes on as if it had not stopped: the samples
#   that are left, and the random numbers of the workers too.
# What happens: the samples go on, the workers' generators begin the epoch anew. Batches 3 and 4 get the numbers that
#   batches 1 and 2 had.
# Seen with: torchdata 0.11.0.
# Why it matters: crops, noise and the choice of modalities to drop are drawn in workers. A job that is stopped often,
#   as on shared clusters, sees the first draws of an epoch again and again, and which modality is dropped for a sample
#   differs from a run that was not stopped. Draw from a generator seeded by epoch and index.
# In equimodal: what our methods drop is drawn by the count of samples, which a checkpoint keeps
#   (methods/features/draws.py); docs/trainers/lightning.md says what a resume within an epoch asks of the data loader.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 torchdata==0.11.0 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from torchdata.stateful_dataloader import StatefulDataLoader


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index, torch.rand(())


def loader():
    torch.manual_seed(0)
    return StatefulDataLoader(Samples(), batch_size=2, shuffle=True, num_workers=1, multiprocessing_context="fork")


def plain(batches):
    return [(indices.tolist(), [round(number, 3) for number in numbers.tolist()]) for indices, numbers in batches]


first, whole = loader(), []
for batch in first:
    whole.append(batch)
    if len(whole) == 2:
        state = first.state_dict()
again = loader()
again.load_state_dict(state)
whole, rest = plain(whole), plain(again)
print(f"torchdata {version('torchdata')}, torch {version('torch')}")
print(f"not stopped: {whole}\nresumed after two: {rest}")
same = [index for index, _ in rest] == [index for index, _ in whole[2:]]
repeated = [numbers for _, numbers in rest] == [numbers for _, numbers in whole[:2]]
raise SystemExit(0 if same and repeated else "the behaviour has changed")
PYTHON
