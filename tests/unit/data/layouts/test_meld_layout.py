"""MELD: three lists, and videos whose numbers begin anew in each split."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import MELD, Clip, Failure, Frames, Sound
from support.trees import by_split, clip, tree, write

HEAD = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,"
    "EndTime"
)
FOLDERS = {
    "train": "train/train_splits",
    "dev": "dev/dev_splits_complete",
    "test": "test/output_repeated_splits_test",
}
MOODS = [("joy", "positive"), ("anger", "negative"), ("neutral", "neutral")]


def rows(part, many):
    made = []
    for i in range(many):
        emotion, sentiment = MOODS[i % 3]
        text = f'"Well, it is {part} {i}."'
        end = "00:00:00,000" if (part, i) == ("train", 4) else "00:00:02,500"
        made.append(
            f'{i},{text},Ross,{emotion},{sentiment},{i // 2},{i % 2},3,19,"00:00:00,000","{end}"'
        )
    return made


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "MELD.Raw"
    for part, many in (("train", 12), ("dev", 6), ("test", 6)):
        tree(folder, [f"{FOLDERS[part]}/dia{i // 2}_utt{i % 2}.mp4" for i in range(many)])
        tree(folder, [f"{FOLDERS[part]}/._dia0_utt0.mp4"])
        where = folder / "train" if part == "train" else folder
        write(where / f"{part}_sent_emo.csv", HEAD, *rows(part, many))
    tree(folder, ["test/output_repeated_splits_test/final_videos_testdia9_utt9.mp4"])
    return folder


def test_every_utterance_is_a_sample_in_its_official_split(source):
    listing = MELD(source).listing()
    assert {split: len(ids) for split, ids in by_split(listing).items()} == {
        "train": 12,
        "val": 6,
        "test": 6,
    }
    path = "dev/dev_splits_complete/dia1_utt0.mp4"
    assert clip(listing, "val/dia1_utt0") == Clip(
        "val/dia1_utt0",
        "neutral",
        "val",
        {"audio": Sound(path), "visual": Frames(path)},
        "val/dia1",
        {"speaker": "Ross", "episode": "3x19", "text": "Well, it is dev 2."},
    )
    assert listing.classes[0] == "neutral"
    assert listing.about["utterances without a length in the list"] == "train/dia2_utt0"
    assert "final_videos_testdia9_utt9.mp4" in listing.about["unlisted"]
    assert MELD(source, target="sentiment").listing().classes == (
        "neutral",
        "positive",
        "negative",
    )


def test_what_is_missing_is_left_out_and_what_is_wrong_refused(source):
    (source / FOLDERS["train"] / "dia3_utt1.mp4").unlink()
    listing = MELD(source).listing()
    assert listing.failures == (
        Failure("train/dia3_utt1", "train/dia3_utt1.mp4", "train", "no such file"),
    )
    tree(source, ["copy/train_again/dia0_utt0.mp4"])
    with pytest.raises(SetupError, match="expected one video of train/dia0_utt0, found"):
        MELD(source).listing()
    (source / "dev_sent_emo.csv").unlink()
    (source / "copy/train_again/dia0_utt0.mp4").unlink()
    with pytest.raises(SetupError, match=r"expected one dev_sent_emo\.csv, found none"):
        MELD(source).listing()
    with pytest.raises(SetupError, match="unknown target 'emotions': did you mean 'emotion'"):
        MELD(source, target="emotions").listing()
