"""What a comparison will take, said before it begins: how many runs, and about how long."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import move_data_to_device

from equimodal.compare.runs import Entry
from equimodal.data import Samples, Splits
from equimodal.nn import segment_cross_entropy
from equimodal.training import Encoder, Settings, model_for

TIMED = 5  # steps, after one that is not timed
UNITS = ((48 * 3600, 24 * 3600, "days"), (5400, 3600, "hours"), (90, 60, "minutes"))


def foreseen(
    entries: Sequence[Entry],
    seeds: int,
    done: int,
    seconds: float,
    workers: int | None = None,
) -> str:
    r"""Say how many runs a comparison has, and about how long they take.

    Args:
        entries: its rows.
        seeds: how many.
        done: runs that are finished already.
        seconds: of a joint training.
        workers: at once; None where that is not known.

    >>> said = foreseen([Entry("joint", "joint"), Entry("ogm", "ogm")], 5, 0, 60.0, 2)
    >>> print(said.replace("; ", ";\n"))
    10 runs: 2 rows over 5 seeds. At the pace of joint training here, about 5 minutes on 2 workers;
    more for rows that cost more.
    """
    runs = sum(len(entry.choices()) for entry in entries) * seeds
    composed = sum("+" in entry.method for entry in entries)
    rows = f"{len(entries)} rows" + (f" ({composed} of them compositions)" if composed else "")
    tries = runs - len(entries) * seeds
    what = f"{runs} runs: {rows} over {seeds} seed{'' if seeds == 1 else 's'}"
    what += f", {tries} of them to choose settings by" if tries else ""
    left = runs - done
    if not left:
        return f"{what}. All of them are finished."
    finished = f" Finished: {done}." if done else ""
    where = "one after another" if workers is None else f"on {workers} workers"
    return (
        f"{what}.{finished} At the pace of joint training here, about "
        f"{spelt(left * seconds / (workers or 1))} {where}; more for rows that cost more."
    )


def spelt(seconds: float) -> str:
    """Return a duration in words.

    >>> spelt(30), spelt(600), spelt(7200 * 1.1), spelt(300000)
    ('1 minute', '10 minutes', '2.2 hours', '3.5 days')
    """
    for least, unit, name in UNITS:
        if seconds >= least:
            return f"{seconds / unit:.2g} {name}"
    return "1 minute"  # beginning takes that long


def seconds_of_joint(
    splits: Splits[Samples], settings: Settings, encoder: Encoder, workers: int | None = None
) -> float:
    """Return about how long a joint training takes on this machine: a few steps are timed.

    Args:
        splits: the data.
        settings: how to train; without None.
        encoder: what encodes a modality.
        workers: runs at once, which share the cores; one for each core by default.
    """
    cores = os.cpu_count() or 1
    held = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // (workers or cores)))
    try:
        model = model_for(splits, encoder=encoder)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model.to(device).train()
        optimizer = settings.make_optimizer(model)
        loss = segment_cross_entropy if splits.train.target.ndim > 1 else F.cross_entropy
        loader = splits.train.loader(settings.batch_size)
        endless = itertools.chain.from_iterable(itertools.repeat(loader))
        start = 0.0
        for number, batch in enumerate(itertools.islice(endless, TIMED + 1)):
            if number == 1:
                start = time.monotonic()
            *inputs, target = splits.train.transform(move_data_to_device(batch, device))
            value: Any = loss(model(*inputs), target)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            value.item()  # which waits for the device
        step = (time.monotonic() - start) / TIMED
        return step * len(loader) * (settings.epochs or 1)
    finally:
        torch.set_num_threads(held)
