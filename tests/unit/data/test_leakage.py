"""What splits share, against a slow count; and published lists known by what they hold."""

from __future__ import annotations

import random

import numpy as np
import pytest

from equimodal import SetupError, data
from equimodal.data import known_lists
from equimodal.data.known_lists import KnownList, fingerprint, recognised


def drawn(seed: int, many: int) -> list[dict[str, object]]:
    draw = random.Random(seed)
    return [
        {
            "id": f"clip{draw.randrange(60)}",
            "label": draw.choice("xyz"),
            "speaker": draw.randrange(8),
            "sentence": draw.randrange(5),
            "video": draw.randrange(6),
            "start": (start := draw.uniform(0, 50)),
            "end": start + draw.uniform(-1, 10),
        }
        for _ in range(many)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_a_slow_twin(seed: int) -> None:
    train, test = drawn(seed, 40), drawn(seed + 100, 30)
    found = data.leakage(
        train,
        test,
        groups=["speaker", ("speaker", "sentence")],
        span=("video", "start", "end"),
    )
    assert found.clips == tuple(sorted({t["id"] for t in test} & {t["id"] for t in train}))
    for columns in (("speaker",), ("speaker", "sentence")):
        shared = found.groups[" and ".join(columns)]
        rows = same = 0
        for each in test:
            those = [t for t in train if all(t[c] == each[c] for c in columns)]
            rows += bool(those)
            same += any(t["label"] == each["label"] for t in those)
        assert (shared.rows, shared.same_label) == (rows, same)
        assert shared.of == len({tuple(t[c] for c in columns) for t in test})
    overlaps = relabelled = 0
    for each in test:
        those = [
            t
            for t in train
            if t["video"] == each["video"]
            and min(t["end"], each["end"]) - max(t["start"], each["start"])
            > (each["end"] - each["start"]) / 2
            > 0
        ]
        overlaps += bool(those)
        relabelled += bool(those) and all(t["label"] != each["label"] for t in those)
    assert (found.overlaps, found.overlaps_relabelled) == (overlaps, relabelled)
    assert found.odd_spans == sum(t["end"] <= t["start"] for t in (*train, *test))


def test_nothing_shared_is_false_and_says_so() -> None:
    train = {"id": ["a", "b"], "label": [0, 1], "speaker": ["s", "t"]}
    found = data.leakage(train, {"id": ["c"], "label": [1], "speaker": ["u"]}, ["speaker"])
    assert not found
    assert str(found) == "nothing is shared"
    found = data.leakage(train, {"id": ["c"], "label": [1], "speaker": ["s"]}, ["speaker"])
    assert found
    assert str(found) == (
        "1 of 1 values of speaker in test are in training too, with 1 of 1 test clips, 0 of them "
        "with a label that they have there"
    )


def test_splits_of_the_library_and_data_frames() -> None:
    splits = data.load("watch")
    found = data.leakage(splits.train, splits.test, groups=["group"])
    assert not found.groups["group"].values
    assert found.rows == (2191, 1002 + 482)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [1, 2], "label": [0, 1]})
    assert data.leakage(frame, frame).clips == ("1", "2")


@pytest.mark.parametrize(
    ("train", "groups", "said"),
    [
        ([], [], "train: expected rows, found none"),
        ([{"id": 1, "label": 1}], ["speakr"], "train: unknown column 'speakr'"),
        ([{"name": 1}], [], "train: unknown column 'id'"),
    ],
)
def test_refusals(train, groups, said) -> None:
    with pytest.raises(SetupError, match=said):
        data.leakage(train, [{"id": 1, "label": 1, "speaker": 2}], groups)


def test_a_published_list_is_recognised_by_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"clip{n}" for n in range(20)]
    known = (
        KnownList("d", "A, 2020", "train", 15, fingerprint(names[:15]), "a/b", "c0", "train.csv"),
        KnownList("d", "A, 2020", "test", 5, fingerprint(names[15:]), "a/b", "c0", "test.csv"),
    )
    monkeypatch.setattr(known_lists, "KNOWN", known)
    np.random.default_rng(0).shuffle(names[:15])
    members = {
        "train": [f"videos/{name}.mp4" for name in names[:12]],
        "val": names[12:15],
        "test": [f"{name}.flv" for name in reversed(names[15:])],
    }
    found = recognised(members)
    assert found == {"train and val": known[:1], "test": known[1:]}
    assert str(known[1]).startswith("test of A, 2020 (5 clips, ")
    assert not recognised({**members, "test": names[16:]}).get("test")


def test_what_is_known_is_told_apart() -> None:
    assert len(known_lists.KNOWN) > 15
    for known in known_lists.KNOWN:
        assert len(known.fingerprint) == 12
        assert known.clips > 100
    keys = [(k.data, k.title, k.split) for k in known_lists.KNOWN]
    assert len(set(keys)) == len(keys)
