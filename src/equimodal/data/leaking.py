"""What a test split shares with the training split: clips, speakers, videos, moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equimodal.errors import SetupError, unknown

Row = Mapping[str, Any]
Group = str | tuple[str, ...]
HALF = 0.5  # of a test clip, from which it is said to overlap a training clip


@dataclass(frozen=True)
class Shared:
    """What the two splits have in common of one kind, such as speakers.

    Attributes:
        values: that are in both, in order.
        of: how many there are in test.
        rows: of test that have one of them.
        same_label: of these, how many have a training row with it and the same label.
        other_labels: values that have labels in test that they do not have in training.
    """

    values: tuple[str, ...]
    of: int
    rows: int
    same_label: int
    other_labels: int


@dataclass(frozen=True)
class Leakage:
    """What a test split shares with the training split; true if that is anything.

    Attributes:
        rows: of the training and of the test split.
        clips: ids that are in both.
        relabelled: those of them whose labels differ.
        groups: what is shared of each kind, by its name.
        overlaps: rows of test that share more than half of their time with a training row of the
            same video.
        overlaps_relabelled: those whose label differs from that of the training row.
        odd_spans: rows of either that end before they begin, or have no length.
    """

    rows: tuple[int, int]
    clips: tuple[str, ...]
    relabelled: int
    groups: Mapping[str, Shared] = field(default_factory=dict)
    overlaps: int = 0
    overlaps_relabelled: int = 0
    odd_spans: int = 0

    def __bool__(self) -> bool:
        return bool(self.clips or self.overlaps or any(s.values for s in self.groups.values()))

    def lines(self) -> list[str]:
        """Return each finding as a sentence; nothing for what is not shared."""
        _, tested = self.rows
        found = []
        if self.clips:
            differ = f", {self.relabelled} with another label" if self.relabelled else ""
            found.append(f"{len(self.clips):,} of {tested:,} test clips are in training{differ}")
        for name, shared in self.groups.items():
            if shared.values:
                found.append(
                    f"{len(shared.values):,} of {shared.of:,} values of {name} in test are in "
                    f"training too, with {shared.rows:,} of {tested:,} test clips, "
                    f"{shared.same_label:,} of them with a label that they have there"
                )
        if self.overlaps:
            found.append(
                f"{self.overlaps:,} test clips share more than half of their time with a training "
                f"clip of their video, {self.overlaps_relabelled:,} of them with another label"
            )
        return found

    def __str__(self) -> str:
        return "; ".join(self.lines()) or "nothing is shared"


def leakage(
    train: Any,
    test: Any,
    groups: Sequence[Group] = (),
    *,
    key: str | None = "id",
    label: str | None = "label",
    span: tuple[str, str, str] | None = None,
) -> Leakage:
    """Find what a test split shares with the training split.

    Args:
        train: rows of the training split: a list of mappings, one a clip; a mapping of columns; a
            data frame of pandas; or a split of `equimodal.data.load`, whose columns are ``id``,
            ``label`` and ``group``.
        test: of the test split.
        groups: columns of which nothing should be in both: ``("speaker", "video")``. Several
            columns together are a tuple: ``[("speaker", "sentence")]``.
        key: the column by which a clip is known; None for none.
        label: the column of classes; None for none.
        span: columns of a video, a start and an end, in seconds, to find overlaps.

    Raises:
        SetupError: a split is empty, or lacks a column.

    >>> names = ("id", "label", "speaker")
    >>> train = [dict(zip(names, row)) for row in ("ax1", "by2")]
    >>> test = [dict(zip(names, row)) for row in ("cy1", "bx2")]
    >>> found = leakage(train, test, groups=["speaker"])
    >>> print(found.clips, found.relabelled, found.groups["speaker"].same_label)
    ('b',) 1 0
    """
    rows = {"train": _rows(train), "test": _rows(test)}
    columns: list[Group] = [*groups, *((c,) for c in (key, label, *(span or ())) if c is not None)]
    for split, those in rows.items():
        if not those:
            raise SetupError(f"{split}: expected rows, found none")
        for name in (each for group in columns for each in _parts(group)):
            if name not in those[0]:
                raise SetupError(f"{split}: {unknown('column', name, those[0])}")
    one, other = rows["train"], rows["test"]
    clips, relabelled = _same(one, other, key, label)
    overlaps, overlapping, odd = _overlaps(one, other, span, label) if span else (0, 0, 0)
    return Leakage(
        (len(one), len(other)),
        clips,
        relabelled,
        {" and ".join(_parts(g)): _shared(one, other, _parts(g), label) for g in groups},
        overlaps,
        overlapping,
        odd,
    )


def _same(
    train: Sequence[Row], test: Sequence[Row], key: str | None, label: str | None
) -> tuple[tuple[str, ...], int]:
    if key is None:
        return (), 0
    labels = {str(row[key]): row[label] if label else None for row in train}
    both = {str(row[key]): row for row in test if str(row[key]) in labels}
    differ = sum(label is not None and row[label] != labels[name] for name, row in both.items())
    return tuple(sorted(both)), differ


def _shared(
    train: Sequence[Row], test: Sequence[Row], columns: tuple[str, ...], label: str | None
) -> Shared:
    trained: dict[tuple[str, ...], set[Any]] = {}
    for row in train:
        trained.setdefault(_key(row, columns), set()).add(row[label] if label else None)
    tested: dict[tuple[str, ...], Counter[Any]] = {}
    for row in test:
        tested.setdefault(_key(row, columns), Counter())[row[label] if label else None] += 1
    both = sorted(key for key in tested if key in trained)
    return Shared(
        tuple(" ".join(key) for key in both),
        len(tested),
        sum(tested[key].total() for key in both),
        sum(n for key in both for value, n in tested[key].items() if value in trained[key]),
        sum(not set(tested[key]) <= trained[key] for key in both),
    )


def _overlaps(
    train: Sequence[Row], test: Sequence[Row], span: tuple[str, str, str], label: str | None
) -> tuple[int, int, int]:
    video, start, end = span
    spans: dict[str, list[tuple[float, float, Any]]] = {}
    odd = 0
    for row in train:
        begin, until = float(row[start]), float(row[end])
        odd += until <= begin
        spans.setdefault(str(row[video]), []).append((begin, until, row[label] if label else None))
    count = relabelled = 0
    for row in test:
        begin, until = float(row[start]), float(row[end])
        odd += until <= begin
        labels = [
            value
            for first, last, value in spans.get(str(row[video]), ())
            if min(until, last) - max(begin, first) > HALF * (until - begin) > 0
        ]
        count += bool(labels)
        relabelled += bool(labels) and label is not None and row[label] not in labels
    return count, relabelled, odd


def _parts(group: Group) -> tuple[str, ...]:
    return (group,) if isinstance(group, str) else tuple(group)


def _key(row: Row, columns: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in columns)


def _rows(split: Any) -> list[Row]:
    if hasattr(split, "target") and hasattr(split, "names"):  # one of ours
        groups = split.target.tolist() if split.groups is None else split.groups.tolist()
        rows = zip(split.names, split.target.tolist(), groups, strict=True)
        return [{"id": name, "label": label, "group": group} for name, label, group in rows]
    if hasattr(split, "to_dict") and hasattr(split, "columns"):
        return list(split.to_dict("records"))
    if isinstance(split, Mapping):
        names = list(split)
        return [dict(zip(names, row, strict=True)) for row in zip(*split.values(), strict=True)]
    return list(split)
