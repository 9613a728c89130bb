"""CLIP of transformers: two encoders, no head, a loss between the samples of a batch."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

import equimodal as eq
from equimodal.attach.call import Call
from support.users import (
    Read,
    assert_equals_the_loop_by_hand,
    assert_evidence_moves,
    assert_no_trace,
    changed_lines,
    probabilities,
)

SCALE = 1 / 0.07
Batch = Mapping[str, Tensor]


def contrastive(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    forth = F.cross_entropy(logits, target, reduction=reduction)
    return (forth + F.cross_entropy(logits.t(), target, reduction=reduction)) / 2


def spread(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How well each modality tells the samples of the batch apart: similarities with itself."""
    unit = {name: F.normalize(z, dim=-1) for name, z in embeddings.items()}
    return {name: z @ z.t() * SCALE for name, z in unit.items()}


def plain(model: CLIPModel, optimizer: torch.optim.Optimizer, batches: Sequence[Batch]) -> None:
    for batch in batches:
        target = torch.arange(len(batch["input_ids"]))
        loss = contrastive(model(**batch).logits_per_image, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def balanced(
    model: CLIPModel,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    space: Any = "gradient",
) -> Iterator[eq.Balancer]:
    balancer = eq.Balancer(
        eq.OGM(alpha=0.8, space=space),
        model,
        encoders={
            "image": [model.vision_model, model.visual_projection],
            "text": [model.text_model, model.text_projection],
        },
        head=None,
        optimizer=optimizer,
        criterion=contrastive,
        scores=spread,
        forward=lambda model, batch: (model(**batch).logits_per_image, torch.arange(8)),
    )
    for batch in batches:
        target = torch.arange(len(batch["input_ids"]))
        loss = balancer.loss(model(**batch).logits_per_image, target)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        yield balancer


ENCODERS = {
    "image": ["vision_model", "visual_projection"],
    "text": ["text_model", "text_projection"],
}


def by_hand(model: Any, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    found = model(**batch)
    target = torch.arange(len(batch["input_ids"]))
    similarity = found.logits_per_text
    loss = (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.t(), target)) / 2
    scores = {}
    for name, z in (("image", found.image_embeds), ("text", found.text_embeds)):
        scores[name] = probabilities(SCALE * z @ z.t(), target)
    return loss, scores


def make() -> tuple[CLIPModel, list[Batch]]:
    torch.manual_seed(0)
    layers = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={**layers, "vocab_size": 50, "max_position_embeddings": 12, "eos_token_id": 49},
        vision_config={**layers, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    batches: list[Batch] = [
        {
            "input_ids": torch.randint(2, 50, (8, 7)),
            "attention_mask": torch.ones(8, 7, dtype=torch.long),
            "pixel_values": torch.randn(8, 3, 16, 16).double(),
        }
        for _ in range(6)
    ]
    return CLIPModel(config).double(), batches


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def test_at_most_five_lines_change() -> None:
    assert changed_lines(plain, balanced) <= 5


@pytest.mark.parametrize(("make_optimizer", "space"), [(sgd, "gradient"), (adam, "update")])
def test_equals_the_loop_by_hand_and_evidence_moves(
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], space: str
) -> None:
    model, batches = make()
    loop = functools.partial(balanced, space=space)
    read: Read = by_hand
    metrics = assert_equals_the_loop_by_hand(
        model, make_optimizer, batches, loop, read, ENCODERS, update=space == "update"
    )
    assert_evidence_moves(metrics, ["image", "text"])


def test_check_and_no_trace(tmp_path: Path) -> None:
    model, batches = make()
    keys = list(model.state_dict())
    balancer = next(iter(balanced(model, sgd(model), batches)))
    found = str(balancer.check(batches[0]))
    for part in ["image  CLIPVisionModel, Linear", "text   CLIPTextModel, Linear", "head    none"]:
        assert part in found, found
    assert "feature (8, 8)" in found
    assert "logits  (8, 8)" in found
    assert_no_trace(model, balancer, keys)
    model.save_pretrained(tmp_path)
    loaded = CLIPModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert "equimodal" not in (tmp_path / "config.json").read_text()
    with torch.no_grad():
        expected = model.eval()(**batches[0]).logits_per_image
        torch.testing.assert_close(loaded(**batches[0]).logits_per_image, expected)


def test_logits_are_found_among_all_that_the_model_returns_once_it_has_trained() -> None:
    model, batches = make()
    balancer = next(iter(balanced(model, sgd(model), batches)))
    model.eval()
    with torch.no_grad():
        logits, unimodal = balancer.evaluate(**batches[1])
        found = model(**batches[1])
    torch.testing.assert_close(logits, found.logits_per_image)
    torch.testing.assert_close(unimodal["text"], SCALE * found.text_embeds @ found.text_embeds.t())


def test_steps_leave_no_memory_behind() -> None:
    """The output holds hidden states of the encoders: a record there would hold its own graph."""
    model, batches = make()
    for _ in balanced(model, sgd(model), batches):
        pass
    gc.collect()
    assert sum(type(each) is Call for each in gc.get_objects()) == 0


def test_with_gradient_checkpointing() -> None:
    def metrics(checkpointing: bool) -> list[dict[str, float]]:
        model, batches = make()
        if checkpointing:
            newer = getattr(model, "activation_checkpointing_enable", None)
            (newer or model.gradient_checkpointing_enable)()
        model.train()
        return [balancer.metrics() for balancer in balanced(model, sgd(model), batches)]

    for with_it, without in zip(metrics(True), metrics(False), strict=True):
        assert with_it == pytest.approx(without, rel=1e-9)


def collapsed(embeddings: Tensor) -> Tensor:
    return embeddings[:1].expand_as(embeddings) + 1e-4 * embeddings


def test_the_directions_cannot_say_which_encoder_collapsed_but_the_spread_can() -> None:
    """Why the scores are not the losses from image to text and from text to image."""
    torch.manual_seed(0)
    image, text = torch.randn(2, 8, 16)
    target = torch.arange(8)
    for name, (z_image, z_text) in {
        "image": (collapsed(image), text),
        "text": (image, collapsed(text)),
    }.items():
        similarity = SCALE * F.normalize(z_image, dim=1) @ F.normalize(z_text, dim=1).t()
        forth, back = probabilities(similarity, target), probabilities(similarity.t(), target)
        assert forth == pytest.approx(1, rel=0.01), "chance: 8 samples of probability 1/8"
        assert back == pytest.approx(1, rel=0.01)
        alone = {
            n: probabilities(u, target)
            for n, u in spread({"image": z_image, "text": z_text}).items()
        }
        other = "text" if name == "image" else "image"
        assert alone[name] == pytest.approx(1, rel=0.01)
        assert alone[other] > 7.9
