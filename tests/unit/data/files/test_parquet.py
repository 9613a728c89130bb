"""Parquet files: the same data set as from the arrays they were written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equimodal import data
from equimodal.errors import SetupError

pa: Any = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow, an extra")
import pyarrow.parquet as pq  # noqa: E402

ROWS = 40


def columns() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "audio": generator.normal(size=(ROWS, 5, 6)).astype(np.float32),
        "text": generator.normal(size=(ROWS, 4)),
        "y": np.array(["no", "yes"])[np.arange(ROWS) % 2],
        "talker": np.array([f"t{i // 4}" for i in range(ROWS)]),
        "split": np.array(["train"] * 28 + ["test"] * 12),
    }


def written(folder: Path, fixed: bool = True, **changes: Any) -> Path:
    fields = {}
    for name, value in (columns() | changes).items():
        if isinstance(value, np.ndarray) and value.ndim > 1:
            field = pa.array(value.reshape(-1))
            for size in value.shape[:0:-1]:
                field = pa.FixedSizeListArray.from_arrays(field, size)
            fields[name] = field if fixed else pa.array(value.tolist())
        elif value is not None:
            fields[name] = pa.array(value)
    pq.write_table(pa.table(fields), folder / "words.parquet", row_group_size=16)
    return folder / "words.parquet"


@pytest.mark.parametrize("fixed", [True, False])
def test_the_same_as_from_npz(tmp_path: Path, fixed: bool) -> None:
    source = columns()
    split = source.pop("split")
    parts = {
        f"{name}_{part}": value[split == part]
        for name, value in source.items()
        for part in ("train", "test")
    }
    np.savez(tmp_path / "words.npz", **parts)
    options: Any = {"groups": "talker", "where": {"talker": [f"t{i}" for i in range(9)]}}
    ours = data.load(written(tmp_path, fixed), **options)
    theirs = data.load(tmp_path / "words.npz", **options)
    assert ours.classes == theirs.classes == ("no", "yes")
    assert ours.fingerprint == theirs.fingerprint, "of the same data, whatever the format"
    for one, other in (
        (ours.train, theirs.train),
        (ours.val, theirs.val),
        (ours.test, theirs.test),
    ):
        assert torch.equal(one.target, other.target)
        assert torch.equal(one.ids, other.ids)
        for name in ("audio", "text"):
            assert torch.equal(one.features[name], other.features[name])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": None}, "expected a column split"),
        ({"split": ["train"] * 20 + ["tset"] * 20}, "unknown split 'tset': did you mean 'test'?"),
        ({"text": [[1.0]] * 39 + [[1.0, 2.0]]}, "lists of one length in all rows, found 1 to 2"),
        ({"text": [[1.0]] * 39 + [None]}, "a value in every row, 1 are missing"),
        ({"y": ["a"] * 39 + [None]}, "y: expected a value in every row, 1 are missing"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SetupError) as caught:
        data.load(written(tmp_path, **changes))
    assert said in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.parquet").write_text("not parquet")
    with pytest.raises(SetupError, match="cannot be read"):
        data.load(tmp_path / "words.parquet")
