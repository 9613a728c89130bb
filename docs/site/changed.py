"""The page "what changed, for whom": the entries of the changelog, by what a reader does."""

from __future__ import annotations

import re
from collections.abc import Iterator

# An entry stands with every reader of whose words it has one; with nobody's, it is of the whole.
READERS: dict[str, str] = {
    "You write the training loop yourself": (
        r"`?Balancer|balancer\.|`modulate|micro-batch|accumulat|scaler|gradients? of|`scores=|"
        r"`features=|`head|optimizer|checkpoint|criterion|logits|`present="
    ),
    "You train on several GPUs or in somebody's trainer": (
        r"\branks?\b|DistributedDataParallel|FSDP|Tensor parallel|Lightning|Trainer|"
        r"transformers|Hugging Face|Accelerate|process_group|integrations"
    ),
    "You train and compare by command": (
        r"equimodal (train|compare|methods|report)|`train`|`compare`|`report`|`--|comparison|"
        r"shell|verdict|[Ii]ntervals|`watch`|\bruns?\b.*(folder|status)|Ctrl-C|--engine"
    ),
    "You choose a method for a model of your own": r"choose|[Ss]earch spaces|choice",
    "You diagnose a model": r"[Dd]iagnos(e|is|tics)\b|advice",
    "You prepare data from clips": (
        r"[Pp]repar|clips?\b|decod|download|[Mm]anifest|`data\.|GRID|CREMA|VGGSound|\bMELD\b|AVE|"
        r"stream|FLV|`\.npz`|shards"
    ),
    "You repeat the table of an article": r"reproduce|article|published numbers",
    "You use one method, or write one": (
        r"\b(OGM|OGM-GE|AGM|MCR|UMT|G2D|LFM|DGL|CGGM|OPM|PMR|MLA|AMSS|MSLR|MSES|TCMax|MMPareto|MIDAS|"
        r"AUG|OLM|IPRM|MASAM|PASSION|MMCosine|Greedy|InfoReg|ARL|AMCo|ReconBoost)\b|[Mm]ethods? "
        r"(that|of|may|are)|`Method|contract|conformance|Data Remixing|Gradient-Blending|witness|"
        r"`Order|`Capabilities"
    ),
}
REST = "Everybody"


def page(changelog: str) -> str:
    """Return the page, in Markdown.

    Args:
        changelog: in the format of Keep a Changelog.
    """
    parts = [
        "# What changed, for whom\n\nThe entries of the [changelog](CHANGELOG.md), by what you do. "
        "An entry that concerns several readers stands with each.\n"
    ]
    found = list(entries(changelog))
    for version in dict.fromkeys(each[0] for each in found):
        parts.append(f"## {version}\n")
        for reader in (*READERS, REST):
            chosen = [
                (kind, text)
                for of, kind, text in found
                if of == version and reader in concerned(text)
            ]
            if chosen:
                parts.append(f"### {reader}\n")
            for kind in dict.fromkeys(each[0] for each in chosen):
                lines = "\n".join(text for of, text in chosen if of == kind)
                parts.append(f"**{kind}**\n\n{lines}\n")
    return "\n".join(parts)


def concerned(entry: str) -> list[str]:
    """Return whom an entry concerns."""
    readers = [reader for reader, words in READERS.items() if re.search(words, entry)]
    return readers or [REST]


def entries(changelog: str) -> Iterator[tuple[str, str, str]]:
    """Yield the version, the kind (Added, Changed, Fixed) and the Markdown of each entry."""
    version = kind = ""
    item: list[str] = []
    for line in [*changelog.splitlines(), "## "]:
        # A line of an entry is indented, or goes on without a mark.
        if item and (line.startswith(("- ", "#")) or not line.strip()):
            yield version, kind, "\n".join(item)
            item = []
        if line.startswith("## "):
            version = line[3:].strip()
        elif line.startswith("### "):
            kind = line[4:].strip()
        elif line.startswith("- ") or item:
            item.append(line)
