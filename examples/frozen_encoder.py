"""A frozen text encoder beside an image encoder that is trained.

    python examples/frozen_encoder.py [--pretrained NAME] [--steps N]

There is nothing to modulate in a frozen encoder, and a balancer warns of it: unfreeze it later, or
leave it out with `modalities=`. Its evidence is taken all the same, and tells the trained
encoder whether it is ahead. Balancing rarely helps here: slowing the only encoder that learns does
not make the frozen one learn. Look at the evidence, and compare with training plainly.

Without --pretrained the text encoder is tiny and random. The data are made up: the tokens name the
class for half of the samples, the pixels for all.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel

import equimodal as eq
from equimodal.nn import CNN2d

CLASSES, SAMPLES = 4, 32


class TextAndImage(nn.Module):
    """A linear head on the mean of the frozen hidden states and on an image feature."""

    def __init__(self, pretrained: str | None) -> None:
        super().__init__()
        small: dict[str, Any] = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64}
        small |= {"num_hidden_layers": 2, "num_attention_heads": 2}
        self.text: Any = (
            BertModel(BertConfig(**small, initializer_range=0.2))
            if pretrained is None
            else AutoModel.from_pretrained(pretrained)
        )
        self.text.requires_grad_(False)
        self.image = CNN2d(in_channels=3, features=32)
        self.head = nn.Linear(self.text.config.hidden_size + 32, CLASSES)

    def train(self, mode: bool = True) -> TextAndImage:
        """Set the mode, but leave the frozen encoder in evaluation mode."""
        super().train(mode)
        self.text.eval()
        return self

    def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        with torch.no_grad():
            hidden = self.text(input_ids=tokens).last_hidden_state
        logits: Tensor = self.head(torch.cat([hidden.mean(dim=1), self.image(image)], dim=1))
        return logits


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, images and classes."""
    target = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    tokens = torch.randint(50, 90, (SAMPLES, 8), generator=generator)
    named = torch.rand(SAMPLES, generator=generator) < 0.5
    tokens[named, :4] = 10 + target[named, None]
    image = torch.randn(SAMPLES, 3, 16, 16, generator=generator)
    return tokens, image + target.view(-1, 1, 1, 1) / 2, target


def main() -> None:
    """Show the warning, then train with the frozen encoder left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pretrained", help="name or folder of a text encoder")
    parser.add_argument("--steps", type=int, default=60)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = TextAndImage(settings.pretrained).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    encoders = {"text": model.text, "image": model.image}
    with warnings.catch_warnings(record=True) as said:
        eq.Balancer(eq.OGM(alpha=0.3), model, encoders, model.head, optimizer).detach()
    print(f"said: {said[0].message}")

    balancer = eq.Balancer(
        eq.OGM(alpha=0.3, modalities=["image"]), model, encoders, model.head, optimizer
    )
    generator = torch.Generator().manual_seed(0)
    balancer.check(batch(generator))
    for step in range(settings.steps):
        tokens, image, target = batch(generator)
        loss = balancer.loss(model(tokens, image), target)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == settings.steps - 1:
            kinds = ("loss/joint", "evidence/text", "evidence/image", "coefficient/image")
            values = {kind: balancer.metrics()[kind] for kind in kinds}
            print(f"step {step:3}", "  ".join(f"{kind} {x:.3f}" for kind, x in values.items()))


if __name__ == "__main__":
    main()
