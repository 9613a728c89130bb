"""Samples without a modality, and encoders that do not train."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support import slow
from support.users import probabilities


class Captioned(nn.Module):
    """Puts a learned vector in the place of a missing caption's feature."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = nn.Linear(5, 6), nn.Linear(4, 7)
        self.no_text = nn.Parameter(torch.randn(6))
        self.head = nn.Linear(13, 3)

    def forward(self, text: Tensor, image: Tensor, has_text: Tensor) -> Tensor:
        z = self.no_text.expand(len(image), -1)
        if has_text.any():
            z = torch.where(has_text[:, None], self.text(text), z)
        return self.head(torch.cat([z, self.image(image)], dim=1))


def make(**settings: Any) -> tuple[Captioned, torch.optim.Optimizer, eq.Balancer]:
    torch.manual_seed(0)
    model = Captioned().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"text": model.text, "image": model.image}
    return model, optimizer, eq.Balancer(
        eq.OGM(0.8), model, encoders, model.head, optimizer, **settings
    )  # fmt: skip


def batch(share: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(12) % 3
    text = torch.randn(12, 5, generator=generator) + target[:, None]
    image = torch.randn(12, 4, generator=generator)
    return text.double(), image.double(), torch.rand(12, generator=generator) < share, target


def alone(model: Captioned, x: Tensor, name: str) -> Tensor:
    columns = slice(0, 6) if name == "text" else slice(6, 13)
    encoder = getattr(model, name)
    return encoder(x) @ model.head.weight[:, columns].T + model.head.bias / 2


def test_evidence_is_of_the_samples_that_have_the_modality() -> None:
    """Means per sample are compared, since the modalities are there in different numbers."""
    model, optimizer, balancer = make()
    for seed, share in enumerate((0.5, 0.0, 1.0, 0.3)):  # none has a caption in the second batch
        text, image, has_text, target = batch(share, seed)
        scores = {"image": probabilities(alone(model, image, "image"), target) / 12}
        expected = {"image": 1.0, "text": 1.0}
        if has_text.any():
            rows = alone(model, text[has_text], "text")
            scores["text"] = probabilities(rows, target[has_text]) / int(has_text.sum())
            ratios = dict(zip(scores, slow.ratios(list(scores.values())), strict=True))
            expected = {name: slow.thresholded(ratio, 0.8) for name, ratio in ratios.items()}
        loss = balancer.loss(model(text, image, has_text), target, present={"text": has_text})
        balancer.backward(loss)
        balancer.modulate()
        metrics = balancer.metrics()
        for name, value in expected.items():
            assert metrics[f"coefficient/{name}"] == pytest.approx(value, rel=1e-9)
        for name, value in scores.items():
            assert metrics[f"evidence/{name}"] == pytest.approx(value, rel=1e-9)
        optimizer.step()
        optimizer.zero_grad()


def test_micro_batches_of_which_one_has_no_caption_are_judged_together() -> None:
    model, _, balancer = make()
    parts = [batch(0.6, 0), batch(0.0, 1)]
    total, count, images = 0.0, 0, 0.0
    for text, image, has_text, target in parts:
        if has_text.any():
            total += probabilities(alone(model, text[has_text], "text"), target[has_text])
            count += int(has_text.sum())
        images += probabilities(alone(model, image, "image"), target)
        logits = model(text, image, has_text)
        balancer.backward(balancer.loss(logits, target, present={"text": has_text}) / 2)
    balancer.modulate()
    assert balancer.metrics()["evidence/text"] == pytest.approx(total / count, rel=1e-9)
    assert balancer.metrics()["ratio/text"] == pytest.approx(24 * total / count / images, rel=1e-9)


def test_a_first_batch_without_the_modality_asks_for_features() -> None:
    text, image, nobody, target = batch(0.0, 0)
    model, _, balancer = make()
    with pytest.raises(eq.MatchError, match=r"text did not run.*give features="):
        balancer.loss(model(text, image, nobody), target, present={"text": nobody})
    balancer.detach()
    model, _, balancer = make(features={"text": slice(0, 6), "image": slice(6, 13)})
    balancer.backward(balancer.loss(model(text, image, nobody), target, present={"text": nobody}))
    balancer.modulate()
    assert balancer.metrics()["coefficient/image"] == 1


class Frozen(nn.Module):
    """Runs a frozen encoder under no_grad in training, as one does."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.image, self.head = nn.Linear(5, 6), nn.Linear(4, 7), nn.Linear(13, 3)
        self.text.requires_grad_(False)

    def forward(self, text: Tensor | None, image: Tensor) -> Tensor:
        z = torch.zeros(len(image), 6)
        if text is not None:
            with torch.no_grad():
                z = self.text(text)
        return self.head(torch.cat([z, self.image(image)], dim=1))


def test_a_frozen_encoder_is_said_unless_it_is_left_out_and_is_scored_under_no_grad() -> None:
    torch.manual_seed(0)
    model = Frozen()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"text": model.text, "image": model.image}
    with pytest.warns(eq.BalanceWarning, match=r"\['text'\] has no trainable.*modalities=\.\.\."):
        eq.Balancer(eq.OGM(0.8), model, encoders, model.head, optimizer).detach()
    method = eq.OGM(0.8, modalities=["image"])
    balancer = eq.Balancer(method, model, encoders, model.head, optimizer)
    text, image, _, target = batch(1.0, 0)
    text, image = text.float(), image.float()
    balancer.backward(balancer.loss(model(text, image), target))
    balancer.modulate()
    weight, bias = model.head.weight[:, :6], model.head.bias
    expected = probabilities(model.text(text) @ weight.T + bias / 2, target) / 12
    assert balancer.metrics()["evidence/text"] == pytest.approx(expected, rel=1e-5)


def test_a_frozen_encoder_that_ran_in_evaluation_alone_did_not_run_in_training() -> None:
    torch.manual_seed(0)
    model = Frozen()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(
        eq.OGM(0.8, modalities=["image"]),
        model,
        {"text": model.text, "image": model.image},
        model.head,
        optimizer,
        features={"text": slice(0, 6), "image": slice(6, 13)},
    )
    text, image, _, target = batch(1.0, 0)
    text, image = text.float(), image.float()
    with torch.no_grad():
        model(text, image)
    with pytest.raises(eq.MatchError, match="encoder of text did not run"):
        balancer.loss(model(None, image), target)
