"""From what was confirmed to files: the words, the line, the table, the page and the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from equimodal.choosing.beware import misled, warning
from equimodal.choosing.candidate import JOINT
from equimodal.choosing.choice import CHOICE, MODEL, PAGE, TABLE, Choice
from equimodal.choosing.confirm import Confirmed
from equimodal.choosing.cost import TERMS, costs, total
from equimodal.choosing.plan import Plan
from equimodal.choosing.race import Raced
from equimodal.choosing.table import against, markdown, page, table
from equimodal.choosing.training import BEST
from equimodal.choosing.trainings import Trainings
from equimodal.choosing.words import line, paragraph
from equimodal.compare.statistics import harm
from equimodal.system.files import partial_of, write_whole


def recommend(
    trainings: Trainings, plan: Plan, probed: Mapping[str, Any], raced: Raced, confirmed: Confirmed
) -> Choice:
    """Say what to use, and write all that is known to the folder.

    Args:
        trainings: of the choice.
        plan: of them.
        probed: which candidates can run.
        raced: how far each came.
        confirmed: what fresh seeds and test data say.
    """
    folder, winner, test = trainings.folder, confirmed.winner, confirmed.test
    versus, chances = None, None
    if winner.label != JOINT:
        versus = against(confirmed.tests[winner.label], confirmed.tests[JOINT])
        pairs = zip(test[winner.label], test[JOINT], strict=True)
        chances = harm([ours - theirs for ours, theirs in pairs])
    every = [v for of in (confirmed.val, test) for values in of.values() for v in values]
    shares = all(0 <= value <= 1 for value in every)
    cost = costs(trainings.operations)
    advice = paragraph(confirmed.decision, confirmed.val, versus, chances, shares, confirmed.fresh)
    wrong = misled(winner.label, confirmed.val, confirmed.tests, shares)
    beware = warning(wrong, winner.label, shares)
    text = f"{advice} {beware}".strip()
    seed, rate = confirmed.best_seed, winner.trial.rate
    pasted = line(winner.trial.methods(), rate, probed["epochs"], seed, probed.get("given", ()))
    whole = total(cost)
    terms = TERMS if whole is None else f"{TERMS} All together: {whole:.0f}."
    weights = _exported(trainings, confirmed)
    found = table(raced, confirmed, cost, shares)
    lacking = {**dict.fromkeys(raced.failed, "failed in training"), **probed["lacking"]}
    notes = "\n".join(f"- {label}: {why}" for label, why in lacking.items())
    parts = [text, f"    {pasted}", str(plan), markdown(found), terms, notes]
    write_whole(folder / TABLE, "\n\n".join(part for part in parts if part) + "\n")
    title = f"Choosing for {_about(trainings)}"
    write_whole(
        folder / PAGE, page(title, advice, beware, pasted, f"{plan} {terms}", found, lacking)
    )
    known = {
        "method": winner.label,
        "methods": winner.trial.methods(),
        "rate": rate,
        "seed": seed,
        "threads": trainings.shared["threads"],
        "line": pasted,
        "text": text,
        "difference": None if versus is None else asdict(versus),
        "harm": None if chances is None else asdict(chances),
        "weights": weights,
        "val": dict(confirmed.val),
        "test": test,
        "costs": {label: {**asdict(each), "spent": each.spent} for label, each in cost.items()},
        "misled": asdict(wrong),
        "chances": confirmed.decision.chances,
        "failures": trainings.failures,
    }
    write_whole(folder / CHOICE, json.dumps(known, indent=1) + "\n")
    return Choice(winner.label, pasted, versus, chances, text, folder, rate, seed, cost)


def _exported(trainings: Trainings, confirmed: Confirmed) -> Any:
    """Write the model of the winner's best seed, and return its weights of late fusion."""
    task = trainings.task(confirmed.winner.trial, confirmed.best_seed, True)
    state = torch.load(task.folder / BEST, weights_only=False)
    path = trainings.folder / MODEL
    torch.save({**state, "spec": dict(task.spec), "run": task.name}, partial_of(path))
    partial_of(path).replace(path)
    return json.loads((task.folder / "result.json").read_text())["weights"]


def _about(trainings: Trainings) -> str:
    build = trainings.shared["build"]
    return build if isinstance(build, str) else str(build["source"]["name"])
