"""MMPareto against a hand-written loop, its edges, and the defects of public code."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal import testing
from equimodal.functional.mmpareto import min_norm_weight, restoring_factor
from equimodal.methods.gradient.conflict import Conflict, MinNorm, TorchJD
from equimodal.methods.gradient.mmpareto import MMPareto
from equimodal.system import extras
from support.worlds import World, batch, train, weights

needs_torchjd = pytest.mark.skipif(
    importlib.util.find_spec("torchjd") is None, reason="torchjd is not installed"
)


def aligned() -> eq.Method:
    return MMPareto(conflict=TorchJD("AlignedMTL"))


def prepared(world: World, balancer: eq.Balancer) -> nn.ModuleList:
    """Make the method's classifiers now, and return copies of them."""
    (method,) = balancer.methods
    features = dict.fromkeys(world.encoders, (8,))
    shapes = eq.Shapes(features, (world.classes,), torch.device("cpu"), torch.float64)
    balancer.make_modules(shapes)
    assert isinstance(method, MMPareto)
    return copy.deepcopy(method.readouts.layers)


def flat(tensors: list[Tensor]) -> np.ndarray[Any, Any]:
    return np.concatenate([t.numpy().reshape(-1) for t in tensors])


def weight_of_joint(joint: list[Tensor], unimodal: list[Tensor]) -> float:
    """Weight of the joint loss's gradient, as the paper and its solver for two tasks have it."""
    g, u = flat(joint), flat(unimodal)
    if g @ u > 0:
        return 0.5
    if g @ u >= g @ g:
        return 0.999
    if g @ u >= u @ u:
        return 0.001
    return float((u @ u - g @ u) / ((g - u) @ (g - u)))


def hand_written(
    world: World, classifiers: nn.ModuleList, batches: list[tuple[Tensor, ...]], gamma: float
) -> list[float]:
    """Train as a user would write it down, one backward pass per loss, and return all weights."""
    own = torch.optim.SGD(classifiers.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    history = []
    for *inputs, target in batches:
        encoders = list(world.encoders.values())
        features = [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]
        losses = [nn.functional.cross_entropy(world.model.head(torch.cat(features, 1)), target)]
        for classifier, feature in zip(classifiers, features, strict=True):
            losses.append(nn.functional.cross_entropy(classifier(feature), target))
        for optimizer in (world.optimizer, own):
            optimizer.zero_grad()
        torch.stack(losses).sum().backward(retain_graph=True)
        for index, encoder in enumerate(encoders):
            parameters = list(encoder.parameters())
            joint = list(torch.autograd.grad(losses[0], parameters, retain_graph=True))
            alone = list(torch.autograd.grad(losses[1 + index], parameters, retain_graph=True))
            a = weight_of_joint(joint, alone)
            history.append(a)
            for parameter, g, u in zip(parameters, joint, alone, strict=True):
                h = 2 * a * g + 2 * (1 - a) * u
                longer = float((g + u).norm() / h.norm())
                parameter.grad = gamma * h * max(1.0, longer)
        world.optimizer.step()
        own.step()
    return history


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 3), (3, 1), (3, 4)])
def test_equals_the_hand_written_loop(modalities: int, seed: int) -> None:
    """Both rules are at work: some gradients agree, some disagree."""
    batches = [batch(12, modalities, seed=10 * seed + i) for i in range(8)]
    ours, theirs = World(modalities, seed=seed), World(modalities, seed=seed)
    balancer = ours.balance(MMPareto(gamma=1.3), seed=seed)
    classifiers = prepared(ours, balancer)
    history = hand_written(theirs, classifiers, batches, 1.3)
    assert 0.5 in history
    assert any(a != 0.5 for a in history)
    train(balancer, batches)
    torch.testing.assert_close(weights(ours.model), weights(theirs.model), rtol=1e-9, atol=1e-12)
    (method,) = balancer.methods
    torch.testing.assert_close(
        weights(method.readouts.layers), weights(classifiers), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("seed", range(20))
def test_min_norm_weight_is_the_shortest_combination(seed: int) -> None:
    """Against a search over all weights."""
    rng = np.random.default_rng(seed)
    g, u = rng.normal(size=5) * rng.uniform(0.1, 5), rng.normal(size=5)
    found = min_norm_weight(*(torch.tensor(float(x)) for x in (g @ g, g @ u, u @ u))).item()
    grid = np.linspace(0, 1, 1001)
    best = grid[int(np.argmin([np.linalg.norm(a * g + (1 - a) * u) for a in grid]))]
    assert found == pytest.approx(np.clip(best, 0.001, 0.999), abs=1e-3)


def test_functions_at_their_edges() -> None:
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    assert min_norm_weight(zero, zero, one) == pytest.approx(0.999)
    assert min_norm_weight(one, zero, zero) == pytest.approx(0.001)
    assert min_norm_weight(zero, zero, zero).isfinite()
    assert min_norm_weight(one, one, one).isfinite()  # equal gradients: any weight is shortest
    assert restoring_factor(zero, one) == 1
    assert restoring_factor(zero, zero) == 1


# ---------------------------------------------------------------------- defects of public code


class Recorded(MMPareto):
    """Keeps what `combine` was handed and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any, Any]] = []

    def combine(self, modality: str, gradients: Any) -> Any:
        combined = super().combine(modality, gradients)
        self.calls.append((modality, copy.deepcopy(dict(gradients)), combined))
        return combined


def test_the_gradient_of_each_loss_is_its_own() -> None:
    """Public code does not zero gradients between the losses: cosine 1, and 3 times the sum."""
    world = World()
    method = Recorded()
    balancer = world.balance(method)
    *inputs, target = batch(12, seed=4)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    for name, gradients, combined in method.calls:
        parameters = list(world.encoders[name].parameters())
        loss = nn.functional.cross_entropy(world.model(*inputs), target)
        alone = torch.autograd.grad(loss, parameters)
        torch.testing.assert_close(gradients["joint"], list(alone))
        g, u = flat(gradients["joint"]), flat(gradients[name])
        assert g @ u / np.linalg.norm(g) / np.linalg.norm(u) < 0.99
        other = next(n for n in world.encoders if n != name)
        assert not flat(gradients[other]).any()  # the other's own loss does not reach it
        for parameter, h in zip(parameters, combined, strict=True):
            torch.testing.assert_close(parameter.grad, h)
        plain = [a + b for a, b in zip(gradients["joint"], gradients[name], strict=True)]
        assert not np.allclose(flat(combined), 3 * flat(plain))


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_weights_follow_the_conflict_and_never_vanish(flip: float) -> None:
    """Public code overwrites the loop's variable in place of the weights: 0/0."""
    method = MMPareto(gamma=1.0)
    method.bind(("audio", "visual"), 0)
    g = [torch.tensor([[1.0, 0.5]]), torch.tensor([0.5])]
    u = [flip * torch.tensor([[4.0, 1.0]]), torch.tensor([1.0])]
    combined = method.combine("audio", {"joint": g, "audio": u, "visual": [x * 0 for x in g]})
    assert combined is not None
    a = weight_of_joint(g, u)
    assert (a == 0.5) == (flip == 1)
    for h, first, second in zip(combined, g, u, strict=True):
        expected = 2 * a * first + 2 * (1 - a) * second
        expected = expected * max(1, float((first + second).norm() / expected.norm()))
        torch.testing.assert_close(h, expected)
    # It works against neither loss.
    assert flat(combined) @ flat(g) > 0
    if flip == 1:
        assert flat(combined) @ flat(u) > 0


def test_the_norm_is_restored_tensor_by_tensor() -> None:
    method = MMPareto(gamma=1.0)
    method.bind(("audio", "visual"), 0)
    g = [torch.tensor([3.0, 0.0]), torch.tensor([0.1])]
    u = [torch.tensor([-1.0, 0.1]), torch.tensor([0.2])]
    combined = method.combine("audio", {"joint": g, "audio": u})
    assert combined is not None
    for h, first, second in zip(combined, g, u, strict=True):
        assert h.norm() >= (first + second).norm() - 1e-6


def test_a_zero_gradient_gives_the_other_at_its_full_length() -> None:
    method = MMPareto(gamma=1.0)
    method.bind(("audio", "visual"), 0)
    u = [torch.tensor([1.0, -2.0])]
    (h,) = method.combine("audio", {"joint": [torch.zeros(2)], "audio": u}) or []
    torch.testing.assert_close(h, u[0])
    (h,) = method.combine("audio", {"joint": [torch.zeros(2)], "audio": [torch.zeros(2)]}) or []
    assert not h.any()


# ---------------------------------------------------------------------- edges


def test_a_missing_modality_keeps_the_gradient_of_the_joint_loss() -> None:
    """All its samples are absent: its own loss is 0, and so is that gradient."""
    world = World()
    method = Recorded()
    balancer = world.balance(method)
    *inputs, target = batch(7)
    absent = torch.zeros(7, dtype=torch.bool)
    loss = balancer.loss(world.model(*inputs), target, present={"visual": absent})
    balancer.backward(loss)
    balancer.modulate()
    gradients = {name: of for name, of, _ in method.calls}["visual"]
    assert not flat(gradients["visual"]).any()
    for g, p in zip(gradients["joint"], world.encoders["visual"].parameters(), strict=True):
        torch.testing.assert_close(p.grad, 1.5 * g)


def test_heads_outside_of_the_encoders_get_the_plain_sum() -> None:
    world = World()
    balancer = world.balance(MMPareto())
    *inputs, target = batch(9)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    loss = nn.functional.cross_entropy(world.model(*inputs), target)
    expected = torch.autograd.grad(loss, list(world.model.head.parameters()))
    found = [p.grad for p in world.model.head.parameters()]
    torch.testing.assert_close(found, list(expected))


def test_beside_a_method_that_does_not_train_the_head_it_changes_nothing() -> None:
    """There is no gradient of a joint loss that the others could be balanced against."""
    strong, weak = World(), World()
    train(strong.balance(eq.Ensemble(), MMPareto(gamma=9.0)), [batch(9)])
    train(weak.balance(eq.Ensemble(), MMPareto(gamma=1.0)), [batch(9)])
    assert torch.equal(weights(strong.model), weights(weak.model))


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.inf, math.nan])
def test_a_gamma_that_is_no_factor_is_refused(gamma: float) -> None:
    with pytest.raises(eq.SetupError, match=r"MMPareto\(gamma\).*above 0"):
        MMPareto(gamma)


def test_a_conflict_by_name_is_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"eq.TorchJD\(name\), found 'UPGrad'"):
        MMPareto(conflict="UPGrad")  # type: ignore[arg-type]


# ---------------------------------------------------------------------- TorchJD


def test_torchjd_that_is_missing_is_named_with_the_pip_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'equimodal\[torchjd\]'"):
        TorchJD("UPGrad")


@needs_torchjd
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_an_aggregator_takes_the_place_of_the_min_norm_solution(flip: float) -> None:
    from torchjd.aggregation import AlignedMTL

    g = [torch.tensor([[1.0, 0.5]]), torch.tensor([0.5])]
    u = [flip * torch.tensor([[4.0, 1.0]]), torch.tensor([1.0])]
    method = MMPareto(gamma=1.0, conflict=TorchJD("AlignedMTL"))
    method.bind(("audio", "visual"), 0)
    combined = method.combine("audio", {"joint": g, "audio": u})
    assert combined is not None
    plain = [a + b for a, b in zip(g, u, strict=True)]
    both = torch.stack([torch.cat([t.flatten() for t in of]) for of in (g, u)])
    solved = 2 * AlignedMTL()(both)
    pieces = [piece.view_as(t) for piece, t in zip(solved.split([2, 1]), g, strict=True)]
    for h, sum_, piece in zip(combined, plain, pieces, strict=True):
        expected = sum_ if flip == 1 else piece * max(1, float(sum_.norm() / piece.norm()))
        torch.testing.assert_close(h, expected)


@needs_torchjd
def test_min_norm_of_torchjd_is_close_to_the_analytic_one() -> None:
    rng = torch.Generator().manual_seed(0)
    g = [torch.randn(40, generator=rng, dtype=torch.float64)]
    u = [-0.3 * g[0] + torch.randn(40, generator=rng, dtype=torch.float64)]
    exact = MinNorm()(g, u, 0)
    iterated = TorchJD("MGDA", epsilon=1e-9, max_iters=1000)(g, u, 0)
    torch.testing.assert_close(iterated, exact, rtol=1e-3, atol=1e-3)


@needs_torchjd
def test_gradients_that_are_not_finite_reach_the_scaler() -> None:
    solve = TorchJD("AlignedMTL")
    (found,) = solve([torch.tensor([1.0, math.inf])], [torch.tensor([1.0, 2.0])], 0)
    assert found.isnan().all()


@needs_torchjd
def test_random_aggregators_repeat_and_leave_the_global_generator_alone() -> None:
    g, u = [torch.randn(3)], [torch.randn(3)]
    solve = TorchJD("Random")
    state = torch.random.get_rng_state()
    first, again, other = solve(g, u, 1), solve(g, u, 1), solve(g, u, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    testing.resumes(lambda: MMPareto(conflict=TorchJD("Random")))


@needs_torchjd
def test_unknown_aggregators_and_those_with_a_state_are_refused() -> None:
    with pytest.raises(eq.SetupError, match="did you mean 'CAGrad'"):
        TorchJD("CAgrad")
    with pytest.raises(eq.SetupError, match="remembers past steps"):
        TorchJD("GradVac")
    with pytest.raises(eq.SetupError, match=r"Krum.*n_byzantine"):
        TorchJD("Krum")


# ---------------------------------------------------------------------- the contract


@needs_torchjd
@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
def test_passes_the_conformance_kit_with_torchjd(check: Callable[[Any], None]) -> None:
    check(aligned)


def test_a_model_compiled_after_attaching_trains_alike() -> None:
    torch._dynamo.reset()
    plain, world = World(), World()
    balancer = world.balance(MMPareto())
    balancer.check(batch())
    compiled: Any = torch.compile(world.model, backend="aot_eager")
    train(balancer, [batch(seed=s) for s in range(3)], model=compiled)
    train(plain.balance(MMPareto()), [batch(seed=s) for s in range(3)])
    torch.testing.assert_close(weights(world.model), weights(plain.model), rtol=1e-9, atol=1e-9)


def test_conflict_is_what_a_subclass_makes_of_it() -> None:
    with pytest.raises(NotImplementedError):
        Conflict()([], [], 0)
