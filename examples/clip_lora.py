"""CLIP with LoRA adapters: the adapters of each encoder are what is balanced.

    python examples/clip_lora.py [--pretrained NAME] [--steps N]

The base is frozen, so each modality's trainable parameters are its adapters. AdamW cancels factors
on gradients, so updates are scaled. Without --pretrained the model is tiny and random, and what
comes of it means nothing. The pairs are made up, random tokens and pixels that belong together by
concept: put your own loader in their place.

How well does one encoder of a pair do alone? The similarities belong to both, so the losses from
image to text and from text to image do not say: when one encoder returns the same for all samples,
both directions fall to chance alike. What an encoder has alone is how far it tells the samples of a
batch apart, `spread` here: similarities of the modality with itself, judged by the same loss. It
does not say that they are told apart by anything the other modality knows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

import equimodal as eq

SAMPLES, CONCEPTS = 16, 64
SCALE = 1 / 0.07  # CLIP's first; the learned one, near 100, would make every modality look perfect
Batch = dict[str, Tensor]


def contrastive(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Return CLIP's loss of similarities (B, B), in both directions.

    With a `reduction` the library can ask for the loss of every sample.
    """
    forth = F.cross_entropy(logits, target, reduction=reduction)
    return (forth + F.cross_entropy(logits.t(), target, reduction=reduction)) / 2


def spread(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the similarities of every modality with itself, (B, B)."""
    unit = {name: F.normalize(z, dim=-1) for name, z in embeddings.items()}
    return {name: z @ z.t() * SCALE for name, z in unit.items()}


def clip(pretrained: str | None) -> Any:
    """Return a pretrained CLIP, or a tiny one with random weights."""
    if pretrained is not None:
        return CLIPModel.from_pretrained(pretrained)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    layers |= {"num_attention_heads": 2}
    text = {"vocab_size": 100, "max_position_embeddings": 16}
    text |= {"bos_token_id": 97, "eos_token_id": 99, "pad_token_id": 98}
    vision = {"image_size": 32, "patch_size": 8}
    return CLIPModel(
        CLIPConfig(text_config=layers | text, vision_config=layers | vision, projection_dim=16)
    )


def pairs(config: Any, steps: int) -> Iterator[Batch]:
    """Yield batches of texts and images that belong together by concept."""
    text, vision = config.text_config, config.vision_config
    generator = torch.Generator().manual_seed(0)
    size = vision.image_size
    words = torch.randint(text.vocab_size // 2, (CONCEPTS, 6), generator=generator)
    pictures = torch.randn(CONCEPTS, 3, size, size, generator=generator)
    for _ in range(steps):
        concept = torch.randperm(CONCEPTS, generator=generator)[:SAMPLES]
        ends = torch.full((SAMPLES, 1), text.eos_token_id)
        noise = torch.randn(SAMPLES, 3, size, size, generator=generator)
        tokens = torch.cat([words[concept], ends], dim=1)
        yield {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "pixel_values": pictures[concept] + 0.5 * noise,
        }


def main() -> None:
    """Train the adapters, say what was balanced, save and merge them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pretrained", help="name or folder of a CLIP, in place of a random one")
    parser.add_argument("--steps", type=int, default=60)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = clip(settings.pretrained)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    balancer = eq.Balancer(
        eq.OGMGE(alpha=0.3, coefficient=eq.Continuous(), space="update"),
        model,
        encoders={
            "image": [base.vision_model, base.visual_projection],
            "text": [base.text_model, base.text_projection],
        },
        head=None,
        optimizer=optimizer,
        criterion=contrastive,
        scores=spread,
        forward=lambda model, batch: (model(**batch).logits_per_image, torch.arange(SAMPLES)),
    )
    batches = list(pairs(base.config, settings.steps))
    balancer.check(batches[0])
    for step, batch in enumerate(batches):
        loss = balancer.loss(model(**batch).logits_per_image, torch.arange(SAMPLES))
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == len(batches) - 1:
            kinds = ("loss/joint", "evidence/image", "evidence/text", "coefficient/image")
            values = {kind: balancer.metrics()[kind] for kind in (*kinds, "coefficient/text")}
            print(f"step {step:3}", "  ".join(f"{kind} {x:.3f}" for kind, x in values.items()))
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    adapters = [name for name in before if "lora_" in name]
    others = len([name for name in changed if name not in adapters])
    print(f"changed: {len(changed)} of {len(adapters)} adapter tensors, {others} others")

    balancer.detach()
    model.eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        expected = model(**batches[0]).logits_per_image
        model.save_pretrained(folder)
        torch.manual_seed(0)
        loaded = PeftModel.from_pretrained(clip(settings.pretrained), folder).eval()
        torch.testing.assert_close(loaded(**batches[0]).logits_per_image, expected)
        merged = model.merge_and_unload()
        found = merged(**batches[0]).logits_per_image
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    print("adapters saved, loaded and merged: same similarities")


if __name__ == "__main__":
    main()
