"""The rules by which a diagnosis ends in advice: the first one that applies decides.

They are described, with their limits, in `docs/diagnosis.md`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from equimodal.diagnostics.advice.diagnosis import Diagnosis
from equimodal.diagnostics.advice.signs import (
    held_back,
    ignored,
    percent,
    signs,
    untold,
)
from equimodal.diagnostics.advice.throttling import throttling
from equimodal.diagnostics.advice.verdicts import Advice, Reason, Verdict
from equimodal.methods.registry import available
from equimodal.methods.shortlist import in_order

# Below, the interval of an accuracy of 50% reaches 10 points to either side: further than most
# gains that anybody has claimed.
FEWEST = 100
# Below, a gain is lost among what seeds alone do: five joint runs on `watch` are 4 points apart.
WORTHWHILE = 0.02
# An interval as wide as this says neither that something is won nor that nothing is.
WIDE = 0.2

# Losses of single modalities: the first four of the shortlist that chiefly train by them.
BY_THEM = ("arl", "bss", "di-mml", "iprm", "mbsd", "mimo", "mmpareto", "mses", "multi-loss")
MENDING = in_order(BY_THEM)[:4]
UNUSED = ("modality-dropout",)  # takes from the head what it leans on
THROTTLING = ("ogm-ge", "ge")  # what its noise alone does has to be known

Rule = Callable[[Diagnosis], Advice | None]


def advise(found: Diagnosis, compare: str = "", again: str = "") -> Advice:
    """Return whether to balance, and why; a function of the numbers alone.

    Args:
        found: the diagnosis; its own advice is not looked at.
        compare: a command that compares methods on the data, or chooses one for the model, without
            ``--methods``; it ends the advice where there are methods to try.
        again: a command that trains each encoder alone too; it does where that is what lacks.
    """
    for rule in RULES:
        advice = rule(found)
        if advice is not None:
            lacking = rule is no_reference and again
            return replace(advice, next=(again,)) if lacking else _with_command(advice, compare)
    raise AssertionError("the last rule always applies")


def too_few(found: Diagnosis) -> Advice | None:
    """Say nothing of fewer than `FEWEST` samples."""
    if found.samples >= FEWEST:
        return None
    return _advice(
        found,
        "cannot tell",
        f"{found.samples} samples are too few: {FEWEST} or more are needed.",
        [Reason("The interval of the accuracy is too wide.", {"accuracy": found.accuracy})],
        ["evaluate on more samples"],
        said=False,
    )


def nothing_learned(found: Diagnosis) -> Advice | None:
    """Say nothing of a model that is no better than the most frequent class."""
    if found.above_chance.low > 0:
        return None
    return _advice(
        found,
        "cannot tell",
        "The model as a whole is no better than the most frequent class: train it first.",
        [Reason("Accuracy against the most frequent class.", {"above": found.above_chance})],
        ["train the joint model until it is better than chance"],
        said=False,
    )


def frozen(found: Diagnosis) -> Advice | None:
    """Advise against balancing encoders of which none is trained.

    Methods that slow a modality down act on its encoder. Frozen Food-101: 85.8 without and 84.1
    with OGM-GE (VuVoCodes, second-hand; see `docs/when-not-to-balance.md`).
    """
    if any(found.trainable.values()):
        return None
    return _advice(
        found,
        "do not balance",
        "No encoder is trained: there is nothing that balancing could act on but the head.",
        [Reason("Trainable parameters of the encoders.", dict(found.trainable))],
        ["train another head", "modality-dropout"] if ignored(found) else [],
    )


def no_reference(found: Diagnosis) -> Advice | None:
    """Say nothing where it is not known what the encoders could be, or not how surely."""
    unsure = {name: of for name, of in (found.gap or {}).items() if not of.known}
    if unsure:
        return _advice(
            found,
            "cannot tell",
            f"How sure it is what {_listed([*unsure])} would reach alone is not known, nor whether "
            "anything is lost: an accuracy that was given says nothing of its own error.",
            [Reason("Alone as given, minus a probe on the encoder.", unsure)],
            ["give for each sample whether it is right alone, or a function that trains it"],
        )
    if found.gap is not None:
        return None
    return _advice(
        found,
        "cannot tell",
        "What each encoder reaches alone is not known, so nor is whether anything is lost.",
        [],
        ["train each encoder alone, see equimodal.diagnostics.alone, and give training data"],
    )


def nothing_to_tell(found: Diagnosis) -> Advice | None:
    """Advise against it where at most one modality tells anything alone.

    Slowing down the one that tells costs what it knows: on CMU-MOSEI text alone, 80.58, is above
    the joint 78.99 and all but three methods (BalanceBenchmark, see `docs/methods/unimodal.md`).
    Where none does, knowledge is in the combination, and scores of single modalities are noise.
    """
    silent = untold(found)
    telling = [name for name in found.modalities if name not in silent]
    if not silent or len(telling) > 1:
        return None
    known = found.alone or {}
    reasons = [
        Reason(
            f"{_listed(silent)}, trained alone or under a probe, {_is(silent)} no better than "
            "chance.",
            {name: known[name] for name in silent},
        )
    ]
    if telling:
        summary = f"{telling[0]} is the only modality that tells anything: slowing it down costs."
        return _advice(found, "do not balance", summary, reasons, [f"try {telling[0]} alone"])
    summary = "No modality tells anything alone: what the model knows is in their combination."
    return _advice(found, "do not balance", summary, reasons, [])


def no_sign(found: Diagnosis) -> Advice | None:
    """Find nothing: no encoder lost anything that counts, and none is ignored.

    "If the gap is small, there is nothing to win": the gap between an encoder trained alone and its
    probe after joint training is the measure that tells most (MMPareto, ICML 2024; DGL, 2025). But
    a gap far below 0 comes of encoders that were trained alone too briefly.
    """
    if held_back(found) or ignored(found):
        return None
    gaps = {name: of for name, of in (found.gap or {}).items() if name not in untold(found)}
    reasons = [Reason("No encoder is clearly worse than when trained alone.", found.gap or {})]
    open_ = [name for name, of in gaps.items() if of.high > WIDE / 2]
    brief = [name for name, of in gaps.items() if of.high < -WIDE / 2]
    if found.together is not None and found.together.promise.high < WORTHWHILE:
        brief = []  # one linear head on either encoders shows it too, and is trained to the end
    if brief:
        return _advice(
            found,
            "cannot tell",
            f"No sign of imbalance, but what {_listed(brief)} could be is not known: trained alone "
            "it is far worse than a linear probe finds it after joint training.",
            reasons,
            ["train each encoder alone for longer"],
        )
    if open_:
        return _advice(
            found,
            "cannot tell",
            f"No sign of imbalance, but too few samples: {_listed(open_)} may have lost more than "
            f"{100 * WIDE / 2:.0f} points.",
            reasons,
            ["evaluate on more samples"],
        )
    summary = "No sign of imbalance: no encoder lost anything, none is ignored."
    return _advice(found, "balanced", summary, reasons, [], said=False)


def another_head(found: Diagnosis) -> Advice | None:
    """Advise unimodal losses where the encoders know what the head does not use.

    Bias persists at the decision layer after balanced training (arXiv 2510.14411, abstract). On
    `synthetic` with a modality a fiftieth as fast, where this rule applies, joint training reaches
    86, multi-loss 93, modality dropout 94, MMPareto 96, DGL 97, OGM-GE 86; the best there is, 97.
    So also where the slow one knows most, leads, and is not ignored: see `docs/diagnosis.md`.
    """
    if found.together is None:
        return None
    refit = found.together.refit
    if refit.low <= 0 or refit.value < WORTHWHILE:
        return None
    unused = UNUSED if ignored(found) else ()
    return _advice(
        found,
        "unimodal losses",
        f"The head leaves unused what the encoders know: another linear head on the same encoders "
        f"brings {percent(refit)} points.",
        [Reason("Another head on the same frozen encoders, against the model.", {"gain": refit})],
        ["train the head longer, or anew", *MENDING, *unused],
    )


def nothing_to_win(found: Diagnosis) -> Advice | None:
    """Advise against it where encoders as good as alone would not make the model better.

    Either what is ignored is known from another modality already, or it is too little. Balance is
    not the goal: on MELD the ratio improved while accuracy fell (DL_project, unmarked).
    """
    if found.together is None or found.together.promise.high >= WORTHWHILE:
        return None
    reasons = [
        Reason(
            "Encoders that were trained alone, under one linear head, against what the model, or "
            "a new head on it, reaches.",
            {"gain": found.together.promise, "together": found.together.alone},
        )
    ]
    if not found.together.over_best.low > 0:
        reasons.append(
            Reason(
                "Together they are not clearly better than the best of them alone: the others add "
                "nothing that it does not know.",
                {"over the best alone": found.together.over_best},
            )
        )
    return _advice(
        found,
        "do not balance",
        f"Encoders as good as alone would not make this model better, or hardly: "
        f"{percent(found.together.promise)} points. Balancing can cost more than it brings.",
        reasons,
        [_better_alone(found) or "keep joint training"],
    )


def mend(found: Diagnosis) -> Advice | None:
    """Advise unimodal losses where better encoders were shown to make a better model.

    The plain sum of joint and unimodal losses is at least as good as OGM, Greedy, PMR and AGM, and
    pre-training like it (MMPareto, ICML 2024, Table 1); it gives most of the gain (Kontras et al.,
    BMVC 2024). Both are plain training, to which methods are held anyway.
    """
    if found.together is None or not held_back(found) or found.together.promise.low <= 0:
        return None
    promise = found.together.promise
    return _advice(
        found,
        "unimodal losses",
        f"Joint training holds {_listed(held_back(found))} back. Encoders as good as alone would "
        f"bring {percent(promise)} points: unimodal losses or pre-training are likely to get some.",
        [
            Reason(
                "Encoders that were trained alone, under one linear head, against what the model, "
                "or a new head on it, reaches.",
                {"gain": promise, "together": found.together.alone},
            )
        ],
        MENDING,
    )


def wide(found: Diagnosis) -> Advice | None:
    """Say nothing where the gain may as well be large as a loss."""
    if found.together is None:
        return None
    promise = found.together.promise
    if promise.high - promise.low <= WIDE:
        return None
    return _advice(
        found,
        "cannot tell",
        f"There is imbalance, but better encoders may bring {percent(promise)} points: too wide.",
        [Reason("The gain that better encoders promise.", {"gain": promise})],
        ["evaluate on more samples"],
    )


def attempt(found: Diagnosis) -> Advice | None:
    """Advise to try methods where something is lost or ignored, and nothing shows that it counts.

    Throttling only where the leading encoder has lost nothing itself, else it pays: on CREMA-D its
    probe falls from 59.6 to 57.8 (DGL, Table 1); on GRID letters both encoders are held back, and
    OGM-GE takes 65 to between 54 and 57 (ours, 2 seeds). How seldom it pays is said with it.
    """
    methods = [*MENDING, *(UNUSED if ignored(found) else ())]
    reasons = []
    summary = "There is imbalance. Whether mending it makes the model better is not known"
    if found.together is not None:
        promise = found.together.promise
        summary += f": better encoders may bring {percent(promise)} points"
        reasons.append(Reason("The gain that better encoders promise.", {"gain": promise}))
    if found.leading not in held_back(found):
        methods += THROTTLING
        reasons.append(throttling())
    return _advice(
        found,
        "try balancing",
        f"{summary}. Compare methods over several seeds.",
        reasons,
        methods,
    )


RULES: tuple[Rule, ...] = (
    too_few,
    nothing_learned,
    frozen,
    no_reference,
    nothing_to_tell,
    another_head,
    no_sign,
    nothing_to_win,
    mend,
    wide,
    attempt,
)


def _advice(
    found: Diagnosis,
    verdict: Verdict,
    summary: str,
    reasons: Sequence[Reason],
    next_: Sequence[str],
    *,
    said: bool = True,
) -> Advice:
    """Return advice, with the signs of imbalance among its reasons if they are to be `said`."""
    because = (*reasons, *(signs(found) if said else ()))
    return Advice(verdict, summary, because, tuple(next_), ignored(found) if said else ())


def _with_command(advice: Advice, compare: str) -> Advice:
    methods = [each for each in advice.next if each in available()]
    if compare.startswith("equimodal choose "):
        methods = [each for each in methods if each != "multi-loss"]  # a baseline there anyway
    named = ",".join(methods)
    if not compare or not named:
        return advice
    command = f"{compare} {shlex.quote(f'--methods=[{named}]')}"
    return replace(advice, next=(*advice.next, command))


def _better_alone(found: Diagnosis) -> str:
    """Return which modality alone is as good as the model; empty if none is."""
    name, alone = max((found.alone or {}).items(), key=lambda each: each[1].value)
    return f"{name} alone is as good as the model" if alone.value >= found.accuracy.value else ""


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
