"""What a row costs is counted: second passes, teachers, one modality alone; resumed or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equimodal.choosing.cost import Cost, costs, total
from equimodal.choosing.train import train
from equimodal.choosing.training import Training

SPEC: dict[str, Any] = {
    "build": "support.stranger:build", "path": None, "threads": 1, "rate": 1.0, "seed": 0,
    "late": False, "keep": False,
}  # fmt: skip


def operations(folder: Path, *methods: tuple[str, dict[str, Any]]) -> float:
    folder.mkdir()
    train({**SPEC, "methods": list(methods)}, folder)
    return float(json.loads((folder / "result.json").read_text())["operations"])


def by_hand(outputs: int = 3) -> float:
    """Of 6 batches of 40 samples in 3 epochs: weights forward, weights and features backward."""
    ears, eyes, judge = 3 * 16, 6 * 16, 32 * outputs
    forward = ears + eyes + judge
    backward = forward + judge  # nothing asks for the gradient of the inputs
    return 2.0 * 40 * 6 * 3 * (forward + backward)


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
def test_operations_are_those_of_all_passes(tmp_path: Path) -> None:
    joint = operations(tmp_path / "joint", ("joint", {}))
    assert joint == pytest.approx(by_hand(), rel=0.1), "the first step looks at the model too"
    twice = operations(tmp_path / "masam", ("masam", {}))
    assert twice > 1.9 * joint, "every step runs again"
    alone = operations(tmp_path / "alone", ("unimodal", {"modality": "sound"}))
    assert alone == pytest.approx(joint, rel=0.1), "the loop runs the whole model"
    taught = operations(tmp_path / "taught", ("umt", {}))
    ensemble = operations(tmp_path / "ensemble", ("ensemble", {}))
    assert taught > joint + 0.9 * ensemble, "and the teachers were trained before"


def test_a_resumed_training_counts_the_same(tmp_path: Path) -> None:
    whole = operations(tmp_path / "whole", ("joint", {}))
    broken = tmp_path / "broken"
    broken.mkdir()
    spec = {**SPEC, "methods": [("joint", {})]}
    first = Training(spec, broken)
    first.built = replace(first.built, epochs=1)
    first.run()
    assert first.operations is not None
    first.balancer.detach()
    train(spec, broken)
    found = json.loads((broken / "result.json").read_text())
    assert found["operations"] == pytest.approx(whole, rel=0.05)  # it looks at the model again


def test_a_row_costs_what_its_trainings_do() -> None:
    found = costs({"joint": [2e9, 2e9], "arl": [3e9, 3e9, 3e9], "old": [None]})
    assert found["joint"] == Cost(1.0, 2)
    assert found["arl"] == Cost(1.5, 3)
    assert found["arl"].spent == 4.5
    assert found["old"].spent is None
    assert total(found) is None
    assert total({name: found[name] for name in ("joint", "arl")}) == 6.5
