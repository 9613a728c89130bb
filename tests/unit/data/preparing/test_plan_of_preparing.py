"""What is settled before anything is decoded: shards, refusals, and what has changed in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Failure, Listing, Sound
from equimodal.data.preparing import MissingClipsError, Recipe
from equimodal.data.preparing.changes import changes
from equimodal.data.preparing.failures import judge
from equimodal.data.preparing.misfits import refuse_misfits
from equimodal.data.preparing.plan import Plan, Stamp, planned, text
from equimodal.errors import SetupError

SPLITS = ("train", "val", "test")


def listing(root: Path = Path("raw"), counts: tuple[int, int, int] = (6, 2, 2)) -> Listing:
    """Clips of sound alone, whose files need not be there."""
    clips = [
        Clip(f"{split}{i}", "ab"[i % 2], split, {"audio": Sound(f"{split}{i}.wav")}, f"g{i}")
        for split, count in zip(SPLITS, counts, strict=True)
        for i in range(count)
    ]
    return Listing("tiny", root, tuple(clips), ("a", "b"), "by hand")


def plan(of: Listing, shard_size: int = 4) -> Plan:
    stamps = {piece.path: Stamp(9, 9) for clip in of.clips for piece in clip.pieces.values()}
    return Plan(of, Recipe(), View(), shard_size, stamps)


@given(st.tuples(*[st.integers(0, 40)] * 3).filter(any), st.integers(1, 20))
def test_every_clip_is_in_one_shard_in_order(counts: tuple[int, int, int], size: int) -> None:
    shards = plan(listing(counts=counts), size).shards()
    for split, count in zip(SPLITS, counts, strict=True):
        own = [shard for shard in shards if shard.split == split]
        sizes = [len(shard.clips) for shard in own]
        assert [c.id for s in own for c in s.clips] == [f"{split}{i}" for i in range(count)]
        assert len(own) == -(-count // size)
        assert not sizes or (max(sizes) <= size and max(sizes) - min(sizes) <= 1)
        assert [s.name for s in own] == [
            f"{split}-{i:05d}-of-{len(own):05d}" for i in range(len(own))
        ]
        assert all(set(s.stamps) == {f"{c.id}.wav" for c in s.clips} for s in own)


def test_a_plan_is_json_that_can_be_compared(tmp_path: Path) -> None:
    made = plan(listing())
    content = made.content()
    assert json.loads(text(content)) == content
    assert "raw" not in text(content), "the source may move"
    clips = [line for line in text(content).splitlines() if '"id": ' in line]
    assert len(clips) == 10, "a line for each clip, so that two plans can be compared by diff"


def files(root: Path, of: Listing) -> None:
    for clip in of.clips:
        (root / f"{clip.id}.wav").write_bytes(b"12345")


def changed(root: Path, then: Plan, now: Listing, recipe: Recipe | None = None) -> list[str]:
    return changes(
        then.content(), planned(now, recipe or Recipe(), View(), then.shard_size).content()
    )


def test_what_changed_in_the_source_is_said(tmp_path: Path) -> None:
    before = listing(tmp_path, (12, 2, 2))
    files(tmp_path, before)
    then = planned(before, Recipe(), View(), 4)
    assert changed(tmp_path, then, before) == []

    os.utime(tmp_path / "train0.wav", (1, 1))
    (tmp_path / "train1.wav").write_bytes(b"1234567")
    assert changed(tmp_path, then, before) == [
        "changed files (2): train0.wav (modified since), train1.wav (5 bytes, now 7)"
    ]
    files(tmp_path, before)
    then = planned(before, Recipe(), View(), 4)

    fewer = replace(before, clips=before.clips[5:])
    assert changed(tmp_path, then, fewer) == [
        "files gone (5): train0.wav, train1.wav, train2.wav, ...",
        "clips gone (5): train0, train1, train2, ...",
    ]
    back = planned(fewer, Recipe(), View(), 4)
    assert changed(tmp_path, back, before)[0] == (
        "new files (5): train0.wav, train1.wav, train2.wav, ..."
    )
    moved = replace(before.clips[0], split="val", label="b")
    assert changed(tmp_path, then, replace(before, clips=(moved, *before.clips[1:]))) == [
        "changed clips (1): train0 (label, split)"
    ]
    assert changed(tmp_path, then, replace(before, clips=before.clips[::-1])) == [
        "clips: in another order",
    ]


def test_what_changed_in_the_choices_is_said(tmp_path: Path) -> None:
    before = listing(tmp_path)
    files(tmp_path, before)
    then = planned(before, Recipe(), View(), 4)
    assert changed(tmp_path, then, before, Recipe(fps=25, side=128)) == [
        "recipe: fps 1.0, now 25.0",
        "recipe: side 256, now 128",
    ]
    assert changed(tmp_path, then, replace(before, protocol="speakers")) == [
        "protocol: by hand, now speakers"
    ]
    assert changed(tmp_path, then, replace(before, classes=("a", "b", "c"))) == [
        "classes: new (1): c"
    ]
    assert changed(tmp_path, then, replace(before, classes=("b", "a"))) == [
        "classes: a, b, now b, a"
    ]
    lost = Failure("train9", "train9.wav", "train", "no such file")
    assert changed(tmp_path, then, replace(before, failures=(lost,))) == [
        "new clips without a file (1): train9"
    ]
    other = planned(before, Recipe(), View(), 5).content()
    assert changes(then.content(), other) == ["shard_size: 4, now 5"]
    renamed = planned(replace(before, name="other"), Recipe(fps=3), View(), 5).content()
    assert changes(then.content(), renamed) == ["name: tiny, now other"]


def first(change: Callable[[Clip], Clip]) -> Callable[[Listing], Listing]:
    return lambda of: replace(of, clips=(change(of.clips[0]), *of.clips[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda of: replace(of, clips=()), "expected clips of tiny, found none"),
        (first(lambda c: replace(c, id="val0")), "found 1 twice, such as val0"),
        (
            lambda of: replace(of, failures=(Failure("val0", "x", "val", "gone"),)),
            "expected clips or failures, found val0 among both",
        ),
        (first(lambda c: replace(c, label="aa")), "train0: unknown class 'aa'"),
        (first(lambda c: replace(c, split="tran")), "train0: unknown split 'tran': did you mean"),
        (first(lambda c: replace(c, pieces={})), "train0: expected modalities, found none"),
        (
            first(lambda c: replace(c, columns={"onset": 1.0})),
            r"columns of the other clips, onset \(number\), found none",
        ),
        (first(lambda c: replace(c, pieces={"audio": Sound("../x.wav")})), "leads out of raw"),
        (first(lambda c: replace(c, pieces={"audio": Sound("/x.wav")})), "leads out of raw"),
        (first(lambda c: replace(c, id="caf\udce9")), "expected valid Unicode: rename the file"),
        (
            lambda of: replace(of, clips=tuple(replace(c, columns={"group": 1}) for c in of.clips)),
            "group: expected columns and modalities that differ, found it twice",
        ),
        (
            lambda of: replace(of, failures=(Failure("x", "x.wav", "dev", "gone"),)),
            "x: unknown split 'dev'",
        ),
    ],
)
def test_a_listing_that_makes_no_table_is_refused(
    change: Callable[[Listing], Listing], message: str
) -> None:
    refuse_misfits(listing())
    with pytest.raises(SetupError, match=message):
        refuse_misfits(change(listing()))


def test_a_listed_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"train0.wav is listed, but no such file is there"):
        planned(listing(tmp_path), Recipe(), View(), 4)


def test_too_many_missing_clips_are_refused_with_what_to_do(tmp_path: Path) -> None:
    made = plan(listing(counts=(196, 2, 2)))
    lost = [Failure(f"train{i}", "", "train", f"truncated: {i} s") for i in range(2)]
    judge(tmp_path, made, lost, 0.01)
    lost.append(Failure("train2", "", "train", "no sound"))
    with pytest.raises(MissingClipsError) as refused:
        judge(tmp_path, made, lost, 0.01)
    assert str(refused.value) == (
        f"{tmp_path}: 3 of 200 clips (1.5%) are missing, 1% are allowed: 2 truncated, 1 no sound; "
        "failures.csv names them. To do without them give the same command with --allow-missing "
        "0.015: what is decoded stays"
    )
    judge(tmp_path, made, lost, 0.015)


def test_an_empty_split_and_an_untrained_class_are_refused_whatever_is_allowed(
    tmp_path: Path,
) -> None:
    made = plan(listing())
    gone = [Failure(f"val{i}", "", "val", "no sound") for i in range(2)]
    with pytest.raises(MissingClipsError, match="no clip is left in the val split of 2: 2 no so"):
        judge(tmp_path, made, gone, 0.99)
    odd = [Failure(f"train{i}", "", "train", "no sound") for i in (1, 3, 5)]
    with pytest.raises(MissingClipsError, match="1 of 2 classes have no clip to train on: b: 3"):
        judge(tmp_path, made, odd, 0.99)
    judge(tmp_path, made, odd[1:], 0.99)
