"""CREMA-D: labels, actors and levels from names, two protocols, the published lists."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import Clip, CremaD, Failure, Frames, Sound
from support.trees import by_split, clip, groups, tree, write

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
NAMES = [
    f"{actor}_{sentence}_{emotion}_XX"
    for actor in range(1001, 1021)
    for sentence in ("DFA", "IEO")
    for emotion in EMOTIONS
]


def files(*names):
    return [f"AudioWAV/{n}.wav" for n in names] + [f"VideoFlash/{n}.flv" for n in names]


@pytest.fixture
def source(tmp_path):
    return tree(tmp_path / "CREMA-D", files(*NAMES))


def test_a_clip_is_what_its_name_says(source):
    tree(source, files("1076_MTI_SAD_LO"))
    listing = CremaD(source).listing()
    assert listing.name == "crema-d"
    assert listing.root == source
    assert listing.classes == ("neutral", "happy", "sad", "fear", "disgust", "anger")
    assert listing.modalities == ("audio", "visual")
    assert [each.id for each in listing.clips] == sorted([*NAMES, "1076_MTI_SAD_LO"])
    assert listing.failures == ()
    found = clip(listing, "1076_MTI_SAD_LO")
    assert found == Clip(
        "1076_MTI_SAD_LO",
        "sad",
        found.split,
        {
            "audio": Sound("AudioWAV/1076_MTI_SAD_LO.wav"),
            "visual": Frames("VideoFlash/1076_MTI_SAD_LO.flv"),
        },
        "1076",
        {"actor": "1076", "sentence": "MTI", "level": "LO"},
    )


def test_random_takes_a_tenth_of_every_emotion_and_validates_on_whole_actors(source):
    listing = CremaD(source).listing()
    splits = by_split(listing)
    assert {split: len(ids) for split, ids in splits.items()} == {
        "train": 194, "val": 22, "test": 24
    }  # fmt: skip
    of_test = [each.label for each in listing.clips if each.split == "test"]
    assert {of_test.count(label) for label in listing.classes} == {4}
    assert not groups(listing, "train") & groups(listing, "val")
    assert groups(listing, "train") & groups(listing, "test")
    assert listing.protocol == (
        "random: test: 0.1 of the clips, of every emotion alike, by a hash of their names, with "
        "actors of train; val: 0.1 of the training clips, whole actors, by a hash of their names"
    )


def test_speakers_keeps_every_actor_in_one_split(source):
    listing = CremaD(source, protocol="speakers", validation=0.2).listing()
    sets = [groups(listing, split) for split in ("train", "val", "test")]
    assert [len(each) for each in sets] == [14, 4, 2]
    assert len(set.union(*sets)) == 20
    assert listing.protocol.startswith("speakers: test: 0.1 of the clips, whole actors")
    assert "val: 0.2 of the training clips, whole actors" in listing.protocol


def test_the_test_split_does_not_depend_on_the_share_for_validation(source):
    for protocol in ("random", "speakers"):
        tests = [
            by_split(CremaD(source, protocol=protocol, validation=share).listing())["test"]
            for share in (0.05, 0.3)
        ]
        assert tests[0] == tests[1]


def test_published_lists_are_used_when_given(source, tmp_path):
    test, train = NAMES[::7], [name for i, name in enumerate(NAMES) if i % 7 and i % 5]
    lists = tmp_path / "lists"
    write(lists / "test.csv", *(f"{n},{n[9:12]}" for n in test), "1099_DFA_ANG_XX,ANG")
    (lists / "test.csv").write_text("\ufeff" + (lists / "test.csv").read_text(), "utf-8")
    write(lists / "train.csv", *(f"{n},{n[9:12]}" for n in train))
    listing = CremaD(source, lists=lists).listing()
    splits = by_split(listing)
    assert splits["test"] == sorted(test)
    assert sorted(splits["train"] + splits["val"]) == sorted(train)
    assert not groups(listing, "train") & groups(listing, "val")
    assert listing.failures == (
        Failure("1099_DFA_ANG_XX", "AudioWAV/1099_DFA_ANG_XX.wav", "test", "no such file"),
    )
    left = len(NAMES) - len(test) - len(train)
    assert listing.about["unlisted"].startswith(
        f"files that belong to no clip ({2 * left}): AudioWAV/1001"
    )
    assert listing.protocol.startswith("lists: test as listed in lists; val: 0.1")

    write(lists / "val.csv", *(f"{n},{n[9:12]}" for n in NAMES if n not in {*test, *train}))
    listing = CremaD(source, lists=lists).listing()
    assert by_split(listing)["val"] == sorted(set(NAMES) - {*test, *train})
    assert listing.protocol == "lists: test as listed in lists; val: as listed"

    listing = CremaD(source, lists=lists / "test.csv").listing()
    assert len(listing.clips) == len(NAMES)
    assert by_split(listing)["test"] == sorted(test)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1001_DFA_NEU_XX,HAP", "expected the label NEU of 1001_DFA_NEU_XX, found HAP"),
        ("1001_DFA_NEU_XX,NUE", "unknown label 'NUE': did you mean 'NEU'"),
        ("1001_DFA_NUE_XX,NEU", "unknown emotion 'NUE': did you mean 'NEU'"),
        ("face.flv,NEU", "expected a name such as 1001_DFA_ANG_XX, found 'face.flv'"),
        ("1001_DFA_NEU_XX", r"expected 2 fields \(name, label\), found 1"),
        ("1002_DFA_HAP_XX,HAP", "found 1002_DFA_HAP_XX, which is at .*test.csv, line 1 too"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_its_line(source, tmp_path, line, said):
    path = write(tmp_path / "test.csv", "1002_DFA_HAP_XX,HAP", line)
    with pytest.raises(SetupError, match=f"test.csv, line 2: .*{said}"):
        CremaD(source, lists=path).listing()


def test_a_clip_with_one_of_its_files_is_a_failure(source):
    (source / "VideoFlash" / f"{NAMES[0]}.flv").unlink()
    (source / "AudioWAV" / f"{NAMES[1]}.wav").unlink()
    listing = CremaD(source).listing()
    whole = by_split(CremaD(tree(source.parent / "whole", files(*NAMES))).listing())
    split = {name: split for split, names in whole.items() for name in names}
    assert listing.failures == (
        Failure(NAMES[1], f"AudioWAV/{NAMES[1]}.wav", split[NAMES[1]], "no such file"),
        Failure(NAMES[0], f"VideoFlash/{NAMES[0]}.flv", split[NAMES[0]], "no such file"),
    )
    # The others are in the splits that they would be in anyway.
    left = {each.id: each.split for each in listing.clips}
    assert left == {name: split[name] for name in NAMES[2:]}


def test_the_misnamed_file_of_older_copies_belongs_to_its_video(source):
    (source / "AudioWAV" / f"{NAMES[0]}.wav").rename(source / "AudioWAV" / f"{NAMES[0][:-1]}.wav")
    listing = CremaD(source).listing()
    assert listing.failures == ()
    assert clip(listing, NAMES[0]).pieces["audio"] == Sound(f"AudioWAV/{NAMES[0][:-1]}.wav")


def test_a_list_may_name_the_misnamed_file(source, tmp_path):
    tree(source, files("1040_ITH_SAD_X"))
    listed = write(tmp_path / "test.csv", "1040_ITH_SAD_X,SAD", f"{NAMES[0]},{NAMES[0][9:12]}")
    listing = CremaD(source, lists=listed).listing()
    assert by_split(listing)["test"] == sorted([NAMES[0], "1040_ITH_SAD_XX"])
    assert listing.failures == ()


def test_other_files_are_counted(source):
    tree(source, ["AudioWAV/readme.wav", "AudioMP3/1001_DFA_ANG_XX.mp3", "VideoFlash/a (1).flv"])
    assert CremaD(source).listing().about["unlisted"] == (
        "files that belong to no clip (2): AudioWAV/readme.wav, VideoFlash/a (1).flv"
    )


def test_folders_one_deeper_are_found(tmp_path):
    source = tree(tmp_path, [f"CREMA-D-master/{path}" for path in files(*NAMES)])
    assert clip(CremaD(source).listing(), NAMES[0]).pieces["audio"] == Sound(
        f"CREMA-D-master/AudioWAV/{NAMES[0]}.wav"
    )


def test_what_is_not_crema_d_is_refused(source, tmp_path):
    with pytest.raises(SetupError, match="none: no such folder"):
        CremaD(tmp_path / "none").listing()
    with pytest.raises(SetupError, match=r"expected AudioWAV/1001_DFA_ANG_XX.wav and others"):
        CremaD(tree(tmp_path / "else", ["a.wav"])).listing()
    with pytest.raises(SetupError, match=r"expected VideoFlash/1001_DFA_ANG_XX.flv and others"):
        CremaD(tree(tmp_path / "half", ["AudioWAV/1001_DFA_ANG_XX.wav"])).listing()
    with pytest.raises(SetupError, match="unknown protocol 'speaker': did you mean 'speakers'"):
        CremaD(source, protocol="speaker").listing()
    with pytest.raises(SetupError, match=r"val: expected a share above 0 and below 1, found 1.5"):
        CremaD(source, validation=1.5).listing()
    tree(source, files("1001_DFA_XYZ_XX"))
    with pytest.raises(SetupError, match=r"VideoFlash/1001_DFA_XYZ_XX.flv: unknown emotion 'XYZ'"):
        CremaD(source).listing()


def test_pointers_of_git_lfs_are_told_from_files(source):
    (source / "AudioWAV" / f"{sorted(NAMES)[0]}.wav").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(SetupError, match=r"found a pointer of Git LFS.*git lfs pull"):
        CremaD(source).listing()


def test_one_actor_cannot_be_split(tmp_path):
    source = tree(tmp_path, files(*(name for name in NAMES if name.startswith("1001"))))
    with pytest.raises(SetupError, match=r"test: nothing can be held out.*found 1 in all"):
        CremaD(source, protocol="speakers").listing()
