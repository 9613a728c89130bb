"""Token losses in the ways people write them: evidence and weights against a loop by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import equimodal as eq
from equimodal.criterion import Criterion
from equimodal.testing import spawn
from support import slow

IGNORE, VOCABULARY, LENGTH, SIZE = -100, 11, 7, 6
CLASS_WEIGHT = torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(9)).double() + 0.5


class Decoder(nn.Module):
    """Image and text tokens in, logits of every text token out."""

    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.image, self.text = nn.Linear(5, 8), nn.Embedding(VOCABULARY, 8)
        self.out = nn.Linear(8, VOCABULARY)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        given = self.text(tokens), self.image(pixels)
        if self.checkpointed:
            return checkpoint(self.mixed, *given, use_reentrant=False)  # type: ignore[no-any-return]
        return self.mixed(*given)

    def mixed(self, text: Tensor, image: Tensor) -> Tensor:
        return self.out((text.cumsum(1) + image[:, None]).tanh())  # type: ignore[no-any-return]


def batch(masked: int = 3, seed: int = 0, padding: int = IGNORE) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts of several lengths are masked, and the last sample altogether."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(SIZE, 5, generator=generator, dtype=torch.float64)
    tokens = torch.randint(1, VOCABULARY, (SIZE, LENGTH), generator=generator)
    labels = tokens.clone()
    for i in range(SIZE):
        labels[i, : masked + i % 3 if masked else 0] = padding
    if masked:
        labels[-1] = padding
    return pixels, tokens, labels


# ---------------------------------------------------------------- the ways to write one

Way = Callable[..., Tensor]


def functional(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(u.transpose(1, 2), y, reduction=reduction, ignore_index=IGNORE)


def by_hand(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    losses = F.cross_entropy(u.transpose(1, 2), y.clamp(min=0), reduction="none") * (y != IGNORE)
    return losses.sum() / (y != IGNORE).sum() if reduction == "mean" else losses


def one_number(u: Tensor, y: Tensor) -> Tensor:
    kept = y != IGNORE
    losses = F.cross_entropy(u.flatten(0, 1), y.clamp(min=0).flatten(), reduction="none")
    return (losses * kept.flatten()).sum() / kept.sum()


def shifted_inside(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return functional(u[:, :-1], y[:, 1:], reduction)


def flattened(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(u.flatten(0, 1), y.flatten(), reduction=reduction, ignore_index=IGNORE)


def flattened_and_shifted(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return flattened(u[:, :-1], y[:, 1:], reduction)


def smoothed(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(
        u.transpose(1, 2), y, reduction=reduction, ignore_index=IGNORE, label_smoothing=0.1
    )


def per_sample(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    losses = F.cross_entropy(u.transpose(1, 2), y, reduction="none", ignore_index=IGNORE)
    each = losses.sum(1) / (y != IGNORE).sum(1).clamp(min=1)
    return each.mean() if reduction == "mean" else each


def summed(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    losses = F.cross_entropy(u.transpose(1, 2), y, reduction="none", ignore_index=IGNORE)
    return losses.sum() if reduction == "mean" else losses


def weighted_by_class(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(
        u.transpose(1, 2), y, CLASS_WEIGHT, reduction=reduction, ignore_index=IGNORE
    )


class Subclass(nn.CrossEntropyLoss):
    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        return super().forward(u[:, :-1].transpose(1, 2), y[:, 1:])


class Deaf(nn.Module):
    """Keeps `reduction`, and does not obey it."""

    reduction = "mean"

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        return one_number(u, y)


def plain(u: Tensor, y: int) -> float:
    return -u.log_softmax(0)[y].item()


def smooth(u: Tensor, y: int) -> float:
    return 0.9 * plain(u, y) - 0.1 * u.log_softmax(0).mean().item()


def heavy(u: Tensor, y: int) -> float:
    return CLASS_WEIGHT[y].item() * plain(u, y)


WAYS: dict[str, tuple[Any, bool, Callable[[Tensor, int], float]]] = {
    # criterion, whether it shifts, loss of one token by hand
    "TokenLoss": (eq.TokenLoss(), True, plain),
    "TokenLoss, labels shifted before": (eq.TokenLoss(shift=False), False, plain),
    "TokenLoss, smoothed": (eq.TokenLoss(label_smoothing=0.1), True, smooth),
    "functional": (functional, False, plain),
    "masked mean by hand": (by_hand, False, plain),
    "one number": (one_number, False, plain),
    "shifted inside": (shifted_inside, True, plain),
    "flattened": (flattened, False, plain),
    "flattened and shifted": (flattened_and_shifted, True, plain),
    "label smoothing": (smoothed, False, smooth),
    "mean over samples": (per_sample, False, plain),
    "sum": (summed, False, plain),
    "class weights": (weighted_by_class, False, heavy),
    "a subclass that shifts": (Subclass(), True, plain),
    "a module that does not obey reduction": (Deaf(), False, plain),
}
each_way = pytest.mark.parametrize("way", WAYS)


def losses_by_hand(way: str, logits: Tensor, labels: Tensor, padding: int = IGNORE) -> list[Any]:
    """The mean loss of each sample's tokens that count; None where none does."""
    _, shifts, of_token = WAYS[way]
    found: list[Any] = []
    for u, y in zip(logits, labels.tolist(), strict=True):
        pairs = list(zip(u[:-1], y[1:], strict=True)) if shifts else list(zip(u, y, strict=True))
        each = [of_token(scores, label) for scores, label in pairs if label != padding]
        found.append(sum(each) / len(each) if each else None)
    return found


@each_way
@pytest.mark.parametrize("masked", [0, 3])
def test_the_loss_of_a_sample_is_that_of_its_tokens_that_count(way: str, masked: int) -> None:
    criterion, _, labels = Criterion(WAYS[way][0]), *batch(masked)[1:]
    logits = torch.randn(
        SIZE, LENGTH, VOCABULARY, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    of_batch = criterion.at(logits, labels)
    found, ignored = of_batch.per_sample(logits * 0.7, labels), of_batch.ignored(labels)
    for i, expected in enumerate(losses_by_hand(way, logits * 0.7, labels)):
        if expected is None:
            assert ignored is not None
            assert ignored[i]
        else:
            assert ignored is None or not ignored[i]
            assert found[i].item() == pytest.approx(expected, rel=1e-9)


class World:
    """A decoder balanced by OGM with one way of writing the loss."""

    def __init__(self, criterion: Any, checkpointed: bool = False, ranks: bool = False) -> None:
        torch.manual_seed(0)
        self.model = Decoder(checkpointed).double()
        self.wrapped: nn.Module = DistributedDataParallel(self.model) if ranks else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        self.balancer = eq.Balancer(
            eq.OGM(0.3), self.wrapped, {"image": self.model.image, "text": self.model.text}, None,
            self.optimizer, criterion=criterion, scores=eq.Ablation(), track_every=1,
        )  # fmt: skip

    def step(self, parts: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        for pixels, tokens, target in parts:
            self.balancer.backward(self.balancer.loss(self.wrapped(pixels, tokens), target))
        self.balancer.modulate()
        found = self.balancer.metrics()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return found

    def truth(self, way: str, pixels: Tensor, tokens: Tensor, labels: Tensor) -> dict[str, float]:
        """Evidence and coefficients by hand, of the model as it is."""
        model, evidence = self.model, {}
        for name in ("image", "text"):
            with torch.no_grad():
                h, z = model.image(pixels)[:, None], model.text(tokens)
                h, z = (h, z * 0) if name == "image" else (h * 0, z)
                alone = model.out((z.cumsum(1) + h).tanh())
            each = [x for x in losses_by_hand(way, alone, labels) if x is not None]
            evidence[name] = sum(math.exp(-loss) for loss in each) / len(each)
        expected = {f"evidence/{name}": value for name, value in evidence.items()}
        for name, ratio in zip(evidence, slow.ratios(list(evidence.values())), strict=True):
            expected[f"coefficient/{name}"] = slow.thresholded(ratio, 0.3)
        return expected


def assert_equal(found: Mapping[str, float], expected: Mapping[str, float]) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


@each_way
@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_evidence_and_coefficients_equal_the_loop_by_hand(
    way: str, micro: int, checkpointed: bool
) -> None:
    """Micro-batches included: evidence is a sum over samples, whatever the mean is over."""
    world = World(WAYS[way][0], checkpointed)
    for seed in range(2):
        whole = batch(3 * seed, seed)  # the first batch shows nothing
        expected = world.truth(way, *whole)
        parts = zip(*(t.chunk(micro) for t in whole), strict=True)
        assert_equal(world.step(list(parts)), expected)


def on_ranks(rank: int, ways: Sequence[str]) -> list[tuple[dict[str, float], dict[str, float]]]:
    found = []
    for way in ways:
        world = World(WAYS[way][0], ranks=True)
        for seed in range(2):
            whole = batch(3 * seed, seed)
            expected = world.truth(way, *whole)
            mine = tuple(t[rank::2] for t in whole)  # unlike many tokens on each
            found.append((world.step([mine]), expected))
    return found


def test_evidence_and_coefficients_on_two_ranks() -> None:
    ways = ["TokenLoss", "functional", "masked mean by hand", "one number", "shifted inside"]
    ways += ["label smoothing", "mean over samples"]
    for of_rank in spawn(on_ranks, ways):
        assert len(of_rank) == 2 * len(ways)
        for found, expected in of_rank:
            assert_equal(found, expected)


WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 1.0, 3.0, 1.0]).double()


def weighed(u: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    y, w = target
    losses, kept = functional(u, y, "none"), y != IGNORE
    return (
        (w[:, None] * losses).sum() / (w[:, None] * kept).sum() if reduction == "mean" else losses
    )


def test_weights_of_samples_are_of_the_loss_and_not_of_the_evidence() -> None:
    pixels, tokens, labels = batch()
    world = World(eq.TokenLoss())
    expected = world.truth("TokenLoss", pixels, tokens, labels)
    logits = world.model(pixels, tokens)
    each = losses_by_hand("TokenLoss", logits, labels)
    counts = (labels[:, 1:] != IGNORE).sum(1).tolist()
    of = [(w * n, loss) for w, n, loss in zip(WEIGHTS.tolist(), counts, each, strict=True) if n]
    loss = world.balancer.loss(logits, (labels, None, WEIGHTS))
    assert loss.item() == pytest.approx(sum(w * x for w, x in of) / sum(w for w, _ in of))
    world.balancer.backward(loss)
    world.balancer.modulate()
    assert_equal(world.balancer.metrics(), expected)
    criterion, one = Criterion(eq.TokenLoss()), torch.ones(SIZE)
    again = criterion.weighted(logits, (labels, None, WEIGHTS), one)
    torch.testing.assert_close(again, loss)
    with pytest.raises(eq.MatchError, match=r"weights of shape \(6,\) or \(6, 7\), found \(5,\)"):
        eq.TokenLoss()(logits, (labels, None, WEIGHTS[1:]))
    with pytest.raises(eq.MatchError, match="found a tuple of 4"):
        eq.TokenLoss()(logits, (labels, None, WEIGHTS, None))


def test_weights_in_a_function_are_told_or_refused() -> None:
    pixels, tokens, labels = batch()
    with pytest.raises(eq.MatchError, match=r"weighed.*neither.*counted\(target\)"):
        World(weighed).step([(pixels, tokens, (labels, WEIGHTS))])
    telling: Any = functools.partial(weighed)
    telling.counted = lambda target: target[0] != IGNORE
    world = World(telling)
    expected = world.truth("functional", pixels, tokens, labels)
    assert_equal(world.step([(pixels, tokens, (labels, WEIGHTS))]), expected)


@pytest.mark.parametrize("way", [w for w in WAYS if w != "class weights"])
def test_equal_weights_give_the_users_value_and_weight_zero_drops(way: str) -> None:
    logits = torch.randn(
        SIZE, LENGTH, VOCABULARY, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    _, _, labels = batch()
    criterion = Criterion(WAYS[way][0])
    found = criterion.at(logits, labels).weighted(logits, labels, torch.full((SIZE,), 0.5))
    torch.testing.assert_close(found, criterion.total(logits, labels))
    if way not in ("sum", "mean over samples"):
        kept = torch.tensor([1, 0, 1, 1, 0, 1])
        found = criterion.at(logits, labels).weighted(logits, labels, kept)
        rows = kept.bool()
        torch.testing.assert_close(found, criterion.total(logits[rows], labels[rows]))


def test_samples_cannot_be_weighed_in_a_mean_that_is_not_understood() -> None:
    """Weights of classes within a function: which denominator the rest would have, nobody says."""
    logits, (_, _, labels) = torch.randn(SIZE, LENGTH, VOCABULARY).double(), batch()
    criterion = Criterion(weighted_by_class).at(logits, labels)
    with pytest.raises(eq.MatchError, match=r"weighted_by_class.*neither.*counted\(target\)"):
        criterion.weighted(logits, labels, torch.ones(SIZE))


@pytest.mark.parametrize("confident", [False, True])
def test_padding_with_an_ordinary_label(confident: bool) -> None:
    """Label 0 is padding: the zeros and the mean tell; a token that is sure of itself counts."""

    def padded(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(u.transpose(1, 2), y, reduction=reduction, ignore_index=0)

    criterion = Criterion(padded)
    _, _, labels = batch(2, padding=0)
    logits = torch.randn(
        SIZE, LENGTH, VOCABULARY, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    criterion.at(logits, labels).per_sample(logits, labels)
    if confident:
        labels[0, 4] = 5
        logits[0, 4, 5] = 1e4  # its loss is exactly 0, and it is no padding
    found = criterion.at(logits, labels).per_sample(logits, labels)
    expected = losses_by_hand("functional", logits, labels, padding=0)
    for value, right in zip(found, expected, strict=True):
        if right is not None:
            assert value.item() == pytest.approx(right, rel=1e-9)


def test_a_mean_that_fits_nothing_is_refused_where_something_is_zero() -> None:
    def odd(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        losses = F.cross_entropy(u.transpose(1, 2), y, reduction="none", ignore_index=3)
        return losses.sum() / 1000 if reduction == "mean" else losses

    logits = torch.randn(SIZE, LENGTH, VOCABULARY)
    labels = torch.arange(SIZE * LENGTH).view(SIZE, LENGTH) % VOCABULARY
    with pytest.raises(eq.MatchError, match=r"odd.*neither.*eq\.TokenLoss"):
        Criterion(odd).per_sample(logits, labels)


def test_a_function_may_say_what_counts() -> None:
    def odd(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        losses = F.cross_entropy(u.transpose(1, 2), y, reduction="none", ignore_index=3)
        return losses.sum() / 1000 if reduction == "mean" else losses

    odd.counted = lambda y: y != 3  # type: ignore[attr-defined]
    logits = torch.randn(SIZE, LENGTH, VOCABULARY).double()
    labels = torch.arange(SIZE * LENGTH).view(SIZE, LENGTH) % VOCABULARY
    found = Criterion(odd).per_sample(logits, labels)
    expected = losses_by_hand("functional", logits, labels, padding=3)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    odd.counted = lambda y: y[:, 1:] != 3  # type: ignore[attr-defined]
    with pytest.raises(eq.MatchError, match=r"counted.*\(6, 7\).*\(6, 6\)"):
        Criterion(odd).per_sample(logits, labels)


def test_losses_flattened_in_another_order_are_refused() -> None:
    def by_position(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return flattened(u.transpose(0, 1), y.transpose(0, 1), reduction)

    _, _, labels = batch()
    with pytest.raises(eq.MatchError, match="by_position"):
        Criterion(by_position).per_sample(torch.randn(SIZE, LENGTH, VOCABULARY), labels)


def test_no_token_to_predict_is_a_loss_of_zero() -> None:
    logits = torch.randn(2, 3, VOCABULARY, requires_grad=True)
    loss = eq.TokenLoss()(logits, torch.full((2, 3), IGNORE))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(2, 3), (2, 4)])
def test_logits_that_are_no_tokens_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(eq.MatchError, match=r"\(B, T, V\)"):
        eq.TokenLoss()(torch.randn(2, 3), torch.zeros(shape, dtype=torch.long))
    with pytest.raises(eq.SetupError, match="label_smoothing"):
        eq.TokenLoss(label_smoothing=2)


def test_a_focal_loss_that_only_keeps_its_reduction() -> None:
    """As `_WeightedLoss` invites: the attribute is there, and forward takes the mean in any case."""

    class Focal(nn.modules.loss._WeightedLoss):
        def forward(self, u: Tensor, y: Tensor) -> Tensor:
            log = u.log_softmax(1).gather(1, y[:, None])[:, 0]
            return (-((1 - log.exp()) ** 2) * log).mean()

    logits, target = torch.randn(8, 5).double(), torch.randint(5, (8,))
    for reduction in ("mean", "none"):
        found = Criterion(Focal(reduction=reduction)).per_sample(logits, target)
        p = logits.softmax(1)[torch.arange(8), target]
        torch.testing.assert_close(found, -((1 - p) ** 2) * p.log())


@pytest.mark.parametrize("missing", [False, True])
def test_packed_rows_are_as_many_samples(missing: bool) -> None:
    """Three samples in two rows, against the same three in rows of their own."""
    lengths, generator = (4, 3, 7), torch.Generator().manual_seed(1)
    tokens = [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in lengths]
    logits = [torch.randn(n, VOCABULARY, generator=generator).double() for n in lengths]
    labels = [t.clone().index_fill(0, torch.tensor([1]), IGNORE) for t in tokens]
    rows = torch.stack([torch.cat(labels[:2]), labels[2]])
    samples = torch.tensor([[4] * 4 + [9] * 3, [1] * 7])
    packed = torch.stack([torch.cat(logits[:2]), logits[2]])
    criterion = Criterion(eq.TokenLoss())
    losses, ignored, each = criterion.scored([packed, packed * 0.5], (rows, samples))
    assert ignored is not None
    assert (~ignored).sum() == 3
    assert each == LENGTH
    for found, factor in zip(losses, (1.0, 0.5), strict=True):
        alone = [
            criterion.per_sample(factor * u[None], y[None]).item()
            for u, y in zip(logits, labels, strict=True)
        ]
        assert found[~ignored].tolist() == pytest.approx(alone, rel=1e-9)
    total = sum(
        F.cross_entropy(u[:-1], y[1:], reduction="sum") for u, y in zip(logits, labels, strict=True)
    )
    count = sum((y[1:] != IGNORE).sum() for y in labels)
    torch.testing.assert_close(criterion.total(packed, (rows, samples)), total / count)
    # The whole way, with a row that lacks the image.
    torch.manual_seed(0)
    model = Decoder().double()
    balancer = eq.Balancer(
        eq.OGM(0.3), model, {"image": model.image, "text": model.text}, None,
        torch.optim.SGD(model.parameters(), 0.1),
        criterion=eq.TokenLoss(), scores=eq.Ablation(), track_every=1,
    )  # fmt: skip
    given = torch.stack([torch.cat(tokens[:2]), tokens[2]])
    present = {"image": torch.tensor([True, False])} if missing else None
    pixels = torch.randn(2, 5).double()
    out = model(pixels, given)
    loss = balancer.loss(out, (rows, samples), present=present)
    balancer.backward(loss)
    balancer.modulate()
    with torch.no_grad():
        text = model.out(model.text(given).cumsum(1).tanh())
        image = model.out(model.image(pixels)[:, None].expand(-1, LENGTH, -1).tanh())
    for name, of in (("text", text), ("image", image)):
        parts = [of[0, :4], of[0, 4:], of[1]][: 2 if missing and name == "image" else 3]
        scores = [
            math.exp(-criterion.per_sample(u[None], y[None]).item())
            for u, y in zip(parts, labels, strict=False)
        ]
        expected = sum(scores) / len(scores)
        assert balancer.metrics()[f"evidence/{name}"] == pytest.approx(expected, rel=1e-6)


def test_samples_of_another_shape_are_refused() -> None:
    logits, labels = torch.randn(2, 3, VOCABULARY), torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(eq.MatchError, match=r"\(labels, samples\).*\(2, 3\), \(3, 2\)"):
        eq.TokenLoss()(logits, (labels, labels.T))
