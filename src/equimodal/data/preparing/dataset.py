"""dataset.json: what a prepared folder holds. Without it the folder is not a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from equimodal.data.fingerprint import Member, fingerprint
from equimodal.data.layouts.clip import Failure
from equimodal.data.preparing.plan import SPLITS, Plan
from equimodal.data.preparing.record import Record
from equimodal.data.preparing.shared import published, shared


def described(plan: Plan, records: Mapping[str, Record], failures: list[Failure]) -> dict[str, Any]:
    """Return what dataset.json holds.

    Args:
        plan: that was carried out.
        records: of all shards in order, by their names.
        failures: all.
    """
    content = plan.content()
    sounds = [name for name, kind in content["modalities"].items() if kind == "sound"]
    train = [record for name, record in records.items() if name.startswith("train-")]
    return {
        "format": content["format"],
        "name": content["name"],
        "classes": content["classes"],
        "protocol": content["protocol"],
        "modalities": content["modalities"],
        "rates": dict.fromkeys(sounds, plan.recipe.rate),
        "recipe": content["recipe"],
        "view": content["view"],
        "seconds": {n: max(record.seconds.get(n, 0.0) for record in train) for n in sounds},
        "splits": {split: _split(plan, records, split) for split in SPLITS},
        "failures": len(failures),
        "fingerprint": fingerprint(
            content["name"], content["classes"], _members(plan, {each.id for each in failures})
        ),
        "about": content["about"],
        "published": published(plan.listing),
        "shared": shared(plan.listing),
        "versions": _versions(records.values()),
    }


def _split(plan: Plan, records: Mapping[str, Record], split: str) -> dict[str, Any]:
    shards = [record for name, record in records.items() if name.startswith(f"{split}-")]
    return {
        "planned": plan.planned(split),
        "rows": sum(record.rows for record in shards),
        "shards": [{"file": r.file, "rows": r.rows, "sha256": r.sha256} for r in shards],
    }


def _members(plan: Plan, missing: set[str]) -> dict[str, list[Member]]:
    labels = {name: label for label, name in enumerate(plan.listing.classes)}
    return {
        split: [
            (clip.id, labels[clip.label])
            for clip in plan.listing.clips
            if clip.split == split and clip.id not in missing
        ]
        for split in SPLITS
    }


def _versions(records: Iterable[Record]) -> dict[str, str]:
    """Return the versions that made the shards: several, where they were changed in between."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}
