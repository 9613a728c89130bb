"""README.md of a prepared folder: the card that people read, and the Hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from equimodal.data.preparing.folder import DATA
from equimodal.data.preparing.plan import SPLITS

# As the Hub spells licences of data.
LICENCES = {
    "cc0-1.0": r"cc0\b",
    "cc-by-nc-sa-4.0": r"cc[ -]by-nc-sa 4\.0",
    "cc-by-nc-4.0": r"cc[ -]by-nc 4\.0",
    "cc-by-sa-4.0": r"cc[ -]by-sa 4\.0",
    "cc-by-sa-3.0": r"cc[ -]by-sa 3\.0",
    "cc-by-4.0": r"cc[ -]by 4\.0",
    "odbl": r"odbl\b|open database licen[sc]e",
    "mit": r"mit\b",
}


def card(dataset: Mapping[str, Any], text: str, reasons: Counter[str]) -> str:
    """Return the card.

    Args:
        dataset: what dataset.json holds.
        text: of dataset.json.
        reasons: how often clips failed for each.
    """
    about = dict(dataset["about"])
    title = about.pop("title", dataset["name"])
    lines = [
        _front(dataset, title),
        f"# {title}",
        "",
        f"Prepared by equimodal {_version(dataset)}: {_content(dataset)}.",
        "",
        "```python",
        "from equimodal import data",
        "",
        'splits = data.load("DIR")  # this folder',
        "```",
        "",
        *_table(("", ""), [(_capital(key), value) for key, value in about.items()]),
        "## Splits",
        "",
        f"{_capital(dataset['protocol'])}.",
        "",
        *_table(
            ("split", "clips", "left out"),
            [(s, f"{d['rows']:,}", f"{d['planned'] - d['rows']:,}") for s, d in _splits(dataset)],
        ),
    ]
    if dataset.get("published"):
        lines += ["Published lists:", "", *(f"- {_plain(each)}" for each in dataset["published"])]
        lines.append("")
    if dataset.get("shared"):
        lines += [
            "What the splits share, of which a model may make use:",
            "",
            *(f"- {_plain(each)}" for each in dataset["shared"]),
            "",
        ]
    if reasons:
        lines += [
            "Left out, as `failures.csv` lists one by one:",
            "",
            *_table(("reason", "clips"), [(r, f"{n:,}") for r, n in reasons.most_common()]),
        ]
    lines += [
        "## Hashes",
        "",
        f"- Fingerprint of splits and classes: `{dataset['fingerprint']}`",
        "- SHA-256 of `dataset.json`, which holds that of every shard: "
        f"`{hashlib.sha256(text.encode()).hexdigest()}`",
        "",
        f"## {len(dataset['classes'])} classes",
        "",
        ", ".join(map(_plain, dataset["classes"])),
        "",
    ]
    return "\n".join(lines)


def licence(text: str) -> str:
    """Return the Hub's name of the licence that a text begins with, or "other".

    >>> licence("CC BY-SA 4.0"), licence("free for research; a copy is said to be CC BY 4.0")
    ('cc-by-sa-4.0', 'other')
    """
    for name, pattern in LICENCES.items():
        if re.match(pattern, text, re.IGNORECASE):
            return name
    return "other"


def _front(dataset: Mapping[str, Any], title: str) -> str:
    """Return the YAML by which `datasets` and the Hub find the splits."""
    lines = [
        "---",
        f"pretty_name: {json.dumps(title)}",
        f"license: {licence(dataset['about'].get('licence', ''))}",
        "tags:",
        "- equimodal",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split in SPLITS:
        lines += [f"  - split: {split}", f"    path: {DATA}/{split}-*.parquet"]
    return "\n".join([*lines, "---"])


def _content(dataset: Mapping[str, Any]) -> str:
    recipe = dataset["recipe"]
    said = {
        "sound": f"mono WAV of 16 bit at {recipe['rate']:,} Hz",
        "frames": (
            f"{recipe['fps']:g} frames for each second, JPEG of quality {recipe['quality']}, "
            f"shorter side {recipe['side']} at most"
        ),
        "picture": "PNG",
        "flow": f"{recipe['fps']:g} for each second, JPEG, across and down in turn",
        "text": "UTF-8",
    }
    return "; ".join(f"`{name}`: {said[kind]}" for name, kind in dataset["modalities"].items())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(map(_plain, line))} |" for line in lines] + [""]


def _splits(dataset: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(dataset["splits"].items())


def _version(dataset: Mapping[str, Any]) -> str:
    return str(dataset["versions"]["equimodal"])


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")
