"""The published features of CMU-MOSI and CMU-MOSEI, made here in their layouts; and ill ones."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equimodal import SetupError, data

SIZES = {"train": 40, "valid": 12, "test": 16}


def features(kind: str) -> dict[str, Any]:
    """As the two files are: MulT's with ids of three parts, MMSA's with lengths and texts."""
    draw = np.random.default_rng(0)
    whole: dict[str, Any] = {}
    for split, size in SIZES.items():
        lengths = {"text": 6, "audio": 6, "vision": 6}
        if kind == "unaligned":
            lengths.update(audio=15, vision=10)
        dims = {"text": 8, "audio": 5, "vision": 4}
        part: dict[str, Any] = {
            name: draw.normal(size=(size, lengths[name], dims[name])) for name in lengths
        }
        part["audio"][0, 0, 0] = -np.inf
        sentiment = draw.uniform(-3, 3, size).round(2)
        if kind == "aligned":
            part["labels"] = sentiment[:, None, None]
            part["id"] = np.array(
                [[f"{split}{i // 3}".encode(), b"0.0", b"1.0"] for i in range(size)]
            )
        else:
            part["regression_labels"] = sentiment.tolist()
            part["classification_labels"] = (sentiment > 0).astype(int).tolist()
            part["annotations"] = ["Positive" if s > 0 else "Negative" for s in sentiment]
            part["raw_text"] = [f"sentence {i}" for i in range(size)]
            part["text_bert"] = draw.integers(0, 9, (size, 3, 6)).astype(np.float32)
            part["audio_lengths"] = [15] * size
            part["vision_lengths"] = [10] * size
            part["id"] = [f"{split}{i // 3}$_${i % 3}" for i in range(size)]
        whole[split] = part
    return whole


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", ["aligned", "unaligned"])
def test_published_layouts_are_read(tmp_path: Path, kind: str, protocol: int) -> None:
    path = tmp_path / f"mosi_{kind}.pkl"
    whole = features(kind)
    path.write_bytes(pickle.dumps(whole, protocol=protocol))
    splits = data.load(path)
    assert splits.modalities == ("text", "audio", "vision")
    assert [len(each) for each in (splits.train, splits.val, splits.test)] == [40, 12, 16]
    assert set(splits.classes) <= {"-3", "-2", "-1", "0", "1", "2", "3"}
    label = "labels" if kind == "aligned" else "regression_labels"
    sentiment = np.asarray(whole["test"][label]).reshape(-1)
    assert [int(splits.classes[y]) for y in splits.test.target] == np.rint(sentiment).tolist()
    *inputs, _ = splits.train[0]
    assert all(torch.isfinite(each).all() for each in inputs)


def test_polarity_groups_and_some_modalities(tmp_path: Path) -> None:
    path = tmp_path / "mosei.pickle"
    whole = features("unaligned")
    path.write_bytes(pickle.dumps(whole))
    splits = data.load(path, target="polarity", groups="video", modalities=("vision", "text"))
    assert splits.modalities == ("vision", "text")
    wanted = [int(s >= 0) for s in whole["test"]["regression_labels"]]
    assert splits.test.target.tolist() == wanted
    assert len(splits.train.groups.unique()) == 14
    shared = {"train0$_$0": "test"}
    whole["test"]["id"][0] = next(iter(shared))
    path.write_bytes(pickle.dumps(whole))
    with pytest.raises(SetupError, match="expected no group in two splits, found 1"):
        data.load(path, groups="video")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_what_a_pickle_would_run_is_not_run(tmp_path: Path, protocol: int) -> None:
    whole = features("aligned")
    whole["valid"]["vision"] = Evil(tmp_path / "done")
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(whole, protocol=protocol))
    with pytest.raises(SetupError, match=r"asks for (posix|nt)\.mkdir: expected arrays of NumPy"):
        data.load(path)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    "asked",
    ["builtins.eval", "os.system", "numpy.load", "functools.partial", "torch._utils._rebuild"],
)
def test_nothing_else_is_found_by_name(tmp_path: Path, asked: str) -> None:
    module, _, name = asked.rpartition(".")
    path = tmp_path / "asks.pkl"
    path.write_bytes(f"c{module}\n{name}\n(S'1'\ntR.".encode())
    with pytest.raises(SetupError, match=f"a pickle asks for {asked}"):
        data.load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps([1, 2]), "expected the splits train, valid and test"),
        (pickle.dumps({"a": 1}), "expected the splits train, valid and test .* found a"),
        (pickle.dumps({"train": {"x": 1}, "test": {}}), "train: expected text, audio, vision"),
        (b"no pickle", "cannot be read"),
        (pickle.dumps({"train": 1})[:-4], "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=said):
        data.load(path)
