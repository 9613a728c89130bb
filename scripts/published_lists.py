"""What published lists hold, and what their test clips share with their training clips.

Prints the table of `docs/published-lists.md`, and with ``--known`` the entries of
`equimodal.data.known_lists`. The lists themselves are not ours to ship; clone the repositories
named in LISTS side by side, as OWNER+NAME, then:

    python scripts/published_lists.py CLONES
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from equimodal.data import leakage
from equimodal.data.known_lists import fingerprint
from equimodal.data.leaking import Group, Row


def crema_d(text: str) -> Iterator[Row]:
    """Lines such as 1001_DFA_ANG_XX,ANG or 1001_DFA_ANG_XX.flv Angry, with or without a head."""
    for line in text.split():
        name = line.split(",")[0].removesuffix(".flv")
        parts = name.split("_")
        if len(parts) == 4:
            yield {"id": name, "label": parts[2], "speaker": parts[0], "sentence": parts[1]}


def iemocap(text: str) -> Iterator[Row]:
    """Lines such as Ses03M_script02_1_M002.mp4 [split|sign] words [split|sign] Happy."""
    for line in filter(None, text.splitlines()):
        name, _, label = (part.strip() for part in line.split("[split|sign]"))
        dialogue, utterance = name.removesuffix(".mp4").rsplit("_", 1)
        speaker = dialogue[:5] + utterance[0]
        yield {
            "id": name.removesuffix(".mp4"),
            "label": label,
            "speaker": speaker,
            "dialogue": dialogue,
        }


def kinetics(text: str) -> Iterator[Row]:
    """Lines such as -3Mwkq-7TV4_2,10,23: video and class, class, frames or the other way round."""
    for line in text.split():
        name, *_, label = line.split(",")
        yield {"id": name, "label": label, "video": name[:11]}


def vggsound(text: str) -> Iterator[Row]:
    """Lines such as glLQrEijrKg_000300.mp4,playing hammond organ."""
    for name, label in csv.reader(io.StringIO(text)):
        stem = name.removesuffix(".mp4")
        yield {"id": stem, "label": label, "video": stem.rsplit("_", 1)[0]}


def ave(text: str) -> Iterator[Row]:
    """Lines such as Church bell&RUhOCu3LNXM&good&0&10."""
    for line in filter(None, text.splitlines()):
        label, video, _, start, end = line.split("&")
        span = {"video": video, "start": start, "end": end}
        yield {"id": f"{video}/{label}/{start}-{end}", "label": label, **span}


def meld(text: str) -> Iterator[Row]:
    """The columns of the published CSV files; times as 00:14:38,127."""
    for row in csv.DictReader(io.StringIO(text)):
        yield {
            "id": f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}",
            "label": row["Emotion"],
            "speaker": row["Speaker"],
            "episode": f"{row['Season']}x{row['Episode']}",
            "start": _seconds(row["StartTime"]),
            "end": _seconds(row["EndTime"]),
        }


def _seconds(text: str) -> float:
    hours, minutes, seconds = text.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@dataclass(frozen=True, eq=False)
class Published:
    """Lists of one repository that belong together."""

    data: str
    title: str
    repository: str
    files: dict[str, str]
    parse: Callable[[str], Iterator[Row]]
    groups: tuple[Group, ...]
    span: tuple[str, str, str] | None = None
    names: bool = True  # whether ids tell clips of different lists apart


ACTED: tuple[Group, ...] = ("speaker", ("speaker", "sentence"))
TIMES = ("video", "start", "end")
LISTS = (
    Published(
        "crema-d",
        "OGM-GE, CVPR 2022",
        "GeWu-Lab/OGM-GE_CVPR2022",
        {split: f"data/CREMAD/{split}.csv" for split in ("train", "test")},
        crema_d,
        ACTED,
    ),
    Published(
        "crema-d",
        "MLA, CVPR 2024",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        {split: f"data/my_{split}_cre.txt" for split in ("train", "test")},
        crema_d,
        ACTED,
    ),
    Published(
        "crema-d",
        "Diagnosing & Re-learning, ECCV 2024",
        "GeWu-Lab/Diagnosing_Relearning_ECCV2024",
        {
            "train": "code/dataset/cremad/train.csv",
            "my_train": "code/dataset/cremad/my_train.csv",
            "val": "code/dataset/cremad/val.csv",
            "test": "code/dataset/cremad/test.csv",
        },
        crema_d,
        ACTED,
    ),
    Published(
        "iemocap",
        "MLA, CVPR 2024",
        "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation",
        {split: f"data/my_{split}_iemo.txt" for split in ("train", "test")},
        iemocap,
        ("speaker", "dialogue"),
    ),
    Published(
        "kinetics-sounds",
        "OGM-GE, CVPR 2022",
        "GeWu-Lab/OGM-GE_CVPR2022",
        {split: f"data/KineticSound/my_{split}.txt" for split in ("train", "test")},
        kinetics,
        ("video",),
    ),
    Published(
        "kinetics-sounds",
        "InfoReg, CVPR 2025",
        "GeWu-Lab/InfoReg_CVPR2025",
        {split: f"data/KineticSound/my_{split}.txt" for split in ("train", "test")},
        kinetics,
        ("video",),
    ),
    Published(
        "vggsound",
        "VGGSound, ICASSP 2020",
        "hche11/VGGSound",
        {"test": "data/test.csv"},
        vggsound,
        ("video",),
    ),
    Published(
        "ave",
        "AVE, ECCV 2018 (copy)",
        "haoyi-duan/DG-SCT",
        {split: f"data/AVE/{split}Set.txt" for split in ("train", "val", "test")},
        ave,
        ("video",),
        TIMES,
    ),
    Published(
        "meld",
        "MELD, ACL 2019",
        "declare-lab/MELD",
        {
            split: f"data/MELD/{name}_sent_emo.csv"
            for split, name in {"train": "train", "val": "dev", "test": "test"}.items()
        },
        meld,
        ("episode", "speaker"),
        ("episode", "start", "end"),
        names=False,
    ),
)


def main() -> None:
    """Print the table, or the entries."""
    clones = Path(sys.argv[1])
    read = {each: _read(clones, each) for each in LISTS}
    if "--known" in sys.argv:
        for each, (commit, splits) in read.items():
            for split, rows in splits.items():
                ids = [str(row["id"]) for row in rows]
                print(
                    f'    KnownList("{each.data}", "{each.title}", "{split}", {len(set(ids))}, '
                    f'"{fingerprint(ids)}", "{each.repository}", "{commit[:12]}", '
                    f'"{each.files[split]}"),'
                )
        return
    print("| data | list | repository, commit, file | clips | fingerprint |")
    print("|---|---|---|---|---|")
    for each, (commit, splits) in read.items():
        for split, rows in splits.items():
            ids = [str(row["id"]) for row in rows]
            where = f"{each.repository} {commit[:12]} `{each.files[split]}`"
            print(
                f"| {each.data} | {each.title}: {split} | {where} | {len(rows):,} | "
                f"`{fingerprint(ids)}` |"
            )
    print()
    for each, (_, splits) in read.items():
        for line in _findings(each, splits):
            print(f"- **{each.data}, {each.title}**: {line}")
    for line in _between(read):
        print(f"- {line}")


def _findings(each: Published, splits: dict[str, list[Row]]) -> Iterator[str]:
    key = "id" if each.names else None
    for one, other in (("train", "test"), ("my_train", "test"), ("train", "val"), ("val", "test")):
        if one not in splits or other not in splits:
            continue
        found = leakage(splits[one], splits[other], each.groups, key=key, span=each.span)
        lines = "; ".join(found.lines())
        for word, name in (("test clips", f"{other} clips"), ("in test", f"in {other}")):
            lines = lines.replace(word, name)
        yield f"{other} against {one}: {lines.replace('in training', f'in {one}') or 'nothing'}"
    rows = [row for those in splits.values() for row in those]
    if each.span is not None:
        lengths = [float(row[each.span[2]]) - float(row[each.span[1]]) for row in rows]
        yield (
            f"{sum(length <= 0 for length in lengths)} of {len(rows):,} rows have no length, the "
            f"longest has {max(lengths):.0f} s"
        )
    if each.data == "vggsound":
        labels = [str(row["label"]) for row in rows]
        sizes = [labels.count(label) for label in sorted(set(labels))]
        yield (
            f"{len(rows):,} test clips of {len({row['video'] for row in rows}):,} videos; "
            + ", ".join(f"{sizes.count(n)} classes of {n}" for n in sorted(set(sizes)))
        )


def _between(read: dict[Published, tuple[str, dict[str, list[Row]]]]) -> Iterator[str]:
    """Say which lists of one data set hold clips of each other."""
    flat = [
        (each, split, {str(row["id"]) for row in rows})
        for each, (_, splits) in read.items()
        for split, rows in splits.items()
    ]
    for each, split, ids in flat:
        for other, second, those in flat:
            if each.data == other.data and each is not other and split == "test":
                yield (
                    f"**{each.data}**: {len(ids & those):,} of the {len(ids):,} clips of "
                    f"{each.title}: {split} are in {other.title}: {second}"
                )


def _read(clones: Path, each: Published) -> tuple[str, dict[str, list[Row]]]:
    clone = clones / each.repository.replace("/", "+")
    git = clone / "repo" if (clone / "repo").is_dir() else clone

    def said(*command: str) -> str:
        told = subprocess.run(["git", "-C", str(git), *command], capture_output=True, check=True)
        return told.stdout.decode("utf-8-sig")

    texts = {split: said("show", f"HEAD:{file}") for split, file in each.files.items()}
    commit = said("rev-parse", "HEAD").strip()
    splits = {split: list(each.parse(text)) for split, text in texts.items()}
    if each.data == "ave":  # as the layout names clips: by the video, if that has one event
        events = Counter(row["video"] for rows in splits.values() for row in rows)
        for split, rows in splits.items():
            splits[split] = [
                {**row, "id": row["video"]} if events[row["video"]] == 1 else row for row in rows
            ]
    return commit, splits


if __name__ == "__main__":
    main()
