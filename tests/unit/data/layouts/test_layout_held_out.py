"""Held-out groups: whole, about the share, of every class alike, whatever the order."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equimodal import SetupError
from equimodal.data.layouts.splits import held_out

CLIPS = st.lists(
    st.tuples(st.sampled_from([f"g{i}" for i in range(12)]), st.sampled_from("abcd")),
    min_size=1,
    max_size=80,
)


def rank(salt: str, group: str) -> str:
    return hashlib.sha256(f"{salt}:{group}".encode()).hexdigest()


@given(CLIPS, st.sampled_from([0.05, 0.1, 0.3, 0.5]))
def test_every_class_keeps_a_group_and_the_order_does_not_matter(clips, share):
    several = {label for _, label in clips if len({g for g, of in clips if of == label}) > 1}
    free = [g for g, _ in clips if all(of in several for other, of in clips if other == g)]
    if not free:
        with pytest.raises(SetupError, match="val: nothing can be held out"):
            held_out(clips, share, "val")
        return
    chosen = held_out(clips, share, "val")
    assert chosen
    assert chosen == held_out(reversed(clips), share, "val")
    assert {label for _, label in clips} == {of for group, of in clips if group not in chosen}
    # Not further from the share than one group.
    size = Counter(group for group, _ in clips)
    wanted = max(1, round(share * len(clips)))
    assert sum(size[group] for group in chosen) < wanted + max(size.values())


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_single_clips_are_taken_from_every_class_in_the_order_of_their_hashes(share):
    clips = [(f"clip{i}", "abc"[i % 3]) for i in range(100)] + [("alone", "d")]
    chosen = held_out(clips, share, "val")
    assert len(chosen) == round(share * 101)
    assert "alone" not in chosen
    for label in "abc":
        ranked = sorted((g for g, of in clips if of == label), key=lambda g: rank("val", g))
        count = sum(group in chosen for group in ranked)
        assert count in (math.floor(share * len(ranked)), math.ceil(share * len(ranked)))
        assert set(ranked[:count]) <= chosen


def test_speakers_who_say_everything_are_taken_until_the_share_is_nearest():
    clips = [(f"speaker{i}", label) for i in range(20) for label in "abcdef"]
    assert len(held_out(clips, 0.1, "val")) == 2
    assert len(held_out(clips, 0.12, "val")) == 2
    assert len(held_out(clips, 0.13, "val")) == 3
    ranked = sorted({g for g, _ in clips}, key=lambda g: rank("val", g))
    assert held_out(clips, 0.1, "val") == set(ranked[:2])


def test_another_salt_is_another_choice_and_is_pinned():
    clips = [(str(i), "ab"[i % 2]) for i in range(40)]
    assert held_out(clips, 0.1, "val") != held_out(clips, 0.1, "test")
    assert sorted(held_out(clips, 0.1, "val")) == ["17", "31", "36", "8"]


@pytest.mark.parametrize("share", [0, 1, -0.1, math.nan])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(SetupError, match="val: expected a share above 0 and below 1"):
        held_out([("a", "x"), ("b", "x")], share, "val")


def test_too_few_groups_are_refused():
    with pytest.raises(SetupError, match="two groups of clips or more in a class, found 1 in all"):
        held_out([("a", "x"), ("a", "x")], 0.5, "val")
