"""Choosing, from a user's function to a recommendation: the whole on one page."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from equimodal import data
from equimodal.choosing.candidate import baselines, candidates
from equimodal.choosing.choice import Choice
from equimodal.choosing.confirm import confirm
from equimodal.choosing.plan import planned
from equimodal.choosing.race import race
from equimodal.choosing.recommend import recommend
from equimodal.choosing.trainings import Told, Trainings
from equimodal.choosing.words import on_validation
from equimodal.compare.task import noted
from equimodal.errors import SetupError
from equimodal.tasks import Engine, Local, holding
from equimodal.training import Encoder, Settings
from equimodal.training.claim import Claim
from equimodal.training.fit import versions


def choose(
    what: str | data.Source,
    out: Path | str | None = None,
    *,
    budget: int | None = None,
    hours: float | None = None,
    methods: Sequence[str] | None = None,
    engine: str | Engine = "local",
    workers: int | None = None,
    limit: float | None = None,
    settings: Settings | None = None,
    encoder: Encoder = "small",
    say: Callable[[str], None] = print,
    show: Callable[[Told], None] = lambda told: None,
    **where: Any,
) -> Choice:
    """Choose a method for a model: baselines, a race, fresh seeds, and test data once.

    Interrupted at any moment, the same call goes on. See docs/choosing.md.

    Args:
        what: ``package.module:function``, which returns the model with all that training it takes;
            or a source of data, for a small model of ours.
        out: folder of the results; ``results/`` and a name by default.
        budget: of trainings; what all methods take by default.
        hours: instead of a budget: it is estimated from a few steps, and nothing is begun later.
        methods: some of them, such as "arl" or "ogm-ge+multi-loss"; all that can run by default.
        engine: "local", "ray", "slurm", or one of `equimodal.tasks`.
        workers: of "local", trainings at once; one for each core by default.
        limit: seconds that a training may take.
        settings: of a source, how to train.
        encoder: of a source, what encodes a modality.
        say: is called with the plan, before anything is trained.
        show: is called whenever there is something to show.
        where: address, cpus, gpus, partition: see `equimodal.tasks.engine_of`.

    Raises:
        SetupError: something does not fit, or another process is at this folder.
        KeyboardInterrupt: it was interrupted.
    """
    from equimodal.tasks import engine_of

    if budget is not None and hours is not None:
        raise SetupError("expected --budget or --hours, found both")
    if hours is not None and not hours > 0:
        raise SetupError(f"--hours: expected a number above 0, found {hours:g}")
    cores = os.cpu_count() or 1
    several = workers or cores
    if several < 1:
        raise SetupError(f"workers: expected 1 or more, found {several}")
    build = _spelt(what, settings, encoder)
    folder = Path(out) if out is not None else Path("results", _name(what))
    folder.mkdir(parents=True, exist_ok=True)
    claim = Claim(folder / "choosing.json", "a choice", {"build": build, "versions": versions()})
    claim.check()
    with holding(folder) as lock:
        claim.write()
        shared = {
            "build": build,
            "path": str(Path.cwd()) if isinstance(build, str) else None,
            "threads": max(1, cores // several),
        }
        needed = ("equimodal.choosing.train",)
        made: Engine
        if not isinstance(engine, str):
            made = engine
        elif engine == "local":
            made = Local(several, needed, lock)
        else:
            made = engine_of(engine, folder, **where)
        with made as running:
            trainings = Trainings(folder, running, shared, limit, show)
            probed = trainings.probe(methods)
            if hours is not None:
                budget = math.floor(hours * 3600 * several / max(probed["seconds"], 1e-3))
                trainings.deadline = time.monotonic() + hours * 3600
            return _carried_through(trainings, probed, budget, say)


def _carried_through(
    trainings: Trainings,
    probed: Mapping[str, Any],
    budget: int | None,
    say: Callable[[str], None],
) -> Choice:
    """Plan, race, confirm, recommend."""
    modalities = probed["modalities"]
    held = [b for b in baselines(modalities) if b.label not in probed["lacking"]]
    entered = candidates(probed["epochs"], probed["labels"])
    plan = planned(len(entered), len(held), budget)
    trainings.total = plan.cost
    say(str(plan))
    if probed["folds"]:
        trainings.shared = {**trainings.shared, "folds": probed["folds"]}
    if said := on_validation(probed, isinstance(trainings.shared["build"], str)):
        say(said)
    trainings.stage = "race"
    try:
        raced = race(plan, held, entered, modalities, trainings.validated)
    except SetupError as error:
        raise SetupError(f"{error}: {trainings.reason}") from error
    confirmed = confirm(trainings, raced, plan.held, plan.fresh)
    return recommend(trainings, plan, probed, raced, confirmed)


def _spelt(what: str | data.Source, settings: Settings | None, encoder: Encoder) -> Any:
    if isinstance(what, str) and ":" in what:
        return what
    source = data.Source(what) if isinstance(what, str) else what
    chosen = asdict(settings or Settings())
    told = {"source": noted(source), "settings": chosen, "encoder": encoder}
    return json.loads(json.dumps(told))


def _name(what: str | data.Source) -> str:
    name = what if isinstance(what, str) else what.name
    return f"choose-{Path(name.partition(':')[0]).stem}"
