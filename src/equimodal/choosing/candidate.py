"""What is chosen from: baselines, methods, and compositions by a rule."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from scipy.stats import qmc

from equimodal.method import Method
from equimodal.methods.registry import available, find
from equimodal.methods.supplied import TEACHERS

JOINT = "joint"
PARTNER = "multi-loss"
BASELINES = (JOINT, PARTNER, "ensemble")
LATE = "late fusion"
RATES = (1.0, 0.5, 2.0)  # factors on the user's learning rates, in the order of trials


@dataclass(frozen=True)
class Candidate:
    """A row: methods, by their names in the registry, with what their run must know.

    Attributes:
        label: of the row.
        methods: names and options, in the order in which they compose.
        late: whether the modalities' own answers are weighted on validation data.
    """

    label: str
    methods: tuple[tuple[str, Mapping[str, Any]], ...]
    late: bool = False


@dataclass(frozen=True)
class Trial:
    """A candidate with one setting.

    Attributes:
        candidate: which.
        rate: factor on the user's learning rates.
        options: by method, beside those of the candidate.
    """

    candidate: Candidate
    rate: float = 1.0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def methods(self) -> list[tuple[str, dict[str, Any]]]:
        """Return names and options as a run takes them."""
        return [
            (name, {**given, **self.options.get(name, {})})
            for name, given in self.candidate.methods
        ]


def baselines(modalities: Sequence[str]) -> list[Candidate]:
    """Return what every method is held against: also each modality alone, and late fusion."""
    return [
        *(Candidate(name, ((name, {}),)) for name in BASELINES),
        Candidate(LATE, (("ensemble", {}),), late=True),
        *(Candidate(f"{m} alone", (("unimodal", {"modality": m}),)) for m in modalities),
    ]


def candidates(epochs: int, names: Iterable[str] | None = None) -> list[Candidate]:
    """Return all other methods, and compositions.

    The rule of compositions: a method that only modulates (it judges coefficients or adds noise,
    and neither adds terms to the loss, nor orders samples, nor predicts by a rule of its own) is
    tried with `multi-loss` too, which only adds terms. Both then act in different places of a step.

    Args:
        epochs: of a training.
        names: of some, such as "ogm" or "ogm+multi-loss"; all by default.

    Raises:
        SetupError: a name is unknown.
    """
    if names is not None:
        return [_named(name, epochs) for name in names]
    others = [n for n in available() if n not in (*BASELINES, "unimodal")]
    single = [_named(name, epochs) for name in others if not _lacking(find(name))]
    pairs = [
        _named(f"{name}+{PARTNER}", epochs)
        for name in others
        if modulates_only(find(name)) and not _lacking(find(name))
    ]
    return [*single, *pairs]


def modulates_only(kind: type[Method]) -> bool:
    """Whether a method acts on gradients alone, by coefficients or noise."""

    def has(hook: str) -> bool:
        return getattr(kind, hook) is not getattr(Method, hook)

    elsewhere = ("objective", "order", "gate", "combine", "predict", "frozen", "equip", "end_epoch")
    noisy = kind.noise is not None or "noise" in inspect.getsource(kind.__init__)
    acts = (kind.modulates and has("coefficients")) or noisy
    return acts and not kind.replaces_joint and not any(has(hook) for hook in elsewhere)


def _named(label: str, epochs: int) -> Candidate:
    parts = label.split("+")
    return Candidate(label, tuple((name, _by_epochs(find(name), epochs)) for name in parts))


def _by_epochs(kind: type[Method], epochs: int) -> dict[str, Any]:
    return {argument: value(epochs) for argument, value in kind.by_epochs.items()}


def _lacking(kind: type[Method]) -> list[str]:
    """Return the arguments that have no default and that nothing here supplies."""
    given = (*kind.by_epochs, *kind.search, TEACHERS)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        p.name
        for p in inspect.signature(kind).parameters.values()
        if p.default is p.empty and p.kind not in variadic and p.name not in given
    ]


def trials(candidate: Candidate, many: int, modalities: Sequence[str]) -> list[Trial]:
    """Return the settings of a candidate that are tried, in order.

    First its defaults at three learning rates; then points of a scrambled Sobol sequence that
    follows from its label alone, over the spaces that its methods declare and learning rates from a
    quarter to four times. Whatever else is tried, and whatever finishes first, they are the same.
    """
    spaces = [(n, a, space) for n, _ in candidate.methods for a, space in find(n).search.items()]
    needed = {
        (name, argument): space
        for name, argument, space in spaces
        if argument in _required(find(name))
    }

    def defaults(share: float) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for (name, argument), space in needed.items():
            found.setdefault(name, {})[argument] = _short(space.at(share, modalities))
        return found

    tried = [
        Trial(candidate, rate, defaults((place + 0.5) / len(RATES)))
        for place, rate in enumerate(RATES)
    ]
    if many > len(tried):
        sobol = qmc.Sobol(1 + len(spaces), rng=crc32(candidate.label.encode()))
        points = sobol.random_base2((many - 1).bit_length())[: many - len(tried)]
        for rate, *shares in points.tolist():
            options: dict[str, dict[str, Any]] = {}
            for (name, argument, space), share in zip(spaces, shares, strict=True):
                options.setdefault(name, {})[argument] = _short(space.at(share, modalities))
            tried.append(Trial(candidate, _short(4.0 ** (2 * rate - 1)), options))
    return tried[:many]


def _required(kind: type[Method]) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]


def _short(value: Any) -> Any:
    """Return a number with three digits, so that what is pasted is what was trained."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
