"""GRID: sentences by 34 talkers, each in an archive of its own, with times of their words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from equimodal.data.download.failure import DownloadError
from equimodal.data.download.published import Choice, File, Published, Take
from equimodal.errors import SetupError, unknown

RECORD = "3625687"
TALKERS = tuple(f"s{number}" for number in range(1, 35) if number != 21)  # of s21 there is no video
SHARE = 0.9  # of a talker's clips that must have times

# Sizes in MB as Zenodo shows them, and MD5; for what is not here both are read from the record.
STATED = {
    "s1": (423.5, "cbd6556668f061b5c3681bc722659b39"),
    "s2": (394.6, "36e513652d9abec68c721221ede557df"),
    "s3": (394.1, "b854132feecda313f0a0c6145131d693"),
    "s4": (491.9, "1bb4543ca0a27fe76e2874845468a016"),
    "s5": (407.2, "895d17182889324dd2453aff0ae49083"),
    "s6": (423.3, "e82a4330653ed81d00c0d2738431e6e7"),
    "s7": (384.1, "ff31aaddf10bbe345aa1a8434b205fd5"),
    "s8": (412.9, "af52367c91e96c20cabb0820046dbd73"),
    "s9": (390.2, "602221e579190b7cb393b4b86a4228bc"),
    "s10": (429.5, "628b4df6915b379e2c050512f661fa04"),
}
ABOUT = 412e6  # bytes of a talker's archive, where it is not stated


def grid(talkers: Sequence[str] | None = None) -> Published:
    """Return GRID, of some talkers.

    Args:
        talkers: such as ["s1", "s2"]; all by default.

    Raises:
        SetupError: a talker is not known or named twice.
    """
    chosen = TALKERS if talkers is None else tuple(talkers)
    for talker in chosen:
        if talker not in TALKERS:
            raise SetupError("--talkers: " + unknown("talker", talker, TALKERS))
    if not chosen or len(set(chosen)) < len(chosen):
        found = ", ".join(chosen) or "none"
        raise SetupError(f"--talkers: expected one or more, none twice, found {found}")
    who = "all 33 talkers with video" if len(chosen) == len(TALKERS) else ", ".join(chosen)
    times = tuple(Take(f"times-{talker}", _times_of(talker)) for talker in chosen)
    return Published(
        name="grid",
        title=f"GRID audio-visual sentence corpus: {who}",
        page=f"https://zenodo.org/records/{RECORD}",
        licence="free for research (Cooke et al. 2006); the Zenodo copy is said to be CC BY 4.0: "
        "read its page",
        citation="M. Cooke, J. Barker, S. Cunningham, X. Shao: An audio-visual corpus for speech "
        "perception and automatic speech recognition. JASA 120(5), 2006.",
        layout="s*/*.mpg and align/s*/*.align",
        files=(
            *(_clips(talker) for talker in chosen),
            # Last: which times are whose is seen by the names of the clips.
            File("alignments.zip", _address("alignments.zip"), size=20_000_000, takes=times),
        ),
        prepare="grid",
        checksums=f"https://zenodo.org/api/records/{RECORD}",
        note="Some folders of the Zenodo copy's alignments belong to another talker than their "
        "name says: they are assigned by the names of the clips.",
    )


def _clips(talker: str) -> File:
    size, digest = STATED.get(talker, (ABOUT / 1e6, None))
    name = f"{talker}.zip"
    return File(
        name,
        _address(name),
        checksum=digest and f"md5:{digest}",
        size=int(size * 1e6),
        takes=(Take(talker, _clips_of(talker)),),
    )


def _address(name: str) -> str:
    return f"https://zenodo.org/records/{RECORD}/files/{name}?download=1"


def _clips_of(talker: str) -> Choice:
    def choose(names: Sequence[str], root: Path) -> Mapping[str, str]:
        return {name: f"{talker}/{path.name}" for name, path in _visible(names, ".mpg")}

    return choose


def _times_of(talker: str) -> Choice:
    def choose(names: Sequence[str], root: Path) -> Mapping[str, str]:
        folders: dict[PurePosixPath, dict[str, str]] = defaultdict(dict)
        for name, path in _visible(names, ".align"):
            folders[path.parent][path.stem] = name
        clips = {path.stem for path in (root / talker).glob("*.mpg")}
        # A talker has said each colour, letter and digit once, with other words drawn at random
        # (1 of 64): two talkers share few sentences.
        best = max(folders.values(), key=lambda folder: len(clips & folder.keys()), default={})
        shared = len(clips & best.keys())
        if not clips or shared < SHARE * len(clips):
            raise DownloadError(
                f"{talker}: expected a folder with times of {SHARE:.0%} of its {len(clips)} clips, "
                f"the best has those of {shared}"
            )
        return {name: f"align/{talker}/{stem}.align" for stem, name in sorted(best.items())}

    return choose


def _visible(names: Sequence[str], suffix: str) -> list[tuple[str, PurePosixPath]]:
    """Return the files with a suffix, without those that macOS adds to archives."""
    paths = [(name, PurePosixPath(name)) for name in names]
    return [
        (name, path)
        for name, path in paths
        if path.suffix == suffix and "__MACOSX" not in path.parts and path.name[:1] != "."
    ]
