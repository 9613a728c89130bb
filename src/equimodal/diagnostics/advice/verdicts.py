"""What a diagnosis ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from equimodal.diagnostics.interval import Interval

Verdict = Literal["balanced", "unimodal losses", "try balancing", "do not balance", "cannot tell"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Reason:
    """One thing that speaks for a verdict.

    Attributes:
        text: in plain words.
        evidence: the numbers behind it, by what they are.
    """

    text: str
    evidence: Mapping[str, Interval | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Advice:
    """Whether to balance, and why.

    Attributes:
        verdict: one of `VERDICTS`.
        summary: in one or two sentences.
        because: the reasons, the deciding ones first.
        next: what to do: methods by name, commands, or a sentence.
        ignored: modalities that the model does not use, or far less than it could.
    """

    verdict: Verdict
    summary: str
    because: tuple[Reason, ...] = ()
    next: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "because": [
                {
                    "text": reason.text,
                    "evidence": {
                        name: of.to_dict() if isinstance(of, Interval) else of
                        for name, of in reason.evidence.items()
                    },
                }
                for reason in self.because
            ],
            "next": list(self.next),
            "ignored": list(self.ignored),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Advice:
        """Return what `to_dict` was made of."""
        reasons = tuple(
            Reason(
                each["text"],
                {
                    name: Interval.from_dict(of) if isinstance(of, Mapping) else of
                    for name, of in each["evidence"].items()
                },
            )
            for each in found["because"]
        )
        return cls(
            found["verdict"],
            found["summary"],
            reasons,
            tuple(found["next"]),
            tuple(found["ignored"]),
        )
