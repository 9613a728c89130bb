"""Arrays in a file of the user's as a data set in three splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from equimodal.data.card import Card
from equimodal.data.files import npz, parquet, pickled
from equimodal.data.files.holdout import held_out
from equimodal.data.files.labels import relabelled
from equimodal.data.files.modality import joined, numbers, with_channels
from equimodal.data.files.stored import Stored, digest_of_numbers
from equimodal.data.files.where import Where, rows, spelt
from equimodal.data.splits import TEST, TRAIN, VAL, Splits, partition
from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

if TYPE_CHECKING:
    from equimodal.data.files.stored import Array

READERS: dict[str, Callable[[Path], Stored]] = {
    ".npz": npz.stored,
    ".parquet": parquet.stored,
    ".pkl": pickled.stored,
    ".pickle": pickled.stored,
}
NUMBER = {"train": TRAIN, "val": VAL, "test": TEST}


def read(
    path: Path,
    *,
    modalities: Sequence[str] | None = None,
    where: Where | None = None,
    groups: str | None = None,
    validation: float | None = None,
    channels: Mapping[str, int | None] | None = None,
    target: str = "y",
    seed: int = 0,
) -> Splits:
    """Return the data set in a file; see `equimodal.data.load`."""
    require("data", "numpy")
    if not path.is_file():
        raise SetupError(f"{path}: no such file")
    stored = READERS[path.suffix](path)
    splits = stored.splits(target)
    known = stored.modalities(target)
    chosen = known if modalities is None else tuple(modalities)
    _refuse_misfits(stored, chosen, known, target)
    _refuse_unknown_channels(channels, chosen)
    channels = {**{n: a for n, a in stored.channels.items() if n in chosen}, **(channels or {})}
    kept, wanted = rows(stored, where or {}, target)
    labels = joined({split: stored.arrays[target][split] for split in splits}, kept)
    classes, names = relabelled(labels, stored.names_of(target, target), f"{path}: {target}")
    split = torch.cat(
        [torch.full((int(kept[each].sum()),), NUMBER[each], dtype=torch.int64) for each in splits]
    )
    codes = None
    if groups is not None:
        codes = joined(stored.column("groups", groups, target), kept)
        _refuse_shared(f"{path}: {groups}", codes, split)
    encoded = torch.from_numpy(classes)
    split = _with_validation(path, split, encoded, codes, validation, seed)
    features = {
        name: with_channels(stored.path, name, numbers(stored, name, kept), channels)
        for name in chosen
    }
    made = partition(
        features,
        encoded,
        split,
        classes=names,
        card=_card(stored, features, encoded, split, names, wanted, groups, target),
        groups=None if codes is None else _numbered(codes),
        ids=_places(kept),
    )
    # Of all modalities, so that those that are chosen do not count.
    held = {name: stored.arrays[name] for name in known if name in stored.arrays}
    numeric = {n: of for n, of in held.items() if all(a.dtype.kind in "biuf" for a in of.values())}
    return replace(made, digest=digest_of_numbers(numeric))


def _refuse_misfits(
    stored: Stored, chosen: Sequence[str], known: Sequence[str], target: str
) -> None:
    if not known:
        there = ", ".join(stored.arrays)
        raise SetupError(
            f"{stored.path}: expected modalities, arrays of shape (N, ...) with two axes or more "
            f"such as audio_train, found {there} of one axis"
        )
    for name in chosen:
        if name not in known:
            raise SetupError(f"{stored.path}: " + unknown("modality", name, known))
        if name not in stored.arrays:
            raise SetupError(
                f"{stored.path}: modality_names lists {name}, but no array {name}_train"
            )
        stored.refuse_incomplete(name, target)
    if not chosen or len(set(chosen)) < len(chosen):
        found = ", ".join(chosen) or "none"
        raise SetupError(f"modalities: expected at least one name, none twice, found {found}")


def _refuse_unknown_channels(
    channels: Mapping[str, int | None] | None, chosen: Sequence[str]
) -> None:
    for name in channels or {}:
        if name not in chosen:
            raise SetupError("channels: " + unknown("modality", name, chosen))


def _with_validation(
    path: Path,
    split: Tensor,
    target: Tensor,
    groups: Array | None,
    validation: float | None,
    seed: int,
) -> Tensor:
    """Return the split of every sample, with some of the training split held out if need be."""
    if (split == VAL).any():
        if validation is not None:
            raise SetupError(
                f"{path}: validation: the file has a validation split of its own: leave out "
                "validation, or give a file without that split"
            )
        return split
    share = 0.2 if validation is None else validation
    if not 0 < share < 1:
        raise SetupError(f"validation: expected a share between 0 and 1, found {share}")
    training = (split == TRAIN).nonzero().flatten()
    of_training = None if groups is None else groups[training.numpy()].tolist()
    try:
        chosen = held_out(target[training], share, seed, of_training)
    except SetupError as error:
        raise SetupError(f"{path}: {error}") from error
    return split.index_fill(0, training[chosen], VAL)


def _refuse_shared(what: str, groups: Array, split: Tensor) -> None:
    """Refuse groups that are on both sides: what they were named for is broken already."""
    names = {TRAIN: "train", VAL: "val", TEST: "test"}
    members = {which: set(groups[(split == which).numpy()].tolist()) for which in names}
    for one, other in ((TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)):
        if both := members[one] & members[other]:
            raise SetupError(
                f"{what}: expected no group in two splits, found {len(both)} in {names[one]} and "
                f"{names[other]}, such as {min(both)!r}: leave out groups, or mend the file"
            )


def _numbered(groups: Array) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int64))


def _places(kept: Mapping[str, Array]) -> Tensor:
    """Return the place of every wanted sample among all samples of the file."""
    import numpy as np

    return torch.from_numpy(np.flatnonzero(np.concatenate(list(kept.values()))))


def _card(
    stored: Stored,
    features: Mapping[str, Tensor],
    encoded: Tensor,
    split: Tensor,
    classes: Sequence[str],
    where: Where,
    groups: str | None,
    target: str,
) -> Card:
    selection = f"[{spelt(where)}]" if where else ""
    shapes = "; ".join(f"{name} {tuple(f.shape[1:])}" for name, f in features.items())
    counts = [int((split == which).sum()) for which in (TRAIN, VAL, TEST)]
    own = "val" in stored.arrays[target]
    how = f"whole groups of {groups}" if groups else "every class its share"
    held = "all three from the file" if own else f"val held out of the file's train split, {how}"
    columns = ", ".join(stored.columns(target)) or "none"
    cautions = []
    trained = set(encoded[split == TRAIN].tolist())
    if untrained := [name for number, name in enumerate(classes) if number not in trained]:
        cautions.append(
            f"{len(untrained)} classes without a training sample, such as {untrained[0]}."
        )
    if not own and groups is None:
        cautions.append("neighbouring samples may be in train and val: see groups.")
    said = stored.about
    return Card(
        name=f"{stored.path.stem}{selection}",
        title=f"{len(split):,} samples of {stored.path.name}",
        content=f"{shapes}; all standardised. {len(classes)} classes. Columns: {columns}.",
        splits=f"train {counts[0]:,}, val {counts[1]:,}, test {counts[2]:,}: {held}.",
        source=said.get("source", str(stored.path)),
        authors=said.get("authors", "not stated in the file."),
        licence=said.get("licence", said.get("license", "not stated in the file.")),
        citation=said.get("citation", "not stated in the file."),
        changes=(
            "classes numbered from 0 in the order of their labels; each channel standardised with "
            "the mean and standard deviation of the training split."
        ),
        caution=" ".join(cautions),
    )
