"""Captions that some samples do not have: evidence comes from the samples that have them.

    python examples/missing_modality.py [--pretrained NAME] [--steps N]

`loss(..., present={"text": mask})` says which samples have a caption. The model puts a learned
vector in the place of the feature of a missing one, and does not run the text encoder where no
sample of the batch has a caption; the mask is all False then, the coefficients of that step are 1.

Without --pretrained the text encoder is tiny and random. The data are made up.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel

import equimodal as eq
from equimodal.nn import CNN2d

CLASSES, SAMPLES = 4, 32


class TextAndImage(nn.Module):
    """A classifier of images and captions that may be missing."""

    def __init__(self, pretrained: str | None) -> None:
        super().__init__()
        small: dict[str, Any] = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64}
        small |= {"num_hidden_layers": 2, "num_attention_heads": 2}
        self.text: Any = (
            BertModel(BertConfig(**small), add_pooling_layer=False)
            if pretrained is None
            else AutoModel.from_pretrained(pretrained)
        )
        self.image = CNN2d(in_channels=3, features=32)
        width = self.text.config.hidden_size
        self.no_text = nn.Parameter(torch.zeros(width))
        self.head = nn.Sequential(nn.Linear(width + 32, 32), nn.ReLU(), nn.Linear(32, CLASSES))

    def forward(self, tokens: Tensor, image: Tensor, has_text: Tensor) -> Tensor:
        """Return logits (B, classes); rows of tokens count where `has_text` (B,) is True."""
        text = self.no_text.expand(len(image), -1)
        if has_text.any():
            hidden = self.text(input_ids=tokens).last_hidden_state
            text = torch.where(has_text[:, None], hidden.mean(dim=1), text)
        logits: Tensor = self.head(torch.cat([text, self.image(image)], dim=1))
        return logits


def batch(share: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tokens, images, which samples have a caption, and classes."""
    target = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    tokens = torch.randint(50, 90, (SAMPLES, 8), generator=generator)
    tokens[:, :4] = 10 + target[:, None]
    image = torch.randn(SAMPLES, 3, 16, 16, generator=generator) + target.view(-1, 1, 1, 1) / 4
    return tokens, image, torch.rand(SAMPLES, generator=generator) < share, target


def main() -> None:
    """Train on batches of which the text is there for most, some or no samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pretrained", help="name or folder of a text encoder")
    parser.add_argument("--steps", type=int, default=60)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = TextAndImage(settings.pretrained)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    balancer = eq.Balancer(
        eq.OGMGE(alpha=0.3, space="update"),
        model,
        encoders={"text": model.text, "image": model.image},
        head=model.head,
        optimizer=optimizer,
        # The head's one input is [text, image]. Said here, because a first batch without any
        # caption would not show which part of it is the text.
        features={"text": slice(0, -32), "image": slice(-32, None)},
        scores=eq.Ablation("mean"),  # zeros are no feature that this head ever sees
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(settings.steps):
        tokens, image, has_text, target = batch((0.0, 0.8, 0.4)[step % 3], generator)
        logits = model(tokens, image, has_text)
        loss = balancer.loss(logits, target, present={"text": has_text})
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        if step < 3 or step >= settings.steps - 3:
            kinds = ("evidence/text", "evidence/image", "coefficient/text", "coefficient/image")
            values = {kind: balancer.metrics()[kind] for kind in kinds}
            print(
                f"step {step:3}, {int(has_text.sum()):2} captions ",
                "  ".join(f"{kind} {x:.3f}" for kind, x in values.items()),
            )


if __name__ == "__main__":
    main()
