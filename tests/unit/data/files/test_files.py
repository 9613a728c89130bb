"""Data sets of the user's own: what a file may hold, what is chosen of it, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equimodal import data
from equimodal.data.files.holdout import held_out
from equimodal.data.files.labels import relabelled
from equimodal.errors import SetupError
from equimodal.system import extras

TRAIN, TEST = 60, 20
WORDS = ("blue", "green", "red", "white")  # with 7 samples of "green", none of them in test


def arrays(**changes: Any) -> dict[str, Any]:
    """A file as users have it: two modalities, words in slots of sentences."""
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for split, size in (("train", TRAIN), ("test", TEST)):
        found[f"audio_{split}"] = generator.normal(size=(size, 9, 8)).astype(np.float16)
        found[f"lips_{split}"] = generator.integers(255, size=(size, 5, 6, 7), dtype=np.uint8)
        found[f"y_{split}"] = (generator.permutation(size) % 3 * 2 % 5 % 4).astype(np.int16)
        found[f"slot_{split}"] = (np.arange(size) % 2).astype(np.int8)
        found[f"utt_{split}"] = np.array([f"{split}{i // 2:02}" for i in range(size)])
    found["class_names"] = np.array(WORDS)
    found["slot_names"] = np.array(["colour", "letter"])
    found["meta"] = np.array('{"source": "a corpus", "licence": "CC BY 4.0", "hop": 10}')
    found |= changes
    return {key: value for key, value in found.items() if value is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path)


def saved(folder: Path, name: str = "words.npz", **changes: Any) -> Path:
    np.savez_compressed(folder / name, **arrays(**changes))
    return folder / name


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(SetupError) as caught:
        data.load(path, **options)
    return str(caught.value)


# ---------------------------------------------------------------------- what is loaded


def test_a_file_becomes_three_splits(path: Path) -> None:
    splits = data.load(path)
    assert splits.modalities == ("audio", "lips")
    assert len(splits.train) + len(splits.val) == TRAIN
    assert len(splits.test) == TEST
    for part in (splits.train, splits.val, splits.test):
        assert part.features["audio"].shape[1:] == (1, 9, 8)
        assert part.features["lips"].shape[1:] == (1, 5, 6, 7)
        assert all(f.dtype == torch.float32 for f in part.features.values())
        assert all(f.is_contiguous() for f in part.features.values())
    ids = torch.cat([part.ids for part in (splits.train, splits.val, splits.test)])
    assert sorted(ids.tolist()) == list(range(TRAIN + TEST))


def test_samples_keep_their_features_and_labels(path: Path) -> None:
    """Every sample of every split against the arrays, by its place in the file."""
    splits, source = data.load(str(path)), arrays()
    labels = np.concatenate([source["y_train"], source["y_test"]])
    for name in ("audio", "lips"):
        whole = np.concatenate([source[f"{name}_train"], source[f"{name}_test"]]).astype(np.float64)
        known = whole[splits.train.ids.numpy()]
        expected = (whole - known.mean()) / known.std()
        for part in (splits.train, splits.val, splits.test):
            found = part.features[name][:, 0]
            np.testing.assert_allclose(found, expected[part.ids.numpy()], rtol=1e-5, atol=1e-5)
    for part in (splits.train, splits.val, splits.test):
        spelt = [splits.classes[label] for label in part.target.tolist()]
        assert spelt == [WORDS[label] for label in labels[part.ids.numpy()]]


def test_classes_are_numbered_as_they_occur(path: Path) -> None:
    splits = data.load(path)
    assert len(splits.classes) == len(set(arrays()["y_train"]) | set(arrays()["y_test"]))
    assert set(splits.train.target.tolist()) == set(range(len(splits.classes)))


def test_labels_of_every_kind() -> None:
    assert relabelled(np.array(["b", "a", "b"]))[1] == ("a", "b")
    assert relabelled(np.array([-1, 1, -1]))[0].tolist() == [0, 1, 0]
    assert relabelled(np.array([True, False]))[1] == ("0", "1")
    assert relabelled(np.array([3.0, 9.0]))[1] == ("3", "9")
    with pytest.raises(SetupError, match="not whole: regression"):
        relabelled(np.array([0.5, 1.0]))
    with pytest.raises(SetupError, match=r"one class per sample, found int64 of shape \(2, 3\)"):
        relabelled(np.zeros((2, 3), np.int64))
    with pytest.raises(SetupError, match=r"labels from 0 to 1, .*found 0 to 5"):
        relabelled(np.array([0, 5]), ("a", "b"))
    with pytest.raises(SetupError, match="two classes or more, found only 4"):
        relabelled(np.array([4, 4]))


def test_modalities_are_chosen_in_order(path: Path) -> None:
    assert data.load(path, modalities=("lips", "audio")).modalities == ("lips", "audio")
    assert data.load(path, modalities=("lips",)).modalities == ("lips",)


def test_listed_modalities_may_be_of_one_axis(tmp_path: Path) -> None:
    path = saved(tmp_path, modality_names=np.array(["audio", "slot"]))
    splits = data.load(path)
    assert splits.modalities == ("audio", "slot")
    assert splits.train.features["slot"].shape[1:] == (1,)


def test_a_vector_per_sample_stays_a_vector(tmp_path: Path) -> None:
    vectors = {f"lips_{s}": np.ones((n, 3), np.float64) for s, n in (("train", 60), ("test", 20))}
    assert data.load(saved(tmp_path, **vectors)).train.features["lips"].shape[1:] == (3,)


def test_another_target(tmp_path: Path) -> None:
    path = saved(tmp_path)
    splits = data.load(path, target="slot")
    assert splits.classes == ("colour", "letter")  # class_names are those of y
    assert torch.equal(splits.test.target, torch.arange(TEST) % 2)
    sentences = data.load(path, target="utt")
    assert len(sentences.classes) == (TRAIN + TEST) // 2
    assert "10 classes without a training sample, such as test00" in sentences.card.caution
    assert "without" not in splits.card.caution
    renamed = arrays()
    y = {f"word_{split}": renamed[f"y_{split}"] for split in ("train", "test")}
    other = data.load(saved(tmp_path, y_train=None, y_test=None, **y), target="word")
    assert set(other.classes) <= set(WORDS)


# ---------------------------------------------------------------------- where


@pytest.mark.parametrize("wanted", [1, "1", "letter", [1], ["letter", 1]])
def test_samples_with_a_value(path: Path, wanted: Any) -> None:
    splits = data.load(path, where={"slot": wanted})
    for part in (splits.train, splits.val, splits.test):
        assert (part.ids % 2 == 1).all()
    assert len(splits.train) + len(splits.val) == TRAIN // 2
    assert len(splits.test) == TEST // 2


def test_several_values_and_columns(path: Path) -> None:
    both = data.load(path, where={"slot": ["colour", "letter"]})
    assert len(both.train) + len(both.val) == TRAIN
    source = arrays()
    words = sorted({WORDS[y] for y in source["y_test"]})[:2]
    some = data.load(path, where={"slot": 0, "y": words})
    assert set(some.classes) == set(words)
    chosen = (source["slot_test"] == 0) & np.isin([WORDS[y] for y in source["y_test"]], words)
    assert (some.test.ids - TRAIN).tolist() == np.flatnonzero(chosen).tolist()


def test_a_name_is_meant_before_a_number(tmp_path: Path) -> None:
    """Digits are often the names of other classes."""
    path = saved(tmp_path, slot_names=np.array(["1", "0"]))
    assert (data.load(path, where={"slot": "1"}).test.ids % 2 == 0).all()


# ---------------------------------------------------------------------- validation


def test_a_split_of_the_file_s_own_is_taken(tmp_path: Path) -> None:
    source = arrays()
    val = {
        f"{name}_valid": source[f"{name}_test"] for name in ("audio", "lips", "y", "slot", "utt")
    }
    path = saved(tmp_path, **val)
    splits = data.load(path)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (TRAIN, TEST, TEST)
    assert "a validation split of its own" in refused(path, validation=0.1)
    assert "found 10 in val and test, such as 'test00'" in refused(path, groups="utt")


def test_every_class_gives_its_share(path: Path) -> None:
    splits = data.load(path, validation=0.25)
    counts = torch.stack([part.target.bincount() for part in (splits.train, splits.val)])
    for of_train, of_val in counts.T.tolist():
        assert of_val == max(1, round(0.25 * (of_train + of_val)))


def test_whole_groups_are_held_out(path: Path) -> None:
    splits = data.load(path, groups="utt", validation=0.3)
    train, val = splits.train.groups, splits.val.groups
    assert train is not None
    assert val is not None
    assert not set(train.tolist()) & set(val.tolist())
    assert len(val) == 18
    assert val.bincount()[val.unique()].tolist() == [2] * 9
    utt = arrays()["utt_train"]
    assert len(set(utt[splits.val.ids.numpy()])) == 9
    assert not set(utt[splits.val.ids.numpy()]) & set(utt[splits.train.ids.numpy()])


def test_the_choice_is_the_same_everywhere_and_another_for_another_seed(path: Path) -> None:
    torch.manual_seed(1)
    first = data.load(path)
    torch.manual_seed(2)
    assert torch.equal(data.load(path).val.ids, first.val.ids)
    assert not torch.equal(data.load(path, seed=1).val.ids, first.val.ids)
    # pinned: results of another version of this package must be on the same samples
    pinned = held_out(torch.zeros(10, dtype=torch.int64), 0.3)
    assert pinned.nonzero().flatten().tolist() == PINNED


PINNED = [4, 7, 9]


def test_a_group_more_leaves_the_choice_of_the_others(path: Path) -> None:
    groups = [f"s{i // 3}" for i in range(60)]
    few, more = (held_out(torch.zeros(n), 0.2, groups=groups[:n]) for n in (57, 60))
    assert (few != more[:57]).sum() <= 3


def test_both_sides_have_something(path: Path) -> None:
    target = torch.tensor([0, 1, 1])
    assert held_out(target, 0.01).tolist().count(True) == 1, "never of a class of one sample"
    assert held_out(target, 0.99).tolist().count(True) == 1
    with pytest.raises(SetupError, match="two groups or more"):
        held_out(target, 0.5, groups=["a", "a", "a"])
    with pytest.raises(SetupError, match="two samples of a class or more"):
        held_out(torch.arange(4), 0.5)


# ---------------------------------------------------------------------- channels


def test_channels_come_second_wherever_they_were(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    images = {
        f"lips_{s}": generator.normal(size=(n, 6, 7, 3)) for s, n in (("train", 60), ("test", 20))
    }
    path = saved(tmp_path, **images)
    assert "(6, 7, 3) may have channels in axis 3: say so with channels={'lips': 3}" in refused(
        path
    )
    splits = data.load(path, channels={"lips": 3, "audio": 1})
    assert splits.train.features["lips"].shape[1:] == (3, 6, 7)
    assert splits.train.features["audio"].shape[1:] == (9, 8)
    known = images["lips_train"][splits.train.ids.numpy()]
    expected = (known - known.mean((0, 1, 2))) / known.std((0, 1, 2))
    found = splits.train.features["lips"].movedim(1, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert data.load(path, channels={"lips": None}).test.features["lips"].shape[1:] == (1, 6, 7, 3)


def test_one_channel_is_one_channel(tmp_path: Path) -> None:
    grey = {f"lips_{s}": np.ones((n, 1, 6, 7)) for s, n in (("train", 60), ("test", 20))}
    assert data.load(saved(tmp_path, **grey)).train.features["lips"].shape[1:] == (1, 6, 7)


# ---------------------------------------------------------------------- fingerprint and card


def test_the_fingerprint_is_of_the_numbers_the_samples_and_the_labels(tmp_path: Path) -> None:
    path = saved(tmp_path)
    first = data.load(path).fingerprint
    assert data.load(path).fingerprint == first
    assert data.load(path, modalities=("audio",)).fingerprint == first
    others = [{"where": {"slot": 1}}, {"seed": 1}, {"validation": 0.3}, {"groups": "utt"}]
    found = {first, *(data.load(path, **options).fingerprint for options in others)}
    for same in ({"slot": [1]}, {"slot": "letter"}):
        assert data.load(path, where=same).fingerprint in found
    assert len(found) == 1 + len(others)
    # Another type of the same numbers, another order of arrays, words about them, and whether the
    # file is compressed are not the data.
    same = {n: a.astype(np.float64) if a.ndim > 1 else a for n, a in arrays().items()}
    np.savez(path, **{**dict(reversed(same.items())), "meta": np.array("other words")})
    assert data.load(path).fingerprint == first
    changed = arrays()["audio_test"].copy()
    changed[0, 0, 0] += 1
    assert data.load(saved(tmp_path, audio_test=changed)).fingerprint not in found


def test_the_card_says_what_was_done(path: Path) -> None:
    card = data.load(path, where={"slot": "letter"}, groups="utt").card
    assert card.name == "words[slot=letter]"
    assert (card.source, card.licence) == ("a corpus", "CC BY 4.0")
    assert "whole groups of utt" in card.splits
    assert "Columns: y, slot, utt" in card.content
    assert max(map(len, str(card).splitlines())) <= 80
    assert "neighbouring samples" in data.load(path).card.caution


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": {"slit": 1}}, "unknown column 'slit': did you mean 'slot'?"),
        ({"where": {"slot": 2}}, "slot is never 2: it is 0 (colour), 1 (letter)"),
        ({"where": {"utt": "train00"}}, "where utt=train00: no sample of test is left"),
        ({"where": {"utt": "x"}}, "and 32 more"),
        ({"modalities": ("audio", "lip")}, "unknown modality 'lip': did you mean 'lips'?"),
        ({"modalities": ("audio", "audio")}, "none twice, found audio, audio"),
        ({"modalities": ()}, "at least one name"),
        ({"modalities": "audio"}, "found one: use ('audio',)"),
        ({"target": "label"}, "the target of the train split as label_train, found audio_train"),
        ({"groups": "speaker"}, "groups: unknown column 'speaker'"),
        ({"groups": "slot"}, "no group in two splits, found 2 in train and test, such as 0"),
        ({"validation": 1.0}, "a share between 0 and 1, found 1.0"),
        ({"channels": {"lips": 4}}, "an axis from 1 to 3 (0 are the samples), found 4"),
        ({"channels": {"lip": 1}}, "channels: unknown modality 'lip'"),
    ],
)
def test_options_that_do_not_fit(path: Path, options: dict[str, Any], said: str) -> None:
    assert said in refused(path, **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_test": None}, "the target of the test split as y_test"),
        ({"y_train": np.zeros(60), "y_test": np.zeros(20)}, "two classes or more, found only blue"),
        ({"y_train": np.full(60, 9)}, "labels from 0 to 3, as many as there are names"),
        ({"audio_test": None}, "audio_test: expected 20 samples as in y_test, found none"),
        ({"audio_train": np.zeros((59, 9, 8))}, "60 samples as in y_train, found shape (59, 9, 8)"),
        ({"audio_test": np.zeros((20, 9, 7))}, "one shape in all splits, found train (9, 8), test"),
        ({"audio_test": np.full((20, 9, 8), np.nan)}, "NaN or infinity in 20 of 80 samples"),
        ({"modality_names": np.array(["audio", "text"])}, "modality_names lists text, but no array"),
        ({"lips_train": None, "lips_test": None, "audio_train": None, "audio_test": None},
         "expected modalities, arrays of shape (N, ...) with two axes or more"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refused(saved(tmp_path, **changes))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "words.npz")
    (tmp_path / "text.npz").write_text("not a zip")
    assert "text.npz: cannot be read" in refused(tmp_path / "text.npz")
    cut = saved(tmp_path).read_bytes()[:-200]
    (tmp_path / "cut.npz").write_bytes(cut)
    assert "cut.npz: cannot be read" in refused(tmp_path / "cut.npz")
    objects = np.array([{"a": 1}, None], dtype=object)
    np.savez(tmp_path / "objects.npz", a_train=objects)
    assert "a_train holds Python objects" in refused(tmp_path / "objects.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert "one.npz: cannot be read" in refused(tmp_path / "one.npz")


def test_a_name_of_nothing_says_what_there_is() -> None:
    with pytest.raises(
        SetupError, match=re.escape("or the path of a .npz, .parquet, .pkl or .pickle file")
    ):
        data.load("wach")
    with pytest.raises(SetupError, match="watch: where, seed: for files alone"):
        data.load("watch", where={"slot": 3}, seed=0)


@pytest.mark.parametrize(("suffix", "missing"), [(".npz", "numpy"), (".parquet", "pyarrow")])
def test_a_missing_library_is_named_with_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, missing: str
) -> None:
    (tmp_path / f"words{suffix}").write_text("")
    known = extras.importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == missing else known(name, package)

    monkeypatch.setattr(extras.importlib.util, "find_spec", find)
    with pytest.raises(ImportError, match=rf"needs {missing}: pip install 'equimodal\[data\]'"):
        data.load(tmp_path / f"words{suffix}")
