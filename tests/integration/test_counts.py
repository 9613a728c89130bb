"""No method's step becomes dearer unseen: operations and flops are those of the committed table."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import equimodal as eq

ROOT = Path(__file__).resolve().parents[2]
RENEW = "python -m benchmarks.counts writes the table anew; say in the changelog why it changed"


@pytest.fixture(scope="module")
def counts() -> ModuleType:
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("benchmarks.counts")
    finally:
        sys.path.remove(str(ROOT))


def test_every_step_is_made_of_what_the_table_says(counts: ModuleType) -> None:
    if not torch.__version__.startswith(counts.TORCH + "."):
        pytest.skip(f"the table is of torch {counts.TORCH}, this is {torch.__version__}")
    header, *known = csv.reader(counts.TABLE.read_text().splitlines())
    assert header == counts.HEADER
    found = counts.rows([counts.PLAIN, *eq.methods.available()])
    was = {tuple(row[:2]): row[2:] for row in known}
    now = {tuple(row[:2]): row[2:] for row in found}
    changed = [
        f"{k}: {was.get(k)} -> {now.get(k)}" for k in {**was, **now} if was.get(k) != now.get(k)
    ]
    assert not changed, "\n".join([*changed, RENEW])


def test_more_is_counted_where_more_is_done(counts: ModuleType) -> None:
    plain, ours = (counts.counted(name, 2) for name in (counts.PLAIN, "multi-loss"))
    assert ours.operations > plain.operations
    readout = 2 * counts.SAMPLES * counts.WIDTH * counts.CLASSES  # of one product, per modality
    assert ours.flops - plain.flops == 2 * 3 * readout  # forward, and both factors' gradients
