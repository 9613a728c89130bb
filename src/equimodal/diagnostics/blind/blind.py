"""Ask a model with each modality as it is, and with something else in its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.blind.conditions import AS_IS, FILLS, Condition, Plan, plan
from equimodal.diagnostics.blind.conflict import RESERVED, Conflict, conflict, says
from equimodal.diagnostics.blind.filling import Mean, filled, kind_of, means_of, partners
from equimodal.diagnostics.blind.found import Blind
from equimodal.diagnostics.blind.scores import Score, Scores, UnableError
from equimodal.diagnostics.interval import RESAMPLES
from equimodal.errors import SetupError

Samples = Sequence[Mapping[str, Any]]


def blind(
    score: Score,
    samples: Iterable[Mapping[str, Any]],
    modalities: Sequence[str] | None = None,
    *,
    fills: Sequence[str] = FILLS,
    batch_size: int = 8,
    resamples: int = RESAMPLES,
    seed: int = 0,
    model: str = "",
    data: str = "",
    say: Callable[[int, int], None] | None = None,
) -> Blind:
    """Find out which modalities a model uses, by asking it without them.

    Args:
        score: tells how well the model does on a batch, see `Score`. Gradients are off while it is
            called; evaluation mode is its own affair.
        samples: mappings; anything with a length that can be indexed is read batch by batch, twice
            where the fill "mean" is asked for, other iterables are held. A sample may have
            ``says``, a dict of answers by modality: then the modalities contradict each other, and
            it is found out which of them the model follows.
        modalities: the entries of the samples that are modalities; by default those that
            `score.modalities` names, or all but ``answer``, ``choices``, ``says`` and ``id``.
        fills: what stands for a modality: some of "blank", "mean", "other" (another sample's) and
            "removed".
        batch_size: samples at once.
        resamples: of the bootstrap.
        seed: of the other samples and of the bootstrap.
        model: its name, for pages.
        data: their name, for pages.
        say: is told how many samples are done, of how many.

    Raises:
        SetupError: samples lack a modality, there are fewer than two, or the scores do not fit.

    >>> def score(samples, condition):  # a model that reads its words alone
    ...     return torch.tensor([float(s.get("text") == s["answer"]) for s in samples])
    >>> pairs = [{"image": torch.rand(3), "text": w, "answer": w} for w in "abcd" * 10]
    >>> found = blind(score, pairs, fills=["other"])
    >>> found.verdict("image").word, found.verdict("text").word
    ('ignored', 'used')
    """
    rows: Samples = samples if _indexed(samples) else list(samples)  # type: ignore[assignment]
    first = _first(rows)
    names = _names(score, first, modalities)
    words = frozenset(name for name in names if kind_of(first[name]) == "text")
    asked = plan(names, fills, words)
    if batch_size < 1:
        raise SetupError(f"batch_size: expected 1 or more, found {batch_size}")
    others = partners(len(rows), seed) if "other" in fills else None
    averaged = [name for name in names if name not in words] if "mean" in fills else []
    means = means_of(_Complete(rows, names), averaged, seed)
    asking = _Asking(score, asked, means)
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            places = range(start, min(start + batch_size, len(rows)))
            batch = [_complete(rows[place], names, place) for place in places]
            beside = None
            if others is not None:
                beside = [_complete(rows[others[p]], names, others[p]) for p in places]
            asking.batch(batch, beside)
            del batch, beside  # before the next ones are opened
            if say is not None:
                say(places.stop, len(rows))
    return asking.found(
        Blind(
            model=model or getattr(score, "name", "") or getattr(score, "__name__", "a model"),
            data=data,
            plan=asked,
            resamples=resamples,
            seed=seed,
        )
    )


class _Asking:
    """What a model has answered so far.

    Args:
        score: of the model.
        asked: the conditions.
        means: by modality, for the fill "mean".
    """

    def __init__(self, score: Score, asked: Plan, means: Mapping[str, Mean]) -> None:
        self.score, self.asked, self.means = score, asked, means
        self.values: dict[Condition, dict[str, list[Tensor]]] = {}
        self.same: dict[Condition, list[bool]] = defaultdict(list)
        self.unable: dict[Condition, str] = {}
        self.conflicts = Conflict()
        self.alike: dict[str, int] = defaultdict(int)
        self.partnered = 0

    def batch(self, batch: list[Mapping[str, Any]], beside: Sequence[Any] | None) -> None:
        """Ask about a batch under all conditions."""
        self.conflicts = self.conflicts.plus(conflict(self.score, batch, self.asked.names))
        plain = [row for row, sample in enumerate(batch) if "says" not in sample]
        if not plain:
            return
        samples = [batch[row] for row in plain]
        others = [None] * len(plain) if beside is None else [beside[row] for row in plain]
        self._alike(samples, others)
        conditions = [each for each in self.asked.conditions if each not in self.unable]
        made = [
            [filled(s, o, self.means, each) for s, o in zip(samples, others, strict=True)]
            for each in conditions
        ]
        together = getattr(self.score, "together", None)
        got = together(conditions, made) if together else self._apart(conditions, made)
        answers: Sequence[Hashable] | None = None
        for condition, scores in zip(conditions, got, strict=True):
            if isinstance(scores, UnableError):
                if condition == AS_IS:
                    raise SetupError(f"the model cannot be asked as it is: {scores}")
                self.unable[condition] = str(scores)
                continue
            scores = _checked(scores, len(plain))
            if condition == AS_IS:
                answers = scores.answers
            if answers is not None and scores.answers is not None:
                pairs = zip(answers, scores.answers, strict=True)
                self.same[condition] += [before == after for before, after in pairs]
            known = self.values.setdefault(condition, defaultdict(list))
            for name, of in scores.values.items():
                known[name].append(of.double().cpu())

    def found(self, empty: Blind) -> Blind:
        """Return everything."""
        kept = {c: v for c, v in self.values.items() if c not in self.unable}
        return replace(
            empty,
            values={c: {n: torch.cat(each) for n, each in v.items()} for c, v in kept.items()},
            same={c: torch.tensor(s) for c, s in self.same.items() if c in kept},
            unable={str(condition): reason for condition, reason in self.unable.items()},
            conflicts=self.conflicts,
            alike=frozenset(n for n, times in self.alike.items() if times == self.partnered),
            notes=(*self._notes(), *getattr(self.score, "notes", ())),
        )

    def _apart(
        self, conditions: Sequence[Condition], made: Sequence[list[dict[str, Any]]]
    ) -> Iterable[Tensor | Scores | UnableError]:
        for condition, samples in zip(conditions, made, strict=True):
            try:
                got: Tensor | Scores | UnableError = self.score(samples, condition)
            except UnableError as error:
                got = error
            yield got

    def _alike(self, samples: Sequence[Mapping[str, Any]], others: Sequence[Any]) -> None:
        for sample, other in zip(samples, others, strict=True):
            if other is None:
                continue
            self.partnered += 1
            for name in ("answer", *self.asked.names):
                ours, theirs = sample.get(name), other.get(name)
                if isinstance(ours, str | int):
                    self.alike[name] += ours == theirs

    def _notes(self) -> Iterable[str]:
        for name, times in self.alike.items():
            if 5 * times >= self.partnered:
                what = "the same answer" if name == "answer" else f"the same {name}"
                yield (
                    f"{100 * times / self.partnered:.0f}% of the samples have {what} as the one "
                    "that stands for them under 'other', which then changes less than it could"
                )


class _Complete(Sequence[Mapping[str, Any]]):
    """Samples that are refused where they lack a modality."""

    def __init__(self, rows: Samples, names: Sequence[str]) -> None:
        self.rows, self.names = rows, names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return _complete(self.rows[place], self.names, place)


def _complete(sample: Mapping[str, Any], names: Sequence[str], place: int) -> Mapping[str, Any]:
    lacking = [name for name in names if sample.get(name) is None]
    if lacking:
        raise SetupError(
            f"sample {sample.get('id', place)}: expected {', '.join(names)}, found no "
            f"{', '.join(lacking)}: every sample is asked about the same modalities. "
            "Ask apart about samples that have others"
        )
    if "says" in sample:
        says(sample, names, place)
    return sample


def _checked(scores: Tensor | Scores, samples: int) -> Scores:
    made = scores if isinstance(scores, Scores) else Scores({"score": scores})
    for name, of in made.values.items():
        if not isinstance(of, Tensor) or of.shape != (samples,):
            shape = tuple(of.shape) if isinstance(of, Tensor) else type(of).__name__
            raise SetupError(f"score: expected {name} of shape ({samples},), found {shape}")
        if not of.isfinite().all():
            raise SetupError(f"score: expected numbers, found {name} that is infinite or NaN")
    return made


def _indexed(samples: Any) -> bool:
    return hasattr(samples, "__len__") and hasattr(samples, "__getitem__")


def _first(rows: Samples) -> Mapping[str, Any]:
    if len(rows) < 2:
        raise SetupError(f"samples: expected two or more, found {len(rows)}")
    first = rows[0]
    if not isinstance(first, Mapping):
        raise SetupError(f"samples: expected mappings, found {type(first).__name__}")
    return first


def _names(
    score: Score, first: Mapping[str, Any], modalities: Sequence[str] | None
) -> tuple[str, ...]:
    if modalities is None:
        of_score = getattr(score, "modalities", None)
        names = [name for name in first if name not in RESERVED and first[name] is not None]
        modalities = of_score(first) if of_score else names
    if isinstance(modalities, str) or not modalities:
        raise SetupError(
            f"modalities: expected entries of the samples ({', '.join(first)}), "
            f"found {modalities!r}"
        )
    _complete(first, modalities, 0)
    return tuple(modalities)
