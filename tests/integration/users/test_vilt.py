"""ViLT of transformers: early fusion. Encoders are the embeddings; all else fuses, so no head."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViltConfig, ViltForQuestionAnswering

import equimodal as eq
from support.users import (
    assert_equals_the_loop_by_hand,
    assert_evidence_moves,
    assert_no_trace,
    changed_lines,
    probabilities,
)

Batch = tuple[Mapping[str, Tensor], Tensor]
ENCODERS = {
    "text": ["vilt.embeddings.text_embeddings"],
    "image": ["vilt.embeddings.patch_embeddings"],
}


def plain(
    model: ViltForQuestionAnswering, optimizer: torch.optim.Optimizer, batches: Sequence[Batch]
) -> None:
    for inputs, answer in batches:
        loss = F.cross_entropy(model(**inputs).logits, answer)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def balanced(
    model: ViltForQuestionAnswering,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    scores: Any = None,
) -> Iterator[eq.Balancer]:
    balancer = eq.Balancer(
        eq.OGM(alpha=0.8),
        model,
        encoders=ENCODERS,
        head=None,
        optimizer=optimizer,
        scores=scores or eq.Ablation(),
        forward=lambda model, batch: (model(**batch[0]).logits, batch[1]),
    )
    for inputs, answer in batches:
        loss = balancer.loss(model(**inputs).logits, answer)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        yield balancer


def without(model: Any, name: str) -> Any:
    """A copy of the model whose embedding of one modality is zero, whatever it is given."""
    copied = copy.deepcopy(model)
    embeddings = copied.vilt.embeddings
    last = {
        "text": embeddings.text_embeddings.LayerNorm,
        "image": embeddings.patch_embeddings.projection,
    }[name]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    return copied.eval()


def by_hand(model: Any, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    inputs, answer = batch
    loss = F.cross_entropy(model(**inputs).logits, answer)
    return loss, {
        "text": probabilities(without(model, "image")(**inputs).logits, answer),
        "image": probabilities(without(model, "text")(**inputs).logits, answer),
    }


def make() -> tuple[ViltForQuestionAnswering, list[Batch]]:
    torch.manual_seed(0)
    config = ViltConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        max_position_embeddings=12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=4,
    )
    model = ViltForQuestionAnswering(config).double()
    for parameter in model.parameters():  # transformers' standard deviation of 0.02 is next to zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    batches: list[Batch] = []
    for _ in range(6):
        answer = torch.randint(4, (12,))
        inputs = {
            "input_ids": 10 * answer[:, None] + torch.randint(2, 10, (12, 7)),
            "attention_mask": torch.ones(12, 7, dtype=torch.long),
            "pixel_values": torch.randn(12, 3, 16, 16).double(),
        }
        batches.append((inputs, answer))
    return model, batches


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def test_at_most_five_lines_change() -> None:
    assert changed_lines(plain, balanced) <= 5


def test_equals_the_loop_by_hand_and_evidence_moves() -> None:
    model, batches = make()
    metrics = assert_equals_the_loop_by_hand(model, sgd, batches, balanced, by_hand, ENCODERS)
    assert_evidence_moves(metrics, ["text", "image"])


def test_probes_on_the_embeddings_see_the_words() -> None:
    """The words hold the answer, the pixels are noise: as the probes learn, they tell."""
    model, batches = make()
    loop = balanced(model, sgd(model), batches * 8, scores=eq.Probe())
    metrics = [balancer.metrics() for balancer in loop]
    assert_evidence_moves(metrics, ["text", "image"])
    assert metrics[-1]["evidence/text"] > 1.5 * metrics[-1]["evidence/image"]


def test_what_both_modalities_use_is_not_modulated() -> None:
    model, batches = make()
    balancer = next(iter(balanced(model, sgd(model), batches)))
    modulated = balancer.modulation.members()
    assert "vilt.embeddings.text_embeddings.word_embeddings.weight" in modulated
    assert "vilt.embeddings.patch_embeddings.projection.weight" in modulated
    assert "vilt.embeddings.token_type_embeddings.weight" not in modulated
    assert not any("encoder" in name or "classifier" in name for name in modulated)


def test_check_and_no_trace(tmp_path: Path) -> None:
    model, batches = make()
    keys = list(model.state_dict())
    balancer = next(iter(balanced(model, sgd(model), batches)))
    found = str(balancer.check(batches[0]))
    for part in ["text   TextEmbeddings", "feature (12, 7, 16)", "image  ViltPatchEmbeddings"]:
        assert part in found, found
    assert "feature (12, 16, 2, 2)" in found
    assert "head    none, features as the encoders returned them" in found
    assert_no_trace(model, balancer, keys)
    model.save_pretrained(tmp_path)
    loaded = ViltForQuestionAnswering.from_pretrained(tmp_path, dtype=torch.float64).eval()
    with torch.no_grad():
        expected = model.eval()(**batches[0][0]).logits
        torch.testing.assert_close(loaded(**batches[0][0]).logits, expected)
