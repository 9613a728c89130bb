"""Published lists, known by what they hold: the lists themselves are not here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class KnownList:
    """A published list of clips.

    Args:
        data: the data set that it is of.
        title: who published it.
        split: what for.
        clips: how many it holds.
        fingerprint: of their names.
        repository: on GitHub.
        commit: at which it was read.
        file: in the repository.
    """

    data: str
    title: str
    split: str
    clips: int
    fingerprint: str
    repository: str
    commit: str
    file: str

    def __str__(self) -> str:
        return (
            f"{self.split} of {self.title} ({self.clips:,} clips, {self.fingerprint}, "
            f"{self.repository} {self.file})"
        )


KNOWN = (
    KnownList(
        "crema-d",
        "OGM-GE, CVPR 2022",
        "train",
        6698,
        "0f03b406eb94",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "343dc1d95c9b",
        "data/CREMAD/train.csv",
    ),
    KnownList(
        "crema-d",
        "OGM-GE, CVPR 2022",
        "test",
        744,
        "2a5837cebb2d",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "343dc1d95c9b",
        "data/CREMAD/test.csv",
    ),
    KnownList(
        "crema-d",
        "MLA, CVPR 2024",
        "train",
        6698,
        "dee14feeddf1",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        "ab6c184579f9",
        "data/my_train_cre.txt",
    ),
    KnownList(
        "crema-d",
        "MLA, CVPR 2024",
        "test",
        744,
        "566c6109235b",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        "ab6c184579f9",
        "data/my_test_cre.txt",
    ),
    KnownList(
        "crema-d",
        "Diagnosing & Re-learning, ECCV 2024",
        "train",
        6698,
        "0f03b406eb94",
        "GeWu-Lab/Diagnosing_Relearning_ECCV2024",
        "025085ea82ed",
        "code/dataset/cremad/train.csv",
    ),
    KnownList(
        "crema-d",
        "Diagnosing & Re-learning, ECCV 2024",
        "my_train",
        5954,
        "2c3308413065",
        "GeWu-Lab/Diagnosing_Relearning_ECCV2024",
        "025085ea82ed",
        "code/dataset/cremad/my_train.csv",
    ),
    KnownList(
        "crema-d",
        "Diagnosing & Re-learning, ECCV 2024",
        "val",
        744,
        "fb08bfec1a37",
        "GeWu-Lab/Diagnosing_Relearning_ECCV2024",
        "025085ea82ed",
        "code/dataset/cremad/val.csv",
    ),
    KnownList(
        "crema-d",
        "Diagnosing & Re-learning, ECCV 2024",
        "test",
        744,
        "2a5837cebb2d",
        "GeWu-Lab/Diagnosing_Relearning_ECCV2024",
        "025085ea82ed",
        "code/dataset/cremad/test.csv",
    ),
    KnownList(
        "iemocap",
        "MLA, CVPR 2024",
        "train",
        3318,
        "5acfdedb0710",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        "ab6c184579f9",
        "data/my_train_iemo.txt",
    ),
    KnownList(
        "iemocap",
        "MLA, CVPR 2024",
        "test",
        1107,
        "baa6708063bf",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        "ab6c184579f9",
        "data/my_test_iemo.txt",
    ),
    KnownList(
        "kinetics-sounds",
        "OGM-GE, CVPR 2022",
        "train",
        14799,
        "f7da320e81d7",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "343dc1d95c9b",
        "data/KineticSound/my_train.txt",
    ),
    KnownList(
        "kinetics-sounds",
        "OGM-GE, CVPR 2022",
        "test",
        2597,
        "4b78ea36de08",
        "GeWu-Lab/OGM-GE_CVPR2022",
        "343dc1d95c9b",
        "data/KineticSound/my_test.txt",
    ),
    KnownList(
        "kinetics-sounds",
        "InfoReg, CVPR 2025",
        "train",
        14799,
        "f7da320e81d7",
        "GeWu-Lab/InfoReg_CVPR2025",
        "939b2ed11dcb",
        "data/KineticSound/my_train.txt",
    ),
    KnownList(
        "kinetics-sounds",
        "InfoReg, CVPR 2025",
        "test",
        2597,
        "4b78ea36de08",
        "GeWu-Lab/InfoReg_CVPR2025",
        "939b2ed11dcb",
        "data/KineticSound/my_test.txt",
    ),
    KnownList(
        "vggsound",
        "VGGSound, ICASSP 2020",
        "test",
        15446,
        "1f394a562025",
        "hche11/VGGSound",
        "9bbc7491c054",
        "data/test.csv",
    ),
    KnownList(
        "ave",
        "AVE, ECCV 2018 (copy)",
        "train",
        3339,
        "3dc0ae21b739",
        "haoyi-duan/DG-SCT",
        "211fc57f0093",
        "data/AVE/trainSet.txt",
    ),
    KnownList(
        "ave",
        "AVE, ECCV 2018 (copy)",
        "val",
        402,
        "847cb3fc9645",
        "haoyi-duan/DG-SCT",
        "211fc57f0093",
        "data/AVE/valSet.txt",
    ),
    KnownList(
        "ave",
        "AVE, ECCV 2018 (copy)",
        "test",
        402,
        "c09833c2da14",
        "haoyi-duan/DG-SCT",
        "211fc57f0093",
        "data/AVE/testSet.txt",
    ),
    KnownList(
        "meld",
        "MELD, ACL 2019",
        "train",
        9989,
        "ec4c68a12eb0",
        "declare-lab/MELD",
        "2d2011b409d3",
        "data/MELD/train_sent_emo.csv",
    ),
    KnownList(
        "meld",
        "MELD, ACL 2019",
        "val",
        1109,
        "225bf029a7f2",
        "declare-lab/MELD",
        "2d2011b409d3",
        "data/MELD/dev_sent_emo.csv",
    ),
    KnownList(
        "meld",
        "MELD, ACL 2019",
        "test",
        2610,
        "9f69808e0f31",
        "declare-lab/MELD",
        "2d2011b409d3",
        "data/MELD/test_sent_emo.csv",
    ),
)


def fingerprint(names: Iterable[str]) -> str:
    """Return 12 hex digits over which clips a list names, whatever their order.

    >>> fingerprint(["b", "a"]) == fingerprint(["a", "b", "a"])
    True
    """
    return hashlib.sha256("\n".join(sorted(set(names))).encode()).hexdigest()[:12]


def recognised(members: Mapping[str, Iterable[str]]) -> dict[str, tuple[KnownList, ...]]:
    """Return which published lists splits are, by split: several may hold the same clips.

    Args:
        members: names of the clips of each split; folders and endings do not count. A validation
            split that was held out of a training list is put back.
    """
    names = {split: {_bare(name) for name in those} for split, those in members.items()}
    names["train and val"] = names.get("train", set()) | names.get("val", set())
    found = {}
    for split, those in names.items():
        print_of = fingerprint(those)
        if same := tuple(known for known in KNOWN if known.fingerprint == print_of):
            found[split] = same
    return found


def _bare(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix in ENDINGS else name


ENDINGS = {".mp4", ".flv", ".wav", ".avi", ".mkv", ".webm", ".mpg"}
