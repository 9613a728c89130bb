"""A recommendation in plain words, and as a line to paste."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from equimodal.choosing.candidate import JOINT, LATE
from equimodal.choosing.decide import Decision
from equimodal.compare.statistics import Estimate, Harm
from equimodal.method import Method
from equimodal.methods.registry import find
from equimodal.methods.supplied import TEACHERS, takes_teachers

FEW = 200  # validation samples, below which they move scores by themselves


def line(
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    rate: float,
    epochs: int,
    seed: int | None = None,
    given: Sequence[str] = (),
) -> str:
    """Return the line of code that attaches what was chosen.

    Args:
        methods: names and options.
        rate: factor on the user's learning rates.
        epochs: of the training, said where a method follows its length.
        seed: of the training that it repeats.
        given: arguments beside those of every model that the user's function names as they are.

    >>> line([("ogm", {"alpha": 0.3}), ("multi-loss", {})], 0.5, 24)
    'eq.Balancer([eq.OGM(alpha=0.3), eq.MultiLoss()], model, encoders, head, optimizer)  # lr x0.5'
    >>> line([("pmr", {})], 1.0, 24, 1003, ["forward"])
    'eq.Balancer(eq.PMR(), model, encoders, head, optimizer, forward=forward, train_loader=train, \
seed=1003)  # lr x1'
    """
    kinds = [find(name) for name, _ in methods]
    spelt = []
    for kind, (_, options) in zip(kinds, methods, strict=True):
        arguments = [f"{key}={_number(value)}" for key, value in options.items()]
        arguments += [f"{TEACHERS}={TEACHERS}"] if takes_teachers(kind) else []
        spelt.append(f"eq.{kind.__name__}({', '.join(arguments)})")
    what = spelt[0] if len(spelt) == 1 else f"[{', '.join(spelt)}]"
    needs = {need for kind in kinds for need in kind.needs}
    more = [f"{name}={name}" for name in given]
    more += ["train_loader=train"] if needs & {"training data", "sample identities"} else []
    more += ["val_loader=val"] if "held-out data" in needs else []
    more += [f"epochs={epochs}"] if any(map(_follows, kinds)) else []
    more += [] if seed is None else [f"seed={seed}"]
    attached = ", ".join(["model, encoders, head, optimizer", *more])
    return f"eq.Balancer({what}, {attached})  # lr x{rate:g}"


def _follows(kind: type[Method]) -> bool:
    """Whether a method follows the length of training."""
    said = bool(kind.by_epochs) or "length of training" in kind.needs
    return said or kind.plan is not Method.plan


def _number(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else repr(value)


def on_validation(probed: Mapping[str, Any], own: bool) -> str:
    """Say how far validation data can be relied on, and what is done about it; "" for nothing.

    Args:
        probed: what trying the candidates has shown.
        own: whether the data is of a user's own function.
    """
    many, folds = probed["validation"], probed["folds"]
    few = f"Only {many} validation samples: " if 0 < many < FEW else ""
    if folds:
        pool = f"the {probed['pool']} training and validation samples, whole groups together"
        of = pool if probed["pool"] else "your training and validation data"
        text = f"every seed holds out another of {folds} folds of {of}: choices rest on all of it."
        return f"{few}{text if few else text.capitalize()}"
    if not few:
        return ""
    error = 100 * math.sqrt(0.25 / many)
    mend = " Let the function take fold=None: see docs/choosing.md." if own else ""
    return (
        f"{few}they alone move a score by up to {error:.0f} points (a standard error), the same "
        f"way for all seeds.{mend}"
    )


def paragraph(
    decision: Decision,
    val: Mapping[str, Sequence[float]],
    versus: Estimate | None,
    chances: Harm | None,
    shares: bool,
    confirmed: bool = True,
    cost: float | None = None,
) -> str:
    """Say what to use, how much it brings, what the risk is, and what it is not told apart from.

    Args:
        decision: by validation.
        val: scores of each row on fresh seeds.
        versus: the winner's difference to joint training on test data; None if that is the winner.
        chances: of the winner, to be worse.
        shares: whether scores are shares of samples, to be spelt in points.
        confirmed: whether there were fresh seeds.
        cost: of a training of the winner, in plain joint trainings; None if it is not known.
    """
    seeds = len(val[JOINT])
    unit = 100.0 if shares else 1.0
    points = " points" if shares else ""

    def spelt(value: float) -> str:
        return f"{unit * value:+.1f}" if shares else f"{value:+.3g}"

    winner, sentences = decision.winner, []
    if not confirmed:
        sentences.append("Unconfirmed, since no fresh seeds were trained.")
    if winner == JOINT:
        sentences.append(
            f"Stay with joint training, tuned: nothing was better beyond chance on {seeds} fresh "
            "seeds."
        )
    else:
        assert versus is not None
        assert chances is not None
        what = (
            f"One modality is enough: use {winner}"
            if winner.endswith(" alone")
            else f"Use {winner}"
        )
        bounds = f"[{spelt(versus.low)}, {spelt(versus.high)}]"
        sentences.append(
            f"{what}: {spelt(versus.mean)}{points} over tuned joint training on test data "
            f"{bounds}, {seeds} fresh seeds."
        )
        if versus.low <= 0:
            sentences.append("The interval holds 0: on test data the gain is not shown.")
        sentences.append(
            f"Chance that it is worse on average: {chances.average:.0%}; in a single training: "
            f"{chances.single:.0%}."
        )
    if winner != JOINT and cost is not None:
        sentences.append(f"A training costs {cost:.1f} plain joint ones.")
    if alike := [label for label in decision.alike if label != winner]:
        base = fmean(val[JOINT])
        listed = ", ".join(
            label if label == JOINT else f"{label} ({spelt(fmean(val[label]) - base)})"
            for label in alike
        )
        sentences.append(f"Not told apart from it: {listed}.")
    alone = [label for label in val if label.endswith(" alone") and label in decision.alike]
    if alone and not winner.endswith(" alone"):
        sentences.append(f"One modality may be enough: {alone[0]}.")
    if winner == LATE:
        sentences.append("Its weights are in choice.json; `equimodal predict` applies them.")
    return " ".join(sentences)
