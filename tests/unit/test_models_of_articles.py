"""Models of the articles on what prepared clips give, against the plain way to write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from equimodal.data.layouts.crema_d import EMOTIONS, CremaD
from equimodal.data.layouts.vggsound import VGGSound
from equimodal.errors import SetupError
from equimodal.nn import ResNet18
from equimodal.reproducing.ave_features import load_features
from equimodal.reproducing.models import Framewise, SnippetTSN
from equimodal.reproducing.sets import SETS
from support.lookalikes import features
from support.trees import tree, write


def test_a_snippet_tsn_is_the_mean_of_its_snippets_class_scores() -> None:
    torch.manual_seed(0)
    model = SnippetTSN({"audio": ResNet18(1, 2), "visual": ResNet18(3, 2)}, classes=5).eval()
    sound, frames = torch.randn(2, 1, 33, 40), torch.randn(2, 3, 4, 32, 32)
    logits = model(sound, frames)
    heard, seen = (model.encoders[name].encoder for name in ("audio", "visual"))
    parts = [heard(sound[..., 13 * part : 13 * (part + 1)]) for part in range(3)]
    looks = [seen(frames[:, :, frame]) for frame in range(4)]
    expected = model.head(torch.stack(parts).mean(0), torch.stack(looks).mean(0))
    torch.testing.assert_close(logits, expected)


def test_a_stage_on_frames_is_the_stage_on_every_frame() -> None:
    torch.manual_seed(0)
    stage = torch.nn.Conv2d(3, 5, 3, stride=2)
    clips = torch.randn(2, 3, 4, 9, 9)
    made = Framewise(stage)(clips)
    assert made.shape == (2, 5, 4, 4, 4)
    for frame in range(4):
        torch.testing.assert_close(made[:, :, frame], stage(clips[:, :, frame]))


def test_features_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = features(tmp_path / "ave")
    assert load_features(folder).fingerprint == load_features(folder).fingerprint
    before = load_features(folder).fingerprint
    np.save(folder / "test.npy", np.arange(9, 11))
    assert load_features(folder).fingerprint != before
    np.save(folder / "test.npy", np.arange(9, 13))
    with pytest.raises(SetupError, match=r"numbers of videos from 0 to 11"):
        load_features(folder)
    np.save(folder / "audio.npy", np.zeros((12, 3, 6), np.float32))
    with pytest.raises(SetupError, match=r"found audio \(12, 3, 6\)"):
        load_features(folder)
    (folder / "val.npy").unlink()
    with pytest.raises(SetupError, match=r"no val.npy"):
        load_features(folder)


def test_splits_are_told_apart_by_what_the_layouts_say(tmp_path: Path) -> None:
    """The words that a layout writes are those that a reproduction looks for."""
    raw = tmp_path / "crema-d"
    names = [f"{1001 + n // 6}_DFA_{e}_XX" for n, e in enumerate([*EMOTIONS] * 5)]
    tree(raw, [f"AudioWAV/{name}.wav" for name in names])
    tree(raw, [f"VideoFlash/{name}.flv" for name in names])
    write(tmp_path / "lists/test.csv", *(f"{name},{name[9:12]}" for name in names[:6]))
    split = {
        "honest": CremaD(raw, protocol="speakers"),
        "published": CremaD(raw, lists=tmp_path / "lists"),
    }
    _is_told_apart("crema-d", {each: made.listing().protocol for each, made in split.items()})

    raw = tmp_path / "vggsound"
    rows = [(f"v{n:010d}", n // 7) for n in range(14)]
    tree(raw, [f"{name}_{34 + n:06d}.mp4" for n, (name, _) in enumerate(rows)])
    lines = [f"{name},{34 + n},dog,{'test' if t else 'train'}" for n, (name, t) in enumerate(rows)]
    write(raw / "vggsound.csv", *lines)
    split = {"honest": VGGSound(raw, protocol="videos"), "published": VGGSound(raw)}
    _is_told_apart("vggsound", {each: made.listing().protocol for each, made in split.items()})


def _is_told_apart(name: str, protocols: dict[str, str]) -> None:
    wanted = SETS[name]
    assert wanted is not None
    assert wanted.holds(protocols["published"])
    assert not wanted.holds(protocols["honest"])
