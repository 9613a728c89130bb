"""G2D against loops over samples: the distillation, who is held back, and for how long."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.functional.distillation import logit_divergence, prioritised
from equimodal.methods.objective.g2d import G2D
from equimodal.testing import spawn
from support.teachers import teachers
from support.worlds import World, batch, train, weights


def g2d() -> eq.Method:
    return G2D(teachers(), gating=(0, 1))


# ---------------------------------------------------------------------- the equations


def softmax(u: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(x / temperature) for x in u]
    return [x / sum(powers) for x in powers]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_divergence_equals_the_loop(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    expected = 0.0
    for f, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(f, temperature)
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = logit_divergence(student, teacher, temperature)
    assert float(found) == pytest.approx(temperature**2 * expected / 6, rel=1e-12)
    some = torch.tensor([True, False, True, True, False, False])
    torch.testing.assert_close(
        logit_divergence(student, teacher, temperature, some),
        logit_divergence(student[some], teacher[some], temperature),
    )


def slow_turns(scores: list[float], epoch: int, first: int, last: int) -> list[float]:
    """The ranks, weakest first, and the phase of an epoch."""
    if not first <= epoch <= last:
        return [1.0] * len(scores)
    length = (last - first + 1) / (len(scores) - 1)
    turn = sorted(range(len(scores)), key=lambda m: scores[m])[int((epoch - first) / length)]
    return [1.0 if m == turn else 0.0 for m in range(len(scores))]


@pytest.mark.parametrize("modalities", [2, 3])
def test_training_equals_the_hand_written_loop(modalities: int) -> None:
    """Before, during and after gating: epochs 1 and 2 of 4."""
    world, twin = World(modalities), World(modalities)
    method = G2D(teachers(), (1, 2), logits=0.5, features=2.0, temperature=2.0)
    balancer = world.balance(method)
    models, seen = teachers(), []
    for epoch in range(4):
        batches = [batch(12, modalities, seed=10 * epoch + step) for step in range(2)]
        train(balancer, batches)
        balancer.end_epoch()
        for *inputs, target in batches:
            features = {n: e(x) for (n, e), x in zip(twin.encoders.items(), inputs, strict=True)}
            logits = twin.model.head(torch.cat(list(features.values()), dim=1))
            loss = nn.functional.cross_entropy(logits, target)
            scores = []
            for (name, z), x in zip(features.items(), inputs, strict=True):
                with torch.no_grad():
                    said, taught = models[name](x)
                p, q = (said / 2.0).softmax(1), (logits / 2.0).softmax(1)
                loss = loss + 0.5 * 4.0 * (p * (p / q).log()).sum() / len(target)
                loss = loss + 2.0 * (z - taught).square().sum() / z.numel()
                pairs = zip(said.tolist(), target.tolist(), strict=True)
                scores.append(sum(softmax(u)[y] for u, y in pairs))
            twin.optimizer.zero_grad()
            loss.backward()
            turns = slow_turns(scores, epoch, 1, 2)
            seen.append(turns)
            for k, encoder in zip(turns, twin.encoders.values(), strict=True):
                for parameter in encoder.parameters():
                    assert parameter.grad is not None
                    parameter.grad *= k
            twin.optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)
    assert [sum(turns) for turns in seen] == [modalities] * 2 + [1] * 4 + [modalities] * 2


def test_the_modality_whose_teacher_leads_is_held_back() -> None:
    """The released code: coefficient 0 for the higher score, 1 for the other."""
    for scores in ([5.0, 3.0], [3.0, 5.0]):
        expected = [1.0 if score == min(scores) else 0.0 for score in scores]
        assert prioritised(torch.tensor(scores), torch.tensor(0)).tolist() == expected


def test_three_modalities_take_their_turn_and_reduce_to_two_without_the_third() -> None:
    scores = torch.tensor([0.6, 0.4, 0.9])
    assert prioritised(scores, torch.tensor(0)).tolist() == [0, 1, 0]
    assert prioritised(scores, torch.tensor(1)).tolist() == [1, 0, 0]
    without = torch.tensor([0.6, 0.4, math.nan])
    assert prioritised(without, torch.tensor(0)).tolist() == [0, 1, 1]


def test_equal_scores_hold_nobody_back() -> None:
    """The released code raises an error."""
    assert prioritised(torch.tensor([2.0, 2.0]), torch.tensor(0)).tolist() == [1, 1]
    tied = torch.tensor([0.5, 0.5, 0.9])
    assert prioritised(tied, torch.tensor(0)).tolist() == [1, 1, 0]
    assert prioritised(tied, torch.tensor(1)).tolist() == [1, 1, 0]
    assert prioritised(torch.tensor([0.5, 0.9, 0.9]), torch.tensor(1)).tolist() == [0, 1, 1]


# ---------------------------------------------------------------------- what is judged, and where


class Sure(nn.Module):
    """Gives the true class, which it is told, some probability; the feature is zero."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        truth = x[:, 0].round().long()
        logits = self.margin * nn.functional.one_hot(truth, 3)
        return logits.to(x.dtype), x.new_zeros(len(x), 8)


def told(size: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    target = torch.arange(size) % 3
    a, v = torch.randn(size, 4).double(), torch.randn(size, 5).double()
    a[:, 0], v[:, 0] = target, target
    return a, v, target


def gradients(balancer: eq.Balancer, world: World) -> dict[str, float]:
    return {
        name: sum(float(p.grad.abs().sum()) for p in encoder.parameters() if p.grad is not None)
        for name, encoder in world.encoders.items()
    }


def test_every_parameter_of_the_encoder_is_held_back_and_nothing_else() -> None:
    world = World()
    balancer = world.balance(G2D({"audio": Sure(9.0), "visual": Sure(1.0)}, (0, 0)))
    a, v, target = told()
    balancer.backward(balancer.loss(world.model(a, v), target))
    before = gradients(balancer, world)
    head = world.model.head.weight.grad.clone()
    balancer.modulate()
    assert gradients(balancer, world) == {"audio": 0.0, "visual": before["visual"]}
    assert torch.equal(world.model.head.weight.grad, head)


def test_a_selection_holds_back_those_parameters_alone() -> None:
    """The released code takes convolutions; small models have none, which is said."""
    world = World()
    given = {"audio": Sure(9.0), "visual": Sure(1.0)}
    balancer = world.balance(G2D(given, (0, 0), parameters="weights"))
    a, v, target = told()
    balancer.backward(balancer.loss(world.model(a, v), target))
    balancer.modulate()
    for parameter in world.encoders["audio"].parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == (parameter.ndim == 1)
    with pytest.raises(eq.SetupError, match="none that G2D acts on"):
        World().balance(G2D(given, (0, 0), parameters="convolutions"))


def test_samples_without_a_modality_or_a_label_do_not_count_for_its_teacher() -> None:
    """Compared are means: a modality that few samples have is not weak for that."""
    world = World()
    criterion = nn.CrossEntropyLoss(ignore_index=-1)
    method = G2D({"audio": Sure(1.0), "visual": Sure(9.0)}, (0, 0))
    balancer = world.balance(method, criterion=criterion)
    a, v, target = told()
    target[0] = -1
    few = torch.arange(12) < 2
    loss = balancer.loss(world.model(a, v), target, present={"visual": few})
    balancer.backward(loss)
    balancer.modulate()
    assert gradients(balancer, world)["visual"] == 0
    assert gradients(balancer, world)["audio"] > 0


def test_a_modality_that_nobody_has_holds_nobody_back() -> None:
    world = World()
    balancer = world.balance(G2D({"audio": Sure(9.0), "visual": Sure(1.0)}, (0, 0)))
    a, v, target = told()
    nobody = torch.zeros(12, dtype=torch.bool)
    balancer.backward(balancer.loss(world.model(a, v), target, present={"visual": nobody}))
    balancer.modulate()
    assert gradients(balancer, world)["audio"] > 0
    assert balancer.metrics()["loss/g2d/visual logits"] == 0


def test_micro_batches_are_judged_together() -> None:
    """The first alone would hold back audio, the second visual; together it is visual."""

    class Told(nn.Module):
        def __init__(self, column: int) -> None:
            super().__init__()
            self.column = column

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x[:, self.column : self.column + 3], x.new_zeros(len(x), 8)

    world = World()
    balancer = world.balance(G2D({"audio": Told(0), "visual": Told(0)}, (0, 0)))
    target = torch.zeros(2, dtype=torch.long)
    for audio, visual in ((2.0, 1.0), (0.0, 5.0)):
        a, v = torch.zeros(2, 4).double(), torch.zeros(2, 5).double()
        a[:, 0], v[:, 0] = audio, visual
        balancer.backward(balancer.loss(world.model(a, v), target) / 2)
    balancer.modulate()
    assert gradients(balancer, world)["visual"] == 0
    assert gradients(balancer, world)["audio"] > 0


def on_rank(rank: int) -> Tensor:
    world = World(3)
    model = DistributedDataParallel(world.model)
    parts = [tuple(t[rank::2] for t in batch(24, 3, seed=seed)) for seed in range(5)]
    train(world.balance(g2d(), model=model), parts)
    return weights(world.model)


def test_two_ranks_are_judged_together_and_equal_the_one_large_batch() -> None:
    first, second = spawn(on_rank)
    world = World(3)
    train(world.balance(g2d()), [batch(24, 3, seed=seed) for seed in range(5)])
    assert torch.equal(first, second)
    torch.testing.assert_close(first, weights(world.model), rtol=1e-9, atol=1e-10)


def test_the_teachers_run_once_per_step() -> None:
    calls = []

    class Counting(Sure):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(len(x))
            return super().forward(x)

    world = World()
    balancer = world.balance(G2D({"audio": Counting(1.0), "visual": Counting(2.0)}, (0, 0)))
    *inputs, target = told()
    train(balancer, [(*inputs, target)] * 3)
    assert calls == [12] * 6


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gating": (3, 2)}, r"G2D\(gating\): expected \(first, last\) epoch"),
        ({"gating": (-1, 2)}, r"G2D\(gating\): expected \(first, last\) epoch"),
        ({"gating": (0, 2), "logits": -1.0}, r"G2D\(logits\): expected a number of 0 or more"),
        ({"gating": (0, 2), "features": math.nan}, r"G2D\(features\): expected a number of 0"),
        ({"gating": (0, 2), "temperature": 0.0}, r"G2D\(temperature\): expected a positive"),
        ({"gating": (0, 2), "parameters": "weigths"}, "did you mean 'weights'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        G2D(teachers(), **settings)


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = world.balance(g2d(), criterion=nn.MSELoss())
    *inputs, _ = batch(10)
    with pytest.raises(eq.MatchError, match="G2D is defined for one class per sample"):
        balancer.loss(world.model(*inputs), torch.randn(10, 3).double())
