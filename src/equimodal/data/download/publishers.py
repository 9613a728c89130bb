"""The data sets with a direct public address, and where to ask for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from equimodal.data.download.grid import grid
from equimodal.data.download.pointers import pointed
from equimodal.data.download.published import Elsewhere, File, Published, Take
from equimodal.errors import SetupError, unknown

CREMA_D = "CheyneyComputerScience/CREMA-D"
CREMA_D_COMMIT = "1658cd342dff90010aa843eaeebd53610a08b1dc"
AVE_ID = "1FjKwe79e0u96vdjIVwfRQ1V6SoDHe7kK"
AVE_LISTS = ("Annotations.txt", "trainSet.txt", "valSet.txt", "testSet.txt")
MNIST_BASE = "https://ossci-datasets.s3.amazonaws.com/mnist"
FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset"

SPOKEN = File(
    "free-spoken-digit-dataset-1.0.10.zip",
    f"{FSDD}/archive/refs/tags/v1.0.10.zip",
    # Of the archive that GitHub made in 2026. It promises the same files, not the same bytes.
    checksum="sha256:c680098f5d2355ba7cc4bd8b0ca9e0a24c00ebe3b4c552208889a4d28d4fbc2b",
    size=16_419_872,
    takes=(Take("recordings", lambda names, root: _recordings(names)),),
)
WRITTEN = tuple(
    File(name, f"{MNIST_BASE}/{name}", checksum=f"md5:{digest}", size=size, place=f"mnist/{name}")
    for name, digest, size in (
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    )
)
SPOKEN_TERMS = "CC BY-SA 4.0"
WRITTEN_TERMS = "CC BY-SA 3.0"
SPOKEN_CITATION = "Z. Jackson et al.: Free Spoken Digit Dataset, v1.0.10."
WRITTEN_CITATION = (
    "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document "
    "recognition. Proc. IEEE 86(11), 1998."
)


def fsdd() -> Published:
    """Return the spoken digits."""
    return Published(
        name="fsdd",
        title="Free Spoken Digit Dataset, v1.0.10: 3,000 recordings of 6 speakers",
        page=FSDD,
        licence=SPOKEN_TERMS,
        citation=SPOKEN_CITATION,
        layout="fsdd/recordings/*.wav",
        files=(SPOKEN,),
        prepare="av-mnist",
        note="Half of AV-MNIST: `equimodal download mnist` brings the other half.",
    )


def mnist() -> Published:
    """Return the written digits."""
    return Published(
        name="mnist",
        title="MNIST: 70,000 images of handwritten digits",
        page="http://yann.lecun.com/exdb/mnist",
        licence=WRITTEN_TERMS,
        citation=WRITTEN_CITATION,
        layout="mnist/*.gz",
        files=WRITTEN,
        prepare="av-mnist",
        note="Half of AV-MNIST: `equimodal download fsdd` brings the other half.",
    )


def av_mnist() -> Published:
    """Return written and spoken digits."""
    return Published(
        name="av-mnist",
        title="AV-MNIST: handwritten digits of MNIST and spoken ones of FSDD",
        page=f"{FSDD} and http://yann.lecun.com/exdb/mnist",
        licence=f"images {WRITTEN_TERMS}, recordings {SPOKEN_TERMS}",
        citation=f"{WRITTEN_CITATION} {SPOKEN_CITATION}",
        layout="mnist/*.gz and fsdd/recordings/*.wav",
        files=(*WRITTEN, SPOKEN),
        prepare="av-mnist",
    )


def crema_d() -> Published:
    """Return CREMA-D, file by file: the repository states each one's SHA-256."""
    folders, suffixes = ("AudioWAV", "VideoFlash"), (".wav", ".flv")
    base = f"https://media.githubusercontent.com/media/{CREMA_D}/{CREMA_D_COMMIT}"
    return Published(
        name="crema-d",
        title="CREMA-D: 7,442 clips of 91 actors, six emotions",
        page=f"https://github.com/{CREMA_D}",
        licence="Open Database License 1.0, contents under the Database Contents License 1.0",
        citation="H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: CREMA-D: "
        "Crowd-sourced Emotional Multimodal Actors Dataset. IEEE TAC 5(4), 2014.",
        layout="AudioWAV/*.wav and VideoFlash/*.flv",
        files=(),
        prepare="crema-d",
        index=File(
            f"CREMA-D-{CREMA_D_COMMIT[:7]}.tar.gz",
            f"https://github.com/{CREMA_D}/archive/{CREMA_D_COMMIT}.tar.gz",
        ),
        listed=partial(pointed, folders=folders, suffixes=suffixes, base=base),
        estimate=3_000_000_000,
        note="14,884 small files, one by one: it takes an hour or so.",
    )


def ave() -> Published:
    """Return AVE, from its authors' Google Drive."""
    return Published(
        name="ave",
        title="AVE: 4,143 audio-visual events of 28 classes in videos of 10 s",
        page=f"https://drive.google.com/open?id={AVE_ID}",
        licence="not stated by its authors; the videos are YouTube's users': for research",
        citation="Y. Tian, J. Shi, B. Li, Z. Duan, C. Xu: Audio-Visual Event Localization in "
        "Unconstrained Videos. ECCV 2018.",
        layout=f"AVE/*.mp4, {', '.join(AVE_LISTS)}",
        files=(
            File(
                "AVE_Dataset.zip",
                "https://drive.usercontent.google.com/download"
                f"?id={AVE_ID}&export=download&confirm=t",
                size=5_665_119_358,
                takes=(Take("ave", lambda names, root: _events(names)),),
            ),
        ),
        prepare="ave",
        note="Google Drive limits how often a file is fetched in a day.",
    )


def kinetics_sounds() -> Elsewhere:
    """Say where Kinetics-Sounds is."""
    return Elsewhere(
        name="kinetics-sounds",
        title="Kinetics-Sounds: the classes of Kinetics that are seen and heard",
        where="The clips are on YouTube, and its publisher offers lists alone. Lists, and copies "
        "that the CVD Foundation keeps: https://github.com/cvdfoundation/kinetics-dataset.",
        layout="the video files, and the annotation CSVs of Kinetics (label, youtube_id, "
        "time_start, time_end, split)",
        prepare="kinetics-sounds",
    )


def vggsound() -> Elsewhere:
    """Say where VGGSound is."""
    return Elsewhere(
        name="vggsound",
        title="VGGSound: 200,000 clips of 10 s, 309 classes",
        where="The clips are on YouTube, and its publisher offers the list alone. List, terms and "
        "authors to ask: https://www.robots.ox.ac.uk/~vgg/data/vggsound/.",
        layout="the mp4 files, and vggsound.csv (YouTube id, start second, label, split)",
        prepare="vggsound",
    )


SETS: Mapping[str, Callable[[], Published | Elsewhere]] = {
    "grid": grid,
    "crema-d": crema_d,
    "ave": ave,
    "av-mnist": av_mnist,
    "mnist": mnist,
    "fsdd": fsdd,
    "kinetics-sounds": kinetics_sounds,
    "vggsound": vggsound,
}


def find(name: str, talkers: Sequence[str] | None = None) -> Published | Elsewhere:
    """Return what is published under a name.

    Args:
        name: such as "grid".
        talkers: of GRID, those wanted.

    Raises:
        SetupError: it is not known, or has no talkers.
    """
    if name not in SETS:
        raise SetupError(unknown("data set", name, SETS))
    if talkers is None:
        return SETS[name]()
    if name != "grid":
        raise SetupError(f"--talkers: {name} has none, grid has: leave it out")
    return grid(talkers)


def _recordings(names: Sequence[str]) -> Mapping[str, str]:
    return {
        name: f"fsdd/recordings/{PurePosixPath(name).name}"
        for name in names
        if PurePosixPath(name).parent.name == "recordings" and name.endswith(".wav")
    }


def _events(names: Sequence[str]) -> Mapping[str, str]:
    places = {}
    for name in names:
        path = PurePosixPath(name)
        if "__MACOSX" in path.parts or path.name[:1] == ".":
            continue
        if path.suffix == ".mp4":
            places[name] = f"AVE/{path.name}"
        elif path.name in AVE_LISTS:
            places[name] = path.name
    return places
