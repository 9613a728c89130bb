"""What it costs to separate a decoder's adapters by tokens, beside a backward pass per modality.

    python benchmarks/tokens.py [--steps N] [--width W] [--rank R]

One process, one thread, time of the processor; the ways take turns, and the table gives the fastest
of each, and the median of the ratios to the plain step of the same turn. Forward and backward are
the same in all but the last; evidence is taken from losses that are there anyway.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import equimodal as eq

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.decoder import (  # type: ignore[import-not-found]
    PLACEHOLDER,
    VOCABULARY,
    Adapted,
    Decoder,
    tokens_of,
)

SIZE, LENGTH, IMAGE = 8, 128, 64
LOSS = eq.TokenLoss()


def made(width: int, rank: int) -> tuple[Decoder, torch.optim.Optimizer]:
    """Return a decoder of 8 layers of which adapters train, and their optimizer."""
    torch.manual_seed(0)
    model = Decoder(layers=8, width=width, rank=rank).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Adapted):
            module.lora_A.requires_grad_(True)
            module.lora_B.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1e-3)


def stepping(
    separated: bool, width: int, rank: int, batch: tuple[Tensor, ...]
) -> Callable[[], None]:
    """Return a step of training, plain or with the trunk separated by tokens."""
    model, optimizer = made(width, rank)
    ids, patches, labels = batch
    balancer = None
    if separated:
        balancer = eq.Balancer(
            eq.OGM(0.3),
            model,
            {"image": model.vision, "text": model.embed},
            optimizer=optimizer,
            scores=eq.Given(),
            tokens=eq.Tokens("trunk", tokens_of),
        )

    def step() -> None:
        loss = LOSS(model(ids, patches), labels)
        if balancer is None:
            loss.backward()
        else:
            each = loss.detach().expand(SIZE)
            balancer.backward(balancer.loss(losses={"image": each, "text": each}, joint=loss))
            balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()

    return step


def per_modality(width: int, rank: int, batch: tuple[Tensor, ...]) -> Callable[[], None]:
    """Return a step with a forward and backward for the tokens of each modality."""
    model, optimizer = made(width, rank)
    adapters = [module for module in model.modules() if isinstance(module, Adapted)]
    ids, patches, labels = batch

    def step() -> None:
        image = ids == PLACEHOLDER
        for only in (image, ~image):
            for adapter in adapters:
                adapter.only = only
            LOSS(model(ids, patches), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Time the three ways in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rank", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, VOCABULARY, (SIZE, LENGTH), generator=generator)
    ids[:, :IMAGE] = PLACEHOLDER
    patches = torch.randn(SIZE * IMAGE, 5, generator=generator)
    batch = (ids, patches, ids.masked_fill(ids == PLACEHOLDER, -100))
    ways = {
        "plain": stepping(False, given.width, given.rank, batch),
        "by tokens": stepping(True, given.width, given.rank, batch),
        "a pass per modality": per_modality(given.width, given.rank, batch),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.steps + 2):
        for name, step in ways.items():
            start = time.process_time()
            step()
            if turn >= 2:
                times[name].append(time.process_time() - start)
    plain = statistics.median(times["plain"])
    print("| step | fastest, ms | over plain: fastest | median |\n|---|---|---|---|")
    for name, of in times.items():
        best = min(of)
        ratios = [one / base for one, base in zip(of, times["plain"], strict=True)]
        over = best / min(times["plain"]), statistics.median(ratios)
        print(f"| {name} | {best * 1e3:.1f} | {over[0]:.3f} | {over[1]:.3f} |")
    print(
        f"\n{given.steps} steps, width {given.width}, rank {given.rank}, {plain * 1e3:.0f} ms plain"
    )


if __name__ == "__main__":
    main()
