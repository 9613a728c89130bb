"""Measure what of a coefficient arrives through each optimizer, and write the table of its page."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.update.probing import character

PAGE = Path(__file__).parent.parent / "docs" / "optimizers.md"
START, END = "<!-- made by scripts/optimizers.py -->", "<!-- end -->"
FACTOR, STEPS, BLOCK = 0.25, 50, 5
Parameters = list[nn.Parameter]


@dataclass(frozen=True)
class Case:
    """An optimizer to measure.

    Attributes:
        package: where it is from.
        make: of parameters.
        hooked: the optimizer whose steps are hooked, where another is wrapped around it.
        half: whether the parameters are in bfloat16.
    """

    package: str
    make: Callable[[Parameters], Any]
    hooked: Callable[[Any], Any] = lambda optimizer: optimizer
    half: bool = False


class Master(torch.optim.Optimizer):
    """SGD on a copy of the weights in single precision, as mixed-precision optimizers keep one."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    copy = self.state[p].setdefault("master", p.detach().float().clone())
                    copy.add_(p.grad.float(), alpha=-group["lr"])
                    p.copy_(copy)


def of(module: str, name: str, **settings: Any) -> Callable[[Parameters], Any]:
    """Return what makes an optimizer of a package, imported when it is made."""
    return lambda parameters: getattr(importlib.import_module(module), name)(parameters, **settings)


def around(module: str, name: str, inner: Callable[[Parameters], Any]) -> Callable[..., Any]:
    """Return what wraps one optimizer around another."""
    return lambda parameters: getattr(importlib.import_module(module), name)(inner(parameters))


TORCH, MORE, BITS, AO = "torch.optim", "pytorch_optimizer", "bitsandbytes.optim", "torchao.optim"
FREE = "schedulefree"
CASES: dict[str, Case] = {
    "SGD, momentum": Case("torch", of(TORCH, "SGD", lr=0.005, momentum=0.9)),
    "ASGD": Case("torch", of(TORCH, "ASGD", lr=0.03)),
    "Adam": Case("torch", of(TORCH, "Adam", lr=0.01)),
    "AdamW, fused": Case("torch", of(TORCH, "AdamW", lr=0.01, fused=True)),
    "NAdam": Case("torch", of(TORCH, "NAdam", lr=0.01)),
    "RAdam": Case("torch", of(TORCH, "RAdam", lr=0.01)),
    "Adagrad": Case("torch", of(TORCH, "Adagrad", lr=0.05)),
    "Adadelta": Case("torch", of(TORCH, "Adadelta", lr=1.0)),
    "RMSprop": Case("torch", of(TORCH, "RMSprop", lr=0.005)),
    "Rprop": Case("torch", of(TORCH, "Rprop", lr=0.001)),
    "Adafactor": Case("torch", of(TORCH, "Adafactor", lr=0.01)),
    "Muon": Case("torch", of(TORCH, "Muon", lr=0.02)),
    "Lion": Case("pytorch_optimizer", of(MORE, "Lion", lr=0.01)),
    "SignSGD": Case("pytorch_optimizer", of(MORE, "SignSGD", lr=0.01)),
    "LAMB": Case("pytorch_optimizer", of(MORE, "Lamb", lr=0.01)),
    "LARS": Case("pytorch_optimizer", of(MORE, "LARS", lr=1.0)),
    "SOAP": Case("pytorch_optimizer", of(MORE, "SOAP", lr=0.01)),
    "AdEMAMix": Case("pytorch_optimizer", of(MORE, "AdEMAMix", lr=0.01)),
    "Kate": Case("pytorch_optimizer", of(MORE, "Kate", lr=0.01)),
    "Prodigy": Case("pytorch_optimizer", of(MORE, "Prodigy", lr=1.0)),
    "D-Adapt Adam": Case("pytorch_optimizer", of(MORE, "DAdaptAdam", lr=1.0)),
    "MADGRAD": Case("pytorch_optimizer", of(MORE, "MADGRAD", lr=0.01)),
    "Nero": Case("pytorch_optimizer", of(MORE, "Nero", lr=0.01)),
    "Ranger21": Case("pytorch_optimizer", of(MORE, "Ranger21", num_iterations=200, lr=0.01)),
    "Lookahead(Adam)": Case(
        "pytorch_optimizer",
        around(MORE, "Lookahead", of(TORCH, "Adam", lr=0.01)),
        lambda optimizer: optimizer.optimizer,
    ),
    "AdamWScheduleFree": Case(FREE, of(FREE, "AdamWScheduleFree", lr=0.02)),
    "SGDScheduleFree": Case(FREE, of(FREE, "SGDScheduleFree", lr=0.05)),
    "ScheduleFreeWrapper(SGD)": Case(
        FREE,
        around(FREE, "ScheduleFreeWrapper", of(TORCH, "SGD", lr=0.05)),
        lambda optimizer: optimizer.base,
    ),
    "AdamW8bit": Case("bitsandbytes", of(BITS, "AdamW8bit", lr=0.01)),
    "Lion8bit": Case("bitsandbytes", of(BITS, "Lion8bit", lr=0.01)),
    "AdamW4bit": Case("torchao", of(AO, "AdamW4bit", lr=0.01)),
    "SGD, fp32 masters": Case("own", lambda p: Master(p, 0.03), half=True),
}


def run(
    case: Case, gradient: Callable[[int], float], update: Callable[[int], float]
) -> dict[str, Tensor]:
    """Descend two quadratics, one of them throttled, written out by hand.

    Args:
        case: the optimizer.
        gradient: the coefficient on the gradient of the first, by step.
        update: the same on what the optimizer makes of it.

    Returns:
        "places" of the first after each step, shape ``(STEPS + 1, N)``; "other" place of the second
        at the end; "evaluated" places of the first at the end; its "optimum".
    """
    draws = torch.Generator().manual_seed(0)
    first, second = (nn.Parameter(0.1 * torch.randn(16, 16, generator=draws)) for _ in range(2))
    goals = [p.detach() + torch.randn(16, 16, generator=draws) for p in (first, second)]
    if case.half:
        first, second = (nn.Parameter(p.detach().bfloat16()) for p in (first, second))
    start = first.detach().float().flatten().clone()
    optimizer = case.make([first, second])
    now = 0
    old = first.detach().clone()

    def scale(*_: Any) -> None:
        with torch.no_grad():
            first.copy_(old + update(now) * (first - old))

    def remember(*_: Any) -> None:
        old.copy_(first.detach())

    hooked = case.hooked(optimizer)
    hooked.register_step_pre_hook(remember)
    hooked.register_step_post_hook(scale)
    _switch(optimizer, "train")
    places = [start]
    for now in range(STEPS):
        for p, goal, factor in zip((first, second), goals, (gradient(now), 1.0), strict=True):
            p.grad = (factor * (p.detach().float() - goal)).to(p.dtype)
        optimizer.step()
        places.append(first.detach().float().flatten().clone())
    _switch(optimizer, "eval")
    return {
        "places": torch.stack(places),
        "other": second.detach().float().flatten(),
        "evaluated": first.detach().float().flatten(),
        "optimum": goals[0].flatten(),
    }


def measure(case: Case) -> dict[str, float]:
    """Return what arrives of a coefficient through an optimizer."""

    def constant(step: int) -> float:
        return FACTOR

    def changing(step: int) -> float:
        return FACTOR if step // BLOCK % 2 else 1.0

    def one(step: int) -> float:
        return 1.0

    plain = run(case, one, one)
    found = {"left": _left(plain), "left at 0": _left(run(case, one, lambda step: 0.0))}
    for space in ("gradient", "update"):
        asked = {space: constant}
        steady = run(case, asked.get("gradient", one), asked.get("update", one))
        asked = {space: changing}
        varying = run(case, asked.get("gradient", one), asked.get("update", one))
        early = 2 * BLOCK  # before the quadratic bends the way
        found |= {
            f"{space}, constant": _way(steady, early) / _way(plain, early),
            f"{space}, changing": _blocks(varying) / _blocks(plain),
            f"{space}, others": float((steady["other"] - plain["other"]).abs().max()),
            f"{space}, left": _left(steady),
        }
    return found


def _way(of_run: dict[str, Tensor], steps: int) -> float:
    """Return how far weights came toward the optimum within the first steps."""
    places, aim = of_run["places"], of_run["optimum"] - of_run["places"][0]
    return float((places[steps] - places[0]) @ aim / aim.norm())


def _blocks(of_run: dict[str, Tensor]) -> float:
    """Return how far weights come in throttled blocks of steps, over the others just before."""
    moves = of_run["places"].diff(dim=0).norm(dim=1).unflatten(0, (-1, BLOCK)).sum(dim=1)
    return float(moves[1::2].sum() / moves[0:-1:2].sum())


def _left(of_run: dict[str, Tensor]) -> float:
    """Return the share of the way that is left to the optimum for the evaluated weights."""
    left = of_run["evaluated"] - of_run["optimum"]
    return float(left.norm() / (of_run["places"][0] - of_run["optimum"]).norm())


def _switch(optimizer: Any, mode: str) -> None:
    if callable(getattr(optimizer, mode, None)):
        getattr(optimizer, mode)()


def said(case: Case) -> str:
    """Return what the balancer does about an optimizer."""
    dtype = torch.bfloat16 if case.half else torch.float32
    optimizer = case.make([nn.Parameter(torch.zeros(16, 16, dtype=dtype)) for _ in range(2)])
    seen = character(optimizer)
    if seen is None:
        return "not tried"
    return "; ".join(
        word
        for word, holds in (
            ("gradient: said", seen.cancels),
            ("update: refused", seen.keeps_weights),
            ("moves others: said", seen.coupling(("gradient", "update")) is not None),
        )
        if holds
    )


def rows() -> Iterator[tuple[str, str, dict[str, float], str]]:
    """Yield name, package, measures and what is said, of every optimizer that is installed."""
    for name, case in CASES.items():
        with warnings.catch_warnings(), contextlib.suppress(ImportError):
            warnings.simplefilter("ignore")
            yield name, case.package, measure(case), said(case)


def table() -> str:
    """Return the table in Markdown."""
    lines = [
        "| optimizer | from | gradient, constant | gradient, changing | update, constant "
        "| update, changing | others move | left: plain, gradient, update, update of 0 "
        "| what is said |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, package, found, words in rows():
        spaces = [f"{found[f'{s}, {k}']:.2f}" for s in SPACES for k in ("constant", "changing")]
        moved = [s for s in SPACES if found[f"{s}, others"] > 0.01]
        left = ", ".join(f"{found[k]:.2f}" for k in LEFT)
        cells = [name, package, *spaces, " and ".join(moved) or "no", left, words or "nothing"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


SPACES = ("gradient", "update")
LEFT = ("left", "gradient, left", "update, left", "left at 0")


def main() -> int:
    """Return 0 if the table was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="print the table, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = table()
    if options.show:
        print(made)
        return 0
    page = PAGE.read_text()
    if START not in page or END not in page:
        raise SetupError(f"{PAGE} has no place for the table, between {START} and {END}")
    before, rest = page.split(START)
    PAGE.write_text(f"{before}{START}\n\n{made}\n\n{END}{rest.split(END)[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
