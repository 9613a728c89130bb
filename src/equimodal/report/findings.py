"""A diagnosis as `equimodal diagnose` writes it, read as far as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equimodal.report.reading import UnreadableError, finite, number_in, numbers_in, object_in

FORMAT = 1


@dataclass(frozen=True)
class Measured:
    """A number, with its interval if it has one."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Reason:
    """Why something is advised: in words, and the numbers behind it."""

    text: str
    evidence: dict[str, str]


@dataclass(frozen=True)
class Lead:
    """A class in which a modality is right more often than the others."""

    label: str
    modality: str
    samples: float | None
    gap: Measured


@dataclass(frozen=True)
class Findings:
    """A diagnosis.

    Attributes:
        found: the JSON object.
        notices: what is missing or wrong.
    """

    found: dict[str, Any]
    notices: list[str] = field(default_factory=list)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(_texts(self.found.get("modalities")))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(_texts(self.found.get("classes")))

    def text(self, *path: str) -> str:
        """Return a text; empty if there is none."""
        value = self._at(path)
        return value if isinstance(value, str) else ""

    def texts(self, *path: str) -> list[str]:
        """Return the texts of a list."""
        return _texts(self._at(path))

    def number(self, *path: str) -> float | None:
        """Return a number, also where it has an interval."""
        found = measured_in(self._at(path))
        return None if found is None else found.value

    def measured(self, *path: str) -> dict[str, Measured]:
        """Return the entries of an object that are numbers, with intervals where they have them."""
        value = self._at(path)
        if not isinstance(value, Mapping):
            return {}
        found = {name: measured_in(each) for name, each in value.items()}
        return {name: each for name, each in found.items() if each is not None}

    def parts(self, *path: str) -> dict[str, Mapping[str, Any]]:
        """Return the entries of an object that are objects themselves."""
        value = self._at(path)
        if not isinstance(value, Mapping):
            return {}
        return {name: each for name, each in value.items() if isinstance(each, Mapping)}

    def flat(self, *path: str) -> list[tuple[str, Measured]]:
        """Return all numbers below a place, with the way to each."""
        return list(_flat(self._at(path), ()))

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Return the curves of the modalities over training, by what was measured."""
        found: dict[str, dict[str, list[float]]] = {}
        for quantity, by_name in self.parts("curves").items():
            for name, values in by_name.items():
                if name in self.modalities and isinstance(values, list) and values:
                    each = [number_in(value) for value in values]
                    spelt = [float("nan") if value is None else value for value in each]
                    found.setdefault(quantity, {})[name] = spelt
        return found

    def read(self) -> dict[str, Measured]:
        """Return the accuracy of each modality read through the joint head."""
        parts = self.parts("read")
        found = {name: measured_in(each.get("accuracy")) for name, each in parts.items()}
        if found:
            return {name: each for name, each in found.items() if each is not None}
        fills = self.parts("subsets")
        single = self.measured("subsets", "mean" if "mean" in fills else next(iter(fills), ""))
        return {name: single[name] for name in self.modalities if name in single}

    def bins(self) -> list[dict[str, float]]:
        """Return the bins of the calibration."""
        value = self._at(("calibration", "bins"))
        return [numbers_in(each) for each in value] if isinstance(value, list) else []

    def leads(self) -> list[Lead]:
        """Return the classes in which a modality leads."""
        value = self._at(("agreement", "leads"))
        found = []
        for name, leads in value.items() if isinstance(value, Mapping) else ():
            for each in leads if isinstance(leads, list) else ():
                if isinstance(each, Mapping) and (gap := measured_in(each.get("gap"))):
                    label, samples = str(each.get("class", "")), number_in(each.get("samples"))
                    found.append(Lead(label, name, samples, gap))
        return found

    def reasons(self) -> list[Reason]:
        """Return what the advice rests on."""
        value = self._at(("advice", "because"))
        reasons = []
        for each in value if isinstance(value, list) else []:
            if isinstance(each, str):
                reasons.append(Reason(each, {}))
            elif isinstance(each, Mapping):
                evidence = each.get("evidence")
                shown = evidence.items() if isinstance(evidence, Mapping) else ()
                spelt = {name: _spelt(number) for name, number in shown}
                reasons.append(Reason(str(each.get("text", "")), spelt))
        return reasons

    def _at(self, path: Sequence[str]) -> Any:
        value: Any = self.found
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def read(path: Path) -> Findings:
    """Read a diagnosis; one that cannot be used is empty, and says why."""
    try:
        found = object_in(path)
    except UnreadableError as error:
        return Findings({}, [f"The diagnosis {path.name} cannot be used: {error}."])
    if found.get("format") != FORMAT:
        return Findings(
            {},
            [
                f"The diagnosis {path.name} cannot be used: expected format {FORMAT}, found "
                f"{found.get('format')!r}."
            ],
        )
    findings = Findings(found)
    return Findings(found, _wrong(findings))


def measured_in(value: Any) -> Measured | None:
    """Return a JSON number, or an object of value, low and high; None for anything else."""
    if isinstance(value, Mapping):
        middle = number_in(value.get("value"))
        if middle is None:
            return None
        bounds = [number_in(value.get(name)) for name in ("low", "high")]
        low, high = (float("nan") if bound is None else bound for bound in bounds)
        return Measured(middle, low, high)
    number = number_in(value)
    return None if number is None else Measured(number)


def _wrong(findings: Findings) -> list[str]:
    notices = []
    per_class = findings.parts("agreement", "per_class")
    if per_class:
        absent = [name for name in findings.classes if not _any_number(per_class.get(name, {}))]
        if absent:
            notices.append(
                f"Diagnosis: no sample of {', '.join(absent)} was evaluated, so that nothing is "
                "known about this class."
                if len(absent) == 1
                else f"Diagnosis: no sample of these classes was evaluated: {', '.join(absent)}."
            )
    odd = [name for name, value in findings.flat() if not finite(value.value)]
    if odd:
        more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
        notices.append(f"Diagnosis: not a number: {', '.join(odd[:4])}{more}.")
    return notices


def _any_number(entry: Mapping[str, Any]) -> bool:
    counts = [number_in(entry.get(name)) for name in ("samples", "n", "count")]
    if any(count == 0 for count in counts):
        return False
    return any(finite(value.value) for _, value in _flat(entry, ()))


def _flat(value: Any, way: tuple[str, ...]) -> Iterator[tuple[str, Measured]]:
    found = measured_in(value)
    if found is not None:
        yield " ".join(way).replace("_", " "), found
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(each, (*way, str(name)))


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _spelt(value: Any) -> str:
    """Write a number of evidence: what has an interval is a share, and is read in per cent."""
    found = measured_in(value)
    if found is None:
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if finite(found.low) and finite(found.high):
        return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    if isinstance(value, Mapping):  # of a number that was given, there is no interval
        return f"{100 * found.value:.1f}"
    return f"{found.value:.4g}"
