"""Small copies of what publishers offer, in the archives that they offer it in."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

SENTENCES = {"s11": "bbaf2n bbbc7a brih1s bgwz9p", "s12": "bgbb5n brad3a bwiq8s bwwv1p"}

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPOKEN: list[dict[str, str]] = [
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {},
    {**{str(number): word for number, word in enumerate(DIGITS)}, "z": "zero"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
]


def zipped(content: Mapping[str, bytes]) -> bytes:
    """Pack files into a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return packed.getvalue()


def tarred(content: Mapping[str, bytes]) -> bytes:
    """Pack files into a tar.gz."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def noise(name: str, size: int = 400) -> bytes:
    """Content that is different for each name."""
    return random.Random(name).randbytes(size)


def grid(talkers: Sequence[str] = ("s11", "s12"), size: int = 400) -> dict[str, bytes]:
    """GRID as on Zenodo: archives of talkers, and alignments in folders of wrong names."""
    files, times = {}, {}
    # The times of each talker lie in the folder of the next one, as in the real archive.
    wrong = dict(zip(SENTENCES, [*list(SENTENCES)[1:], next(iter(SENTENCES))], strict=True))
    for talker, sentences in SENTENCES.items():
        clips = {f"{talker}/{each}.mpg": noise(talker + each, size) for each in sentences.split()}
        clips |= {f"__MACOSX/{talker}/._x.mpg": b"mac"}
        if talker in talkers:
            files[f"/{talker}.zip"] = zipped(clips)
        for each in sentences.split():
            times[f"alignments/{wrong[talker]}/{each}.align"] = _times(talker, each)
    files["/alignments.zip"] = zipped(times)
    return files


def _times(talker: str, sentence: str) -> bytes:
    """Times of six words; the first begins at 10 ms for each talker's number."""
    spoken = [SPOKEN[place].get(letter, letter) for place, letter in enumerate(sentence)]
    begins = [250 * int(talker[1:]) + 6_000 * place for place in range(7)]
    parts = zip(begins, begins[1:], spoken, strict=False)
    lines = [f"0 {begins[0]} sil", *(f"{start} {end} {word}" for start, end, word in parts)]
    return "\n".join([*lines, f"{begins[-1]} 74500 sil", ""]).encode()


def crema_d(index: str, actors: Sequence[int] = range(1001, 1021)) -> dict[str, bytes]:
    """CREMA-D: an archive of pointers of Git LFS, and the files that they stand for."""
    files, pointers = {}, {"CREMA-D-1658cd3/README.md": b"CREMA-D"}
    for actor in actors:
        for emotion in ("ANG", "HAP"):
            for folder, suffix in (("AudioWAV", "wav"), ("VideoFlash", "flv"), ("AudioMP3", "mp3")):
                path = f"{folder}/{actor}_DFA_{emotion}_XX.{suffix}"
                data = noise(path)
                files[f"/{path}"] = data
                pointers[f"CREMA-D-1658cd3/{path}"] = (
                    "version https://git-lfs.github.com/spec/v1\n"
                    f"oid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n"
                ).encode()
    return {f"/{index}": tarred(pointers), **files}


def ave() -> dict[str, bytes]:
    """AVE as in its authors' archive."""
    rows = [f"Church bell&vid-{number:07}&good&0&10" for number in range(6)]
    lists = {"Annotations": rows, "trainSet": rows[:4], "valSet": rows[4:5], "testSet": rows[5:]}
    content = {f"AVE_Dataset/AVE/vid-{number:07}.mp4": noise(f"{number}") for number in range(6)}
    for name, lines in lists.items():
        content[f"AVE_Dataset/{name}.txt"] = ("\n".join(lines) + "\n").encode()
    return {"/AVE_Dataset.zip": zipped(content)}


def digits() -> dict[str, bytes]:
    """MNIST and the spoken digits: twenty images for each part, two recordings a digit."""
    files = {}
    for part in ("train", "t10k"):
        labels = bytes(number % 10 for number in range(20))
        images = struct.pack(">IIII", 2051, 20, 28, 28) + bytes(20 * 28 * 28)
        files[f"/{part}-images-idx3-ubyte.gz"] = gzip.compress(images, mtime=0)
        packed = gzip.compress(struct.pack(">II", 2049, 20) + labels, mtime=0)
        files[f"/{part}-labels-idx1-ubyte.gz"] = packed
    top = "free-spoken-digit-dataset-1.0.10"
    speakers = ("george", "jackson", "theo", "yweweler")
    recordings = {
        f"{top}/recordings/{digit}_{speaker}_{index}.wav": noise(f"{digit}{speaker}{index}")
        for digit in range(10)
        for speaker in speakers
        for index in range(2)
    }
    files[f"/{top}.zip"] = zipped({f"{top}/README.md": b"FSDD", **recordings})
    return files
