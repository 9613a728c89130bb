"""AV-MNIST: images and recordings of the same digit, speakers kept apart."""

from __future__ import annotations

import gzip
import struct
from collections import Counter

import pytest

from equimodal import SetupError
from equimodal.data.layouts import AVMNIST, Clip, Picture, Sound
from support.trees import RAW, by_split, clip, groups, tree

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TRAIN = [(7 * i) % 10 for i in range(200)]
TEST = [(3 * i) % 10 for i in range(50)]


def images(count):
    return struct.pack(">4I", 0x803, count, 28, 28) + bytes(count * 784)


def labels(digits):
    return struct.pack(">2I", 0x801, len(digits)) + bytes(digits)


def mnist(folder, joint="-", packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for part, digits in (("train", TRAIN), ("t10k", TEST)):
        for kind, axes, data in (("images", 3, images(len(digits))), ("labels", 1, labels(digits))):
            name = f"{part}-{kind}{joint}idx{axes}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)


@pytest.fixture
def source(tmp_path):
    mnist(tmp_path / "mnist")
    return tree(
        tmp_path, [f"fsdd/{d}_{s}_{i}.wav" for d in range(10) for s in SPEAKERS for i in range(4)]
    )


def test_every_image_is_heard_once_in_its_split(source):
    listing = AVMNIST(source).listing()
    assert listing.classes == tuple("0123456789")
    assert listing.modalities == ("image", "audio")
    assert len(listing.clips) == 250
    assert {split: len(ids) for split, ids in by_split(listing).items()} == {
        "train": 180, "val": 20, "test": 50
    }  # fmt: skip
    for each in listing.clips:
        part, number = each.id.split("-")
        digit = str((TRAIN if part == "train" else TEST)[int(number)])
        assert each.label == digit
        assert each.pieces["image"] == Picture(f"mnist/{part}-images-idx3-ubyte", int(number))
        recording = each.columns["recording"]
        assert each.pieces["audio"] == Sound(f"fsdd/{recording}.wav")
        assert recording.split("_")[:2] == [digit, each.group]
        assert (part == "t10k") == (each.split == "test")
    speakers = [groups(listing, split) for split in ("train", "val", "test")]
    assert speakers[2] == {"theo", "yweweler"}
    assert [len(each) for each in speakers] == [3, 1, 2]
    assert set.union(*speakers) == set(SPEAKERS)
    # In turn, so that no recording is used much more than another.
    for split, most in (("train", 180 / 120), ("val", 20 / 40), ("test", 50 / 80)):
        uses = Counter(c.columns["recording"] for c in listing.clips if c.split == split)
        assert max(uses.values()) <= most + 1
    # Mixed, so that few images are not all heard from one speaker.
    threes = [c.columns["recording"] for c in listing.clips if c.split == "test" and c.label == "3"]
    assert len(set(threes)) == 5
    assert threes != sorted(threes)
    assert "Not the AV-MNIST of Vielzeuf" in listing.about["caution"]


def test_a_clip_in_full(source):
    found = clip(AVMNIST(source).listing(), "t10k-00007")
    assert found == Clip(
        "t10k-00007",
        "1",
        "test",
        {
            "image": Picture("mnist/t10k-images-idx3-ubyte", 7),
            "audio": Sound(f"fsdd/{found.columns['recording']}.wav"),
        },
        found.columns["recording"].split("_")[1],
        {"recording": found.columns["recording"]},
    )


@pytest.mark.parametrize(("joint", "packed"), [("-", True), (".", False), (".", True)])
def test_files_of_mnist_go_by_their_usual_names(source, tmp_path, joint, packed):
    before = AVMNIST(source).listing()
    for path in (source / "mnist").iterdir():
        path.unlink()
    mnist(source / "MNIST" / "raw", joint, packed)
    ending = ".gz" if packed else ""
    listing = AVMNIST(source).listing()
    assert (
        listing.clips[0].pieces["image"].path == f"MNIST/raw/t10k-images{joint}idx3-ubyte{ending}"
    )
    assert [(c.id, c.label, c.split, c.columns) for c in listing.clips] == [
        (c.id, c.label, c.split, c.columns) for c in before.clips
    ]


def test_packed_files_beside_unpacked_ones_are_passed_over(source):
    before = AVMNIST(source).listing()
    mnist(source / "mnist", packed=True)
    assert AVMNIST(source).listing() == before
    mnist(source / "again")
    with pytest.raises(SetupError, match=r"one file of train images, found again/.* and mnist/"):
        AVMNIST(source).listing()


def test_other_speakers_may_be_held_out(source):
    listing = AVMNIST(source, test_speakers=("george",), validation=0.4).listing()
    assert groups(listing, "test") == {"george"}
    assert len(groups(listing, "val")) == 2
    assert len(by_split(listing)["val"]) == 80


def test_sounds_of_other_names_are_counted(source):
    tree(source, ["fsdd/noise.wav"])
    assert (
        AVMNIST(source).listing().about["unlisted"]
        == "files that belong to no clip (1): fsdd/noise.wav"
    )


def test_what_does_not_fit_is_refused(source, tmp_path):
    with pytest.raises(
        SetupError, match="test_speakers: unknown speaker 'teo': did you mean 'theo'"
    ):
        AVMNIST(source, test_speakers=("teo",)).listing()
    with pytest.raises(SetupError, match="test_speakers: expected names, found 'theo'"):
        AVMNIST(source, test_speakers="theo").listing()
    with pytest.raises(
        SetupError,
        match="two speakers or more beside those of test, for train and val, found yweweler",
    ):
        AVMNIST(source, test_speakers=SPEAKERS[:5]).listing()
    tree(source, ["again/3_lucas_1.wav"])
    with pytest.raises(SetupError, match=r"one file 3_lucas_1.wav, found again/.* and fsdd/"):
        AVMNIST(source).listing()
    (source / "again" / "3_lucas_1.wav").unlink()
    for path in source.glob("fsdd/3_*_*.wav"):
        if "theo" in path.name or "yweweler" in path.name:
            path.unlink()
    with pytest.raises(SetupError, match="expected recordings of 3 by the speakers of test"):
        AVMNIST(source).listing()
    mnist(tmp_path / "else" / "mnist")
    with pytest.raises(SetupError, match=r"expected recordings such as 7_theo_12.wav"):
        AVMNIST(tmp_path / "else").listing()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("train-labels-idx1-ubyte", labels(TRAIN)[:-1], "expected 208 bytes or more, found 207"),
        (
            "train-labels-idx1-ubyte",
            labels(TRAIN[:-1]),
            "a digit for each of 200 images .* found 199",
        ),
        ("train-labels-idx1-ubyte", labels([*TRAIN[:-1], 10]), "found 200 labels up to 10"),
        ("train-labels-idx1-ubyte", images(1), "expected an IDX file of labels"),
        ("train-images-idx3-ubyte", labels(TRAIN), "expected an IDX file of images"),
        ("train-images-idx3-ubyte", b"", "expected 16 bytes or more, found 0: cut off"),
    ],
)
def test_files_of_mnist_that_are_damaged_are_refused(source, name, data, said):
    (source / "mnist" / name).write_bytes(data)
    with pytest.raises(SetupError, match=f"{name}: {said}|{name}: .*{said}"):
        AVMNIST(source).listing()


def test_a_packed_file_that_is_damaged_or_missing_is_refused(source):
    (source / "mnist" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(
        SetupError,
        match=r"expected train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz, found neither",
    ):
        AVMNIST(source).listing()
    path = source / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(labels(TRAIN))[:-12])
    with pytest.raises(SetupError, match=r"train-labels-idx1-ubyte.gz: cannot be read"):
        AVMNIST(source).listing()
    path.write_bytes(b"not packed at all")
    with pytest.raises(SetupError, match=r"train-labels-idx1-ubyte.gz: cannot be read"):
        AVMNIST(source).listing()


def test_the_real_files():
    if not (RAW / "fsdd").is_dir():
        pytest.skip(f"{RAW / 'fsdd'} is not here: set EQUIMODAL_DATA to the folder that holds raw/")
    listing = AVMNIST(RAW).listing()
    assert {split: len(ids) for split, ids in by_split(listing).items()} == {
        "train": 7650, "val": 850, "test": 1500
    }  # fmt: skip
    assert len({c.columns["recording"] for c in listing.clips}) == 3000
    assert groups(listing, "test") == {"theo", "yweweler"}
