"""Shoulder exercises from a smartwatch: accelerometer and gyroscope."""

from __future__ import annotations

import torch

from equimodal.data.card import Card
from equimodal.data.embedded import container
from equimodal.data.embedded.decimals import numbers
from equimodal.data.embedded.windows import cut, window_starts
from equimodal.data.splits import TEST, TRAIN, VAL, Splits, partition

CHANNELS = {"accelerometer": slice(0, 3), "gyroscope": slice(3, 6)}
CLASSES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
LENGTH, STEP = 100, 50  # readings: 2 s and 1 s at 50 Hz
# The recordings of subjects 1 and 2, 3 and 4, 5 and 6, 7 and 10, 8 and 9 run in step for minutes,
# as if two people exercised side by side. With 7 here no training subject is the partner of a
# test subject.
VAL_SUBJECTS, TEST_SUBJECTS = (6, 7), (8, 9, 10)

CARD = Card(
    name="watch",
    title="shoulder physiotherapy exercises recorded by a smartwatch",
    content=(
        "4,677 windows of 2 s (100 readings at 50 Hz), one every second, from 140 recordings of "
        "10 healthy subjects, each exercise once per arm. accelerometer (3, 100): x, y, z, in g "
        "at the source; gyroscope (3, 100): x, y, z, in rad/s at the source; both standardised. "
        "Classes: pendulum (PEN), abduction (ABD), forward elevation (FEL), internal rotation "
        "(IR), external rotation (ER), lower trapezius row (TRAP), bent over row (ROW)."
    ),
    splits=(
        "by subject, so that no subject is in two: train 1 to 5 (2,191 windows), val 6 and 7 "
        "(1,002), test 8 to 10 (1,484)."
    ),
    source=(
        "seglearn/data/watch_dataset.npy in the wheel of seglearn 1.2.5 "
        "(https://github.com/dmbee/seglearn); units and full class names from the README of "
        "https://github.com/dmbee/SPAR-dataset, by the same authors."
    ),
    authors=(
        "David M. Burns, Nathan Leung, Michael Hardisty, Cari M. Whyne, Patrick Henry, Stewart "
        "McLachlin."
    ),
    licence="BSD 3-Clause, (c) 2018 David M. Burns: the licence of seglearn, which carries it.",
    citation=(
        "Burns et al. (2018). Shoulder physiotherapy exercise recognition: machine learning the "
        "inertial signals from a smartwatch. Physiological Measurement 39(7), 075007. "
        "https://doi.org/10.1088/1361-6579/aacfd9, arXiv:1802.01489."
    ),
    changes=(
        "readings rounded to the six decimals that the source writes; cut into windows; each "
        "channel standardised with the mean and standard deviation of the training windows. The "
        "side (left or right arm) is left out."
    ),
    caution=(
        "few subjects, so results across splits by subject vary much. Recordings of subjects 1 "
        "and 2, 3 and 4, 5 and 6, 7 and 10, 8 and 9 run in step, as if pairs had exercised "
        "together; train and test share no pair. Neighbouring windows overlap by half."
    ),
)


def read(modalities: tuple[str, ...]) -> Splits:
    """Return the windows in three splits; `equimodal.data.load` checks the names before.

    Features are float32 of shape ``(N, 3, 100)``, groups are subjects, ids the first reading of a
    window in the row of all recordings.
    """
    stored = container.read("watch")
    signal = numbers(stored["steps"].cumsum(1), stored["places"])
    starts, recording = window_starts(stored["lengths"], LENGTH, STEP)
    subject = stored["subject"][recording]
    split = torch.full_like(subject, TRAIN)
    split[torch.isin(subject, torch.tensor(VAL_SUBJECTS))] = VAL
    split[torch.isin(subject, torch.tensor(TEST_SUBJECTS))] = TEST
    return partition(
        {name: cut(signal[CHANNELS[name]], starts, LENGTH) for name in modalities},
        stored["target"][recording],
        split,
        classes=CLASSES,
        card=CARD,
        groups=subject,
        ids=starts,
    )
