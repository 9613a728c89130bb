"""Dense prediction: the ink of a digit, pixel by pixel, from half of its image and its moments.

    python examples/tasks/dense.py [--quick]

The target is the scan itself, every pixel ink or paper. The model sees the upper half of the image
under noise, and the 47 Zernike moments that were measured on the whole scan. The hiding and the
noise are ours; image, moments and target are the data's. The head is a decoder of feature maps, so
that evidence comes from ablation. See docs/tasks/dense.md. Data: mfeat, which comes with the
package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean, stdev

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import data, nn

PRINTED = ("evidence", "ratio", "coefficient")
HEIGHT, WIDTH = 16, 15


class ImageMaps(torch.nn.Module):
    """An image (B, 1, 16, 15) to feature maps (B, 16, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 16, 3, padding=1),
            torch.nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the feature maps."""
        maps: Tensor = self.layers(image)
        return maps


class MomentMaps(torch.nn.Module):
    """A vector (B, 47) to feature maps (B, 16, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.MLP(47, (64,), 16 * 8 * 8)

    def forward(self, moments: Tensor) -> Tensor:
        """Return the feature maps."""
        maps: Tensor = self.layers(moments)
        return maps.relu().view(-1, 16, 8, 8)


class Decoder(torch.nn.Module):
    """Feature maps of both, one above the other, to logits (B, 2, 16, 15)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(32, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Upsample(size=(HEIGHT, WIDTH), mode="nearest"),
            torch.nn.Conv2d(16, 2, 3, padding=1),
        )

    def forward(self, image: Tensor, moments: Tensor) -> Tensor:
        """Return the logits of paper and ink."""
        logits: Tensor = self.layers(torch.cat([image, moments], dim=1))
        return logits


def ink(splits: data.Splits, arrays: data.Arrays) -> Tensor:
    """Return which pixels are ink, int64 (N, 16, 15): darker than 3 on the scan's scale of 0 to 6.

    The package standardises every pixel; its darkness is the number of steps above its lightest.
    """
    known = splits.train.features["pix"]
    lightest = known.min(0).values
    above = torch.where(known - lightest > 1e-4, known - lightest, torch.inf)
    darkness = ((arrays.features["pix"] - lightest) / above.min(0).values).round()
    return (darkness > 3).long().view(-1, HEIGHT, WIDTH)


def views(splits: data.Splits, arrays: data.Arrays, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the upper half of the image under noise, the moments, and the target."""
    target = ink(splits, arrays)
    generator = torch.Generator().manual_seed(seed)
    image = target[:, None] + 0.5 * torch.randn(len(target), 1, HEIGHT, WIDTH, generator=generator)
    image[:, :, HEIGHT // 2 :] = 0
    return image, arrays.features["zer"], target


def overlap(logits: Tensor, target: Tensor) -> float:
    """Return the intersection over union of the ink, over all images, in percent."""
    found, true = logits.argmax(1) == 1, target == 1
    return 100 * ((found & true).sum() / (found | true).sum()).item()


def train(
    method: eq.Method, known: tuple[Tensor, ...], test: tuple[Tensor, ...], epochs: int, seed: int
) -> tuple[float, dict[str, float]]:
    """Return the overlap on the test split, and what the balancer saw in the last epoch."""
    torch.manual_seed(seed)
    encoders = {"image": ImageMaps(), "moments": MomentMaps()}
    model = nn.Multimodal(encoders, Decoder())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    balancer = eq.Balancer(
        method,
        model,
        encoders,
        model.head,
        optimizer,
        criterion=torch.nn.CrossEntropyLoss(),
        scores=eq.Ablation(),
        seed=seed,
        track_every=1,
    )
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*known), 64, shuffle=True, generator=order)
    for _ in range(epochs):
        seen = []
        for image, moments, target in loader:
            loss = balancer.loss(model(image, moments), target)
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(balancer.metrics())
        balancer.end_epoch()
    model.eval()
    *inputs, target = test
    with torch.no_grad():
        score = overlap(model(*inputs), target)
    return score, {key: mean(step[key] for step in seen) for key in seen[0]}


def main() -> None:
    """Train plainly and with OGM-GE over several seeds, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 seeds of 1 epoch")
    epochs = 1 if parser.parse_args().quick else 10
    torch.set_num_threads(1)
    splits = data.load("mfeat", modalities=("pix", "zer"))
    print(splits)
    known, test = views(splits, splits.train, seed=0), views(splits, splits.test, seed=1)
    methods: dict[str, Callable[[], eq.Method]] = {
        "plain": eq.Joint,
        "OGM-GE": lambda: eq.OGMGE(alpha=0.3),
    }
    for name, method in methods.items():
        runs = [train(method(), known, test, epochs, seed) for seed in range(3)]
        scores = [score for score, _ in runs]
        print(f"{name:7} test overlap {mean(scores):.2f} +- {stdev(scores):.2f} %", end="")
        print(", by seed:", *(f"{score:.2f}" for score in scores))
        for view in ("image", "moments"):
            of = {key: mean(seen.get(f"{key}/{view}", 1.0) for _, seen in runs) for key in PRINTED}
            print(f"    {view:8}", "  ".join(f"{key} {x:.3f}" for key, x in of.items()))


if __name__ == "__main__":
    main()
