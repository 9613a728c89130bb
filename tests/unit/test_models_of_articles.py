"""Models of the articles on what prepared clips give, against the plain way to write them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equimodal.errors import SetupError
from equimodal.nn import ResNet18
from equimodal.reproducing.ave_features import load_features
from equimodal.reproducing.models import Framewise, SnippetTSN
from support.lookalikes import features


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


def test_features_that_do_not_fit_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
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
