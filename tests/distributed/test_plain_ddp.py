"""A plain torch loop under DistributedDataParallel: accumulation, clipping, noise, a schedule."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist

import equimodal as eq
from equimodal.testing import spawn
from support.examples import ROOT, TWO_RANKS, assert_page_shows_diff, changed_lines, run
from support.loops import STEPS, Loop, always, hooks_of, ogm_ge

EXAMPLES = [ROOT / "examples" / f"ddp_{kind}.py" for kind in ("plain", "balanced")]


def on_ranks(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    straight = Loop(ogm_ge)
    found["straight"] = straight.train()
    found["state"] = str(straight.balancer.state_dict())
    found["always"] = Loop(always).train()

    first = Loop(ogm_ge)
    first.train(until=13)
    parts = ("model", "optimizer", "schedule", "balancer")
    saved = copy.deepcopy({part: getattr(first, part).state_dict() for part in parts})
    resumed = Loop(ogm_ge)
    for part in parts:
        getattr(resumed, part).load_state_dict(saved[part])
    resumed.step = 13
    found["resumed"] = resumed.train()
    found["resumed state"] = str(resumed.balancer.state_dict())

    stopped = Loop()
    with stopped.balancer:
        while stopped.step < STEPS:
            stopped.train(until=stopped.step + 5)
            stop = torch.tensor(float(rank == 1 and stopped.step == 10))
            dist.all_reduce(stop)  # one rank has seen enough: all stop together
            if stop:
                break
    found["stopped at"] = stopped.step
    found["stopped hooks"] = hooks_of(stopped.model, stopped.optimizer)

    failed = Loop()
    try:
        with failed.balancer:
            failed.train(until=1)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        found["failed hooks"] = hooks_of(failed.model, failed.optimizer)
    return found


@pytest.fixture(scope="module")
def pair() -> list[dict[str, Any]]:
    return spawn(on_ranks)


@pytest.mark.parametrize(("name", "make"), [("straight", ogm_ge), ("always", always)])
def test_two_ranks_equal_the_one_large_batch(
    pair: list[dict[str, Any]], name: str, make: Any
) -> None:
    first, second = pair
    assert torch.equal(first[name], second[name])
    torch.testing.assert_close(first[name], Loop(make).train(), rtol=1e-9, atol=1e-10)


def test_the_run_would_notice_modulation_clipping_and_noise() -> None:
    """Without each of them the parameters are others: the comparisons of these files can fail."""
    found = Loop(always).train()
    for other in (
        Loop(eq.Joint),
        Loop(always, clip=0.0),
        Loop(lambda: eq.OGM(0.8)),
        Loop(ogm_ge),
    ):
        assert (other.train() - found).abs().max() > 1e-4


def test_resumed_in_the_middle_of_an_epoch(pair: list[dict[str, Any]]) -> None:
    for rank in pair:
        assert torch.equal(rank["resumed"], rank["straight"])
        assert rank["resumed state"] == rank["state"]


def test_no_hook_is_left_after_stopping_early_or_failing(pair: list[dict[str, Any]]) -> None:
    for rank in pair:
        assert rank["stopped at"] == 10
        assert rank["stopped hooks"] == rank["failed hooks"] == 0


def test_the_examples_run_and_differ_in_five_lines() -> None:
    assert changed_lines(*EXAMPLES) <= 5
    plain, balanced = run(*EXAMPLES, launcher=TWO_RANKS)
    assert "validation accuracy" in plain
    assert "validation accuracy" in balanced
    assert plain != balanced


def test_the_page_shows_how_the_examples_differ() -> None:
    assert_page_shows_diff(ROOT / "docs" / "trainers" / "torch.md", *EXAMPLES)
