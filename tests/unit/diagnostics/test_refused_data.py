"""Data that a diagnosis cannot read: modalities that are missing, and loaders without an end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import equimodal as eq
from equimodal.diagnostics import finite
from equimodal.diagnostics.advice.diagnose import diagnose
from equimodal.diagnostics.contributions.robustness import robustness
from equimodal.diagnostics.contributions.subsets import subsets
from equimodal.diagnostics.encoders.alone import alone
from equimodal.diagnostics.encoders.probes import probes
from equimodal.diagnostics.subject import Subject
from support.subjects import Many, data, loader_of

optimizer = partial(torch.optim.SGD, lr=0.1)


class Captioned(nn.Module):
    """Has zeros in place of the caption of an image that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = nn.Linear(3, 4), nn.Linear(3, 5)
        self.head = nn.Linear(9, 4)

    def forward(self, text: Tensor, image: Tensor, has_text: Tensor) -> Tensor:
        z = image.new_zeros(len(image), 4)
        if has_text.any():
            z = torch.where(has_text[:, None], self.text(text), z)
        logits: Tensor = self.head(torch.cat([z, self.image(image)], dim=1))
        return logits


def told(model: nn.Module, batch: Any) -> tuple[Any, ...]:
    return model(*batch[:3]), batch[3], {"text": batch[2]}


def untold(model: nn.Module, batch: Any) -> tuple[Any, ...]:
    return model(*batch[:3]), batch[3]


def batches(*shares: float) -> list[tuple[Any, ...]]:
    """Return batches of 40 samples, a share of which has a caption."""
    found = []
    for seed, share in enumerate(shares):
        text, image, target = data(40, 2, seed=seed)
        found.append((text, image, torch.arange(40) < 40 * share, target))
    return found


def captioned(forward: Any) -> Subject:
    model = Captioned()
    return Subject(model, {"text": model.text, "image": model.image}, model.head, forward=forward)


def test_samples_that_lack_a_modality_are_refused_with_what_to_do() -> None:
    message = r"^text: missing from 10 of the 40 samples of a batch.*leave out"
    with captioned(told) as subject:
        with pytest.raises(eq.SetupError, match=message):
            subsets(subject, batches(1, 0.75))
        with pytest.raises(eq.SetupError, match=message):
            probes(subject, batches(1, 0.75), batches(1))
        with pytest.raises(eq.SetupError, match=message):
            diagnose(subject, None, batches(0.75))
        for loader in ((batches(1), batches(0.75), batches(1)), (*[batches(1)] * 2, batches(0.75))):
            with pytest.raises(eq.SetupError, match=message):
                alone(subject, *loader, optimizer, 1)
        assert subsets(subject, batches(1, 1)).samples == 80  # told that all have all
        alone(subject, batches(0.5), batches(1), batches(1), optimizer, 1)  # training goes on


@pytest.mark.parametrize("shares", [(0, 1), (1, 0)])
@pytest.mark.parametrize("forward", [told, untold])
def test_a_batch_whose_encoder_does_not_run_is_refused(
    shares: tuple[float, ...], forward: Callable[..., Any]
) -> None:
    """Also after batches that told where its feature is, which would be read as if it had run."""
    message = r"^text: missing from a batch, whose encoder did not run.*leave out"
    if shares[0] == 0:  # where its feature is was never seen
        message = r"^the encoder of text did not run before the head.*present="
    refusals = (eq.SetupError, eq.MatchError)
    with captioned(forward) as subject, pytest.raises(refusals, match=message):
        subsets(subject, batches(*shares))


class Stream(IterableDataset[Any]):
    """Samples without a length; without an end by default."""

    def __init__(self, passes: int | None = None) -> None:
        self.passes = passes
        self.samples = list(zip(*data(40, 2), strict=True))

    def __iter__(self) -> Iterator[Any]:
        rounds = itertools.count() if self.passes is None else range(self.passes)
        return iter(sample for _ in rounds for sample in self.samples)


class Endless:
    """Batches without an end, anew in every pass."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(data(8, 2))


@pytest.mark.parametrize("endless", [Endless(), DataLoader(Stream(), 8)])
def test_loaders_without_an_end_are_refused(endless: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "MOST", 20)
    good = loader_of(data(40, 2), 8)
    message = r"has no length and has not ended after 20 batches"
    with Many(2).subject() as subject:
        with pytest.raises(eq.SetupError, match=message):
            diagnose(subject, good, endless)
        with pytest.raises(eq.SetupError, match=message):
            diagnose(subject, endless, good, resamples=20)
        for loaders in ((endless, good, good), (good, endless, good), (good, good, endless)):
            with pytest.raises(eq.SetupError, match=message):
                alone(subject, *loaders, optimizer, 1)


def test_loaders_with_a_length_or_an_end_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "MOST", 20)
    stream = DataLoader(Stream(4), 8)  # 20 batches
    corrupt = {name: lambda batch: batch for name in ("one", "two")}
    with Many(2).subject() as subject:
        assert len(robustness(subject, stream, corrupt=corrupt).corrupted) == 2
        assert subsets(subject, stream).samples == 160
        assert subsets(subject, loader_of(data(44, 2), 2)).samples == 44  # 22 batches
        found = diagnose(subject, stream, stream, resamples=20)
    assert found.samples == 160
    assert found.gradients is not None
    assert found.gradients["batches"] == 20
