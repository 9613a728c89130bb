"""Folds of training and validation samples: each is held out once, and groups stay whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equimodal import data
from equimodal.choosing.build import build_of, folds_for
from equimodal.choosing.words import on_validation
from equimodal.data.folds import assigned, folded, folds_of
from equimodal.data.splits import partition


def made(groups: bool) -> data.Splits:
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(60) % 3
    return partition(
        {
            "a": torch.randn(60, 4, generator=generator),
            "v": torch.randn(60, 5, generator=generator),
        },
        target,
        torch.tensor([0] * 30 + [1] * 12 + [2] * 18),
        classes=("x", "y", "z"),
        card=data.load("watch").card,
        groups=torch.arange(60) // 6 if groups else None,
    )


@pytest.mark.parametrize("groups", [False, True])
def test_every_sample_is_held_out_once_and_test_stays(groups: bool) -> None:
    splits = made(groups)
    assert folds_of(splits) == 5
    parts = [folded(splits, fold, 5) for fold in range(5)]
    held = sorted(number for part in parts for number in part.val.names)
    assert held == list(range(42))
    for part in parts:
        assert sorted([*part.train.names, *part.val.names]) == list(range(42))
        assert part.test is splits.test
        if groups:
            assert not set(part.train.groups.tolist()) & set(part.val.groups.tolist())
        else:
            counts = part.val.target.bincount(minlength=3)
            assert counts.max() - counts.min() <= 1
    rows = {number: row for row, number in enumerate(splits.train.names)}
    for place, number in enumerate(parts[0].train.names):
        if number in rows:
            assert torch.equal(parts[0].train[place][0], splits.train[rows[number]][0])


def test_there_are_no_more_folds_than_groups_or_samples_of_a_class() -> None:
    splits = made(True)
    two = torch.arange(30) % 2
    splits.train.groups, splits.val.groups = two, torch.zeros(12, dtype=torch.int64)
    assert folds_of(splits) == 2
    splits.train.groups = torch.zeros(30, dtype=torch.int64)
    assert folds_of(splits) == 0


def test_groups_of_unlike_size_are_spread() -> None:
    sizes = [9, 5, 4, 3, 2, 1]
    groups = [name for name, size in zip("abcdef", sizes, strict=True) for _ in range(size)]
    found = assigned(torch.zeros(24), 3, groups).bincount()
    assert found.max() - found.min() <= 2


def test_a_users_function_is_told_which_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    from support import stranger

    assert folds_for("support.stranger:build", None, 200) == (0, 0)
    assert folds_for("support.stranger:folding", None, 200) == (5, 0)
    told: list[int | None] = []
    monkeypatch.setattr(stranger, "TOLD", told)
    for seed in (0, 3, 1004):
        build_of("support.stranger:folding", seed, folds=5)
    build_of("support.stranger:folding", 7)
    assert told == [0, 3, 4, None]


def test_few_samples_of_a_file_are_parted(tmp_path: Path) -> None:
    splits = made(False)
    arrays = {
        f"{name}_{split}": values.numpy()
        for split, part in (("train", splits.train), ("val", splits.val), ("test", splits.test))
        for name, values in {**part.features, "y": part.target}.items()
    }
    import numpy as np

    np.savez(tmp_path / "few.npz", **arrays)
    what = {
        "source": {"name": str(tmp_path / "few.npz"), "options": {"target": "y"}},
        "settings": {"epochs": 1, "batch_size": 8},
        "encoder": "small",
    }
    folds, pool = folds_for(what, None, 200)
    assert (folds, pool) == (5, 42)
    assert folds_for(what, None, 10) == (0, 42)
    held = [len(build_of(what, seed, folds=folds).val.dataset) for seed in range(5)]  # type: ignore[attr-defined]
    assert sum(held) == 42
    said = on_validation({"validation": 12, "folds": folds, "pool": pool}, own=False)
    assert said == (
        "Only 12 validation samples: every seed holds out another of 5 folds of the 42 training "
        "and validation samples, whole groups together: choices rest on all of it."
    )


def test_without_folds_it_is_said_what_few_samples_do() -> None:
    told = {"validation": 100, "folds": 0, "pool": 0}
    assert "up to 5 points" in on_validation(told, own=False)
    assert "Let the function take fold=None" in on_validation(told, own=True)
    assert on_validation({**told, "validation": 1000}, own=True) == ""
