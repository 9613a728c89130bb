"""A denoiser of audio and video with joint attention, of which LoRA adapters are trained.

Losses differ tenfold, and every fourth batch has no sound.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

WIDTH, SOUNDS, FRAMES = 24, 6, 10


class Block(nn.Module):
    """Attention of all tokens of both modalities to each other, and a network on each."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 24)
        self.v, self.out = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens like those given, (B, T, WIDTH)."""
        h = self.norm(x)
        mixed = F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))
        return x + self.out(F.gelu(mixed))  # type: ignore[no-any-return]


class Denoiser(nn.Module):
    """Audio tokens, then video tokens, through one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_in, self.audio_out = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 5)
        self.video_in, self.video_out = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 8)
        self.time = nn.Linear(1, WIDTH)
        self.trunk = nn.Sequential(Block(), Block(), Block())

    def forward(self, audio: Tensor | None, video: Tensor, time: Tensor) -> list[Tensor]:
        """Return the noise that was added, of video, and of audio where there is some."""
        tokens = [] if audio is None else [self.audio_in(audio)]
        tokens.append(self.video_in(video))
        mixed = self.trunk(torch.cat(tokens, dim=1) + self.time(time)[:, None])
        found = [self.video_out(mixed[:, -FRAMES:])]
        return found if audio is None else [*found, self.audio_out(mixed[:, :-FRAMES])]


def batches(steps: int, size: int = 16) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Yield latents of audio and video; every fourth batch is silent."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        what = torch.randn(size, 1, 1, generator=generator)
        audio = 3 * what + torch.randn(size, SOUNDS, 5, generator=generator)
        video = what + 0.3 * torch.randn(size, FRAMES, 8, generator=generator)
        yield None if step % 4 == 3 else audio, video


def noised(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return latents with noise, and the noise."""
    noise = torch.randn_like(x) * x.std()
    return (1 - time[:, None]) * x + time[:, None] * noise, noise


def main() -> None:
    """Train the adapters and what leads in and out, and print the losses."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Denoiser()
    model.trunk.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q", "k", "v", "out"]), model.trunk)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3, weight_decay=0.01)
    for step, (audio, video) in enumerate(batches(steps=48)):
        time = torch.rand(len(video), 1)
        noisy, noise = noised(video, time)
        sound, hiss = (None, None) if audio is None else noised(audio, time)
        found = model(sound, noisy, time)
        losses = {"video": (found[0] - noise).square().flatten(1).mean(1)}
        if hiss is not None:
            losses["audio"] = (found[1] - hiss).square().flatten(1).mean(1)
        loss = torch.stack([each.mean() for each in losses.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if step % 16 == 14:
            said = "  ".join(f"{name} {each.mean().item():.3f}" for name, each in losses.items())
            print(f"step {step + 1:3}  {said}")


if __name__ == "__main__":
    main()
