"""GRID: words of chosen slots with their times, by sentence or by talker."""

from __future__ import annotations

import pytest

from equimodal import SetupError
from equimodal.data.layouts import GRID, Clip, Failure, Frames, Sound
from equimodal.data.layouts.grid_words import SLOTS, spoken
from support.trees import RAW, by_split, clip, groups, tree, write

SENTENCES = ["bbaf2n", "lgiz9p", "srwa0s".replace("0", "z"), "pwbx1a"] + [
    f"{c}{k}a{letter}{d}n" for c, k in ("lb", "pr") for letter in "bcdfg" for d in "12"
]
BBAF2N = ["0 23750 sil", "23750 29500 bin", "29500 34000 blue", "34000 35500 at", "35500 41000 f"]
BBAF2N += ["41000 47250 two", "47250 53000 now", "53000 74500 sil"]


def lines(sentence):
    words = spoken(sentence).values()
    times = [(5000 * i, 5000 * i + 5000, word) for i, word in enumerate(words, start=1)]
    timed = ["0 5000 sil", *(f"{a} {b} {w}" for a, b, w in times), "35000 74500 sil"]
    return [*timed[:4], "20000 20000 sp", *timed[4:]]


def make(root, talkers=("s1",), sentences=SENTENCES, video="{}/{}.mpg", align="align/{}/{}.align"):
    for talker in talkers:
        tree(root, [video.format(talker, each) for each in sentences])
        for each in sentences:
            write(root / align.format(talker, each), *lines(each))
    return root


def test_a_word_is_a_clip_with_its_times(tmp_path):
    source = make(tmp_path)
    write(source / "align" / "s1" / "bbaf2n.align", *BBAF2N)
    listing = GRID(source).listing()
    assert listing.classes == tuple("abcdefghijklmnopqrstuvxyz")
    assert [each.id for each in listing.clips] == [f"s1/{s}/letter" for s in sorted(SENTENCES)]
    found = clip(listing, "s1/bbaf2n/letter")
    assert found == Clip(
        "s1/bbaf2n/letter",
        "f",
        found.split,
        {
            "audio": Sound("s1/bbaf2n.mpg", 1.42, 1.64),
            "visual": Frames("s1/bbaf2n.mpg", 1.42, 1.64),
        },
        "s1/bbaf2n",
        {"talker": "s1", "slot": "letter"},
    )
    assert listing.protocol.startswith("sentences: test: 0.2 of the words, whole sentences, by a")
    assert "slots: letter; classes without a training clip (" in listing.protocol


def test_talkers_of_whom_there_are_alignments_alone_are_not_missing(tmp_path):
    """The alignments come in one archive for all talkers, the videos in one for each."""
    source = make(tmp_path)
    alone = GRID(source).listing()
    write(source / "align" / "s2" / "bbaf2n.align", *BBAF2N)
    listing = GRID(source).listing()
    assert listing.failures == ()
    assert listing.clips == alone.clips
    assert listing.about["unlisted"] == ("files that belong to no clip (1): align/s2/bbaf2n.align")


def test_several_slots_keep_a_sentence_together(tmp_path):
    source = make(tmp_path)
    write(source / "align" / "s1" / "bbaf2n.align", *BBAF2N)
    listing = GRID(source, slots=("digit", "colour")).listing()
    assert listing.classes == (
        "blue", "green", "red", "white", "zero", "one", "two", "three", "four", "five", "six",
        "seven", "eight", "nine",
    )  # fmt: skip
    assert len(listing.clips) == 2 * len(SENTENCES)
    assert clip(listing, "s1/bbaf2n/digit").label == "two"
    assert clip(listing, "s1/bbaf2n/colour").pieces["audio"] == Sound("s1/bbaf2n.mpg", 1.18, 1.36)
    sets = [groups(listing, split) for split in ("train", "val", "test")]
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(SENTENCES)
    assert len(GRID(source, slots=tuple(SLOTS)).listing().classes) == 51


def test_a_margin_stays_within_the_recording(tmp_path):
    source = make(tmp_path)
    write(
        source / "align" / "s1" / "bbaf2n.align",
        "0 500 bin",
        *BBAF2N[2:6],
        "47250 74000 now",
        "74000 74500 sil",
    )
    clips = GRID(source, slots=("command", "letter", "adverb"), margin=0.1).listing()
    spans = {
        slot: (piece.start, piece.end)
        for slot in ("command", "letter", "adverb")
        for piece in [clip(clips, f"s1/bbaf2n/{slot}").pieces["visual"]]
    }
    assert spans["command"] == pytest.approx((0.0, 0.12))
    assert spans["letter"] == pytest.approx((1.32, 1.74))
    assert spans["adverb"] == pytest.approx((1.79, 2.98))


@pytest.mark.parametrize(
    ("video", "align"),
    [
        ("{}/{}.mpg", "align/{}/{}.align"),
        ("{0}/{0}/{1}.avi", "alignments/{}/{}.align"),
        ("video/{0}/mpg_6000/{1}.mp4", "{}/align/{}.align"),
    ],
)
def test_folders_above_and_below_the_talker_may_differ(tmp_path, video, align):
    source = make(tmp_path, ("s1", "s20"), video=video, align=align)
    listing = GRID(source).listing()
    assert len(listing.clips) == 2 * len(SENTENCES)
    assert listing.failures == ()
    piece = clip(listing, "s20/bbaf2n/letter").pieces["audio"]
    assert piece.path == video.format("s20", "bbaf2n")


def test_talkers_keeps_every_talker_in_one_split(tmp_path):
    source = make(tmp_path, [f"s{i}" for i in range(1, 11)])
    listing = GRID(source, protocol="talkers").listing()
    sets = [groups(listing, split) for split in ("train", "val", "test")]
    assert [len(each) for each in sets] == [7, 1, 2]
    assert len(set.union(*sets)) == 10
    for split, talkers in zip(("train", "val", "test"), sets, strict=True):
        assert {name.split("/")[0] for name in by_split(listing)[split]} == talkers


@pytest.mark.parametrize("talkers", [("s1",), ("s1", "s2")])
def test_talkers_is_refused_with_too_few(tmp_path, talkers):
    with pytest.raises(
        SetupError,
        match=f"three talkers or more, one for each of train, val and test, found {', '.join(talkers)}: use the protocol sentences",
    ):
        GRID(make(tmp_path, talkers), protocol="talkers").listing()


def test_what_lacks_a_file_or_a_good_alignment_is_left_out_with_its_words(tmp_path):
    source = make(tmp_path)
    whole = {c.id: c.split for c in GRID(source, slots=("letter", "digit")).listing().clips}
    align = source / "align" / "s1"
    (align / "bbaf2n.align").unlink()
    (source / "s1" / "lgiz9p.mpg").unlink()
    write(align / "srwazs.align", *lines("srwazs")[:-2])
    write(align / "pwbx1a.align", *lines("pwbx1a")[:-1], "oops")
    write(align / "lbab1n.align", *(text.replace(" blue", " red") for text in lines("lbab1n")))
    write(align / "lbac1n.align", *(text.replace("25000", "20000") for text in lines("lbac1n")))
    listing = GRID(source, slots=("letter", "digit")).listing()
    expected = {
        "bbaf2n": ("align/s1/bbaf2n.align", "no such file"),
        "lgiz9p": ("s1/lgiz9p.mpg", "no such file"),
        "srwazs": ("align/s1/srwazs.align", "alignment: 5 words, expected 6"),
        "pwbx1a": ("align/s1/pwbx1a.align", "alignment: line 9: expected start, end and word"),
        "lbab1n": ("align/s1/lbab1n.align", "alignment: line 3: red, expected blue"),
        "lbac1n": ("align/s1/lbac1n.align", "alignment: line 6: a word of no length"),
    }
    assert listing.failures == tuple(
        Failure(f"s1/{s}/{slot}", path, whole[f"s1/{s}/{slot}"], reason)
        for s, (path, reason) in sorted(expected.items())
        for slot in ("digit", "letter")
    )
    assert {c.id: c.split for c in listing.clips}.items() <= whole.items()
    assert len(listing.clips) + len(listing.failures) == len(whole)


def test_an_unknown_word_is_refused_with_its_line(tmp_path):
    source = make(tmp_path)
    path = source / "align" / "s1" / "bbaf2n.align"
    write(path, *(text.replace("blue", "bleu") for text in BBAF2N))
    with pytest.raises(
        SetupError, match=r"bbaf2n.align, line 3: unknown colour 'bleu': did you mean 'blue'"
    ):
        GRID(source).listing()


def test_other_files_are_counted_and_files_that_are_there_twice_refused(tmp_path):
    source = make(tmp_path)
    tree(source, ["s1/intro.mpg", "bbaf2n.mpg", "s1/wwww1n.mpg"])
    assert GRID(source).listing().about["unlisted"] == (
        "files that belong to no clip (3): bbaf2n.mpg, s1/intro.mpg, s1/wwww1n.mpg"
    )
    tree(source, ["s1/high/bbaf2n.avi"])
    with pytest.raises(
        SetupError, match=r"one file of s1/bbaf2n, found s1/bbaf2n.mpg and s1/high/bbaf2n.avi"
    ):
        GRID(source).listing()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slots": ("leter",)}, "slots: unknown slot 'leter': did you mean 'letter'"),
        ({"slots": ()}, "slots: expected names, none twice"),
        ({"slots": ("digit", "digit")}, "slots: expected names, none twice"),
        ({"slots": "digit"}, "slots: expected names, none twice, found 'digit'"),
        ({"protocol": "talker"}, "unknown protocol 'talker': did you mean 'talkers'"),
        ({"margin": -0.1}, "margin: expected 0 to 3 seconds, found -0.1"),
        ({"validation": 0.0}, "val: expected a share above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, said):
    with pytest.raises(SetupError, match=said):
        GRID(make(tmp_path), **options).listing()


def test_a_folder_without_videos_or_alignments_is_refused(tmp_path):
    with pytest.raises(SetupError, match=r"expected s1/bbaf2n.mpg and others of such names"):
        GRID(tree(tmp_path / "a", ["readme.txt"])).listing()
    with pytest.raises(SetupError, match=r"expected align/s1/bbaf2n.align and others"):
        GRID(tree(tmp_path / "b", ["s1/bbaf2n.mpg"])).listing()


def test_the_real_clips():
    source = RAW / "grid"
    if not source.is_dir():
        pytest.skip(f"{source} is not here: set EQUIMODAL_DATA to the folder that holds raw/")
    listing = GRID(source, slots=tuple(SLOTS)).listing()
    assert listing.failures == ()
    assert len(listing.clips) == 6 * 80
    assert {split: len(ids) for split, ids in by_split(listing).items()} == {
        "train": 348, "val": 36, "test": 96
    }  # fmt: skip
    found = clip(listing, "s1/bbaf3s/letter")
    assert (found.label, found.pieces["audio"].start, found.pieces["audio"].end) == (
        "f",
        1.12,
        1.24,
    )
    lengths = [c.pieces["audio"].end - c.pieces["audio"].start for c in listing.clips]
    assert min(lengths) > 0.03
    assert max(lengths) < 1.5


def test_alignments_that_count_frames_are_recognised(tmp_path):
    """The same words at the same seconds, also where only some of the files count frames."""
    from equimodal.data.layouts.grid_words import words

    units = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 at\n35500 41000 f\n"
    units += "41000 47250 two\n47250 53500 now\n53500 74500 sil\n"
    frames = "\n".join(
        " ".join([str(int(s) // 1000), str(int(e) // 1000), w])
        for s, e, w in (line.split() for line in units.splitlines())
    )
    (tmp_path / "units.align").write_text(units)
    (tmp_path / "frames.align").write_text(frames)
    exact, length = words(tmp_path / "units.align", "bbaf2n")
    coarse, counted = words(tmp_path / "frames.align", "bbaf2n")
    assert abs(length - counted) < 0.04
    for slot, word in exact.items():
        assert coarse[slot].text == word.text
        assert abs(coarse[slot].start - word.start) < 0.04
        assert abs(coarse[slot].end - word.end) < 0.04
