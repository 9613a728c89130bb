"""A robot policy with two cameras and a state, trained as LeRobot trains: chunks of actions, L1."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK, JOINTS, SAMPLES = 4, 3, 256
FRONT, WRIST, STATE = "observation.images.front", "observation.images.wrist", "observation.state"
Batch = dict[str, Tensor]


class Network(nn.Module):
    """An encoder per camera and one for the state; attention over the three, then actions."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.wrist, self.state = camera(), camera(), nn.Linear(JOINTS, 16)
        self.decoder = nn.Sequential(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(48, CHUNK * JOINTS),
            nn.Unflatten(1, (CHUNK, JOINTS)),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return actions, shape (B, CHUNK, JOINTS)."""
        features = [self.front(batch[FRONT]), self.wrist(batch[WRIST]), self.state(batch[STATE])]
        return self.decoder(torch.stack(features, dim=1))  # type: ignore[no-any-return]


class Policy(nn.Module):
    """Returns its loss, as policies of LeRobot do."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Network()

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and what to log."""
        loss = chunk_loss(self.model(batch), (batch["action"], batch["action_is_pad"]))
        return loss, {"l1_loss": loss.item()}


def camera() -> nn.Module:
    """Return an encoder of images (B, 3, 16, 16)."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16),
    )  # fmt: skip


def chunk_loss(actions: Tensor, target: tuple[Tensor, Tensor], reduction: str = "mean") -> Tensor:
    """Return the error of the actions that are not padded: their mean, or each."""
    wanted, padded = target
    errors = F.l1_loss(actions, wanted, reduction="none") * ~padded[..., None]
    return errors.sum() / (~padded).sum() / JOINTS if reduction == "mean" else errors


def counted(target: tuple[Tensor, Tensor]) -> Tensor:
    """Return which errors count."""
    return ~target[1][..., None].expand_as(target[0])


chunk_loss.counted = counted  # type: ignore[attr-defined]


def batches(epochs: int, size: int = 32) -> Iterator[Batch]:
    """Yield batches; the wrist camera says where to go, the state nearly so, the front little."""
    generator = torch.Generator().manual_seed(0)
    goal = torch.randn(SAMPLES, JOINTS, generator=generator)
    wrist = goal[:, :, None, None] + 0.3 * torch.randn(SAMPLES, 3, 16, 16, generator=generator)
    front = 0.2 * goal[:, :, None, None] + torch.randn(SAMPLES, 3, 16, 16, generator=generator)
    state = goal + 0.5 * torch.randn(SAMPLES, JOINTS, generator=generator)
    steps = torch.linspace(0.25, 1, CHUNK)[None, :, None]
    pad = torch.rand(SAMPLES, 1, generator=generator) > 0.7
    pad = pad & (torch.arange(CHUNK) == CHUNK - 1)
    everything = {FRONT: front, WRIST: wrist, STATE: state, "action": goal[:, None] * steps}
    everything["action_is_pad"] = pad
    for _ in range(epochs):
        for rows in torch.randperm(SAMPLES, generator=generator).view(-1, size):
            yield {name: values[rows] for name, values in everything.items()}


def main() -> None:
    """Train, and print the loss."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = Policy()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for step, batch in enumerate(batches(epochs=8)):
        loss, _ = policy.forward(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 16 == 15:
            print(f"step {step + 1:3}  loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
