"""A model without a head runs again for its scores: only the fusion, and nothing is left of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import equimodal as eq


class Model(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8))
        self.v = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8))
        self.out = nn.Linear(16, 3)

    def forward(self, a: Tensor, v: Tensor) -> Any:
        return self.out(torch.cat([self.a(a), self.v(v)], 1).tanh())


def batch(width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, v = (torch.randn(6, width, generator=generator) for _ in range(2))
    return a, v, torch.arange(6) % 3


def balanced(model: Any, *methods: eq.Method, **settings: Any) -> eq.Balancer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"a": model.a, "v": model.v}
    return eq.Balancer(list(methods) or eq.OGM(0.8), model, encoders, None, optimizer, **settings)


def test_a_rerun_costs_the_fusion_alone() -> None:
    model = Model(128)
    balancer = balanced(model, scores=eq.Ablation())
    *inputs, target = batch(128)
    logits = model(*inputs)
    with FlopCounterMode(display=False) as counter:
        balancer.loss(logits, target)
    fusion = 2 * 6 * 16 * 3
    assert counter.get_total_flops() == 2 * fusion  # once for each modality


def test_what_a_forward_keeps_is_its_own() -> None:
    class Keeps(Model):
        def __init__(self) -> None:
            super().__init__()
            self.log: list[int] = []
            self.by_name: dict[str, list[float]] = {"norms": []}
            self.bank = torch.zeros(8)
            self.register_buffer("mean", torch.zeros(8))
            self.count = 0

        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            z = self.a(a)
            self.kept, self.noise = z, torch.rand(1)
            self.count += 1
            self.log.append(self.count)
            self.by_name["norms"].append(0.0)
            self.bank += 1
            self.mean.mul_(0.9).add_(z.detach().mean(0))
            if self.count > 1:
                self.late = z
            return self.out(torch.cat([z, self.v(v)], 1).tanh())

    model = Keeps()
    balancer = balanced(model)
    *inputs, target = batch()
    shared, names = model.log, model.by_name
    logits = model(*inputs)
    kept, mean, noise = model.kept, model.mean.clone(), model.noise
    state = torch.get_rng_state()
    balancer.loss(logits, target)
    assert model.kept is kept
    assert model.noise is noise
    assert not hasattr(model, "late")
    assert model.count == 1
    assert model.log is shared
    assert model.by_name is names
    assert (shared, names) == ([1], {"norms": [0.0]})
    assert torch.equal(model.bank, torch.ones(8))
    assert torch.equal(model.mean, mean)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_head_keeps_is_its_own() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(16, 3)

        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            self.auxiliary = (a * v).mean()
            return self.out(torch.cat([a, v], 1).tanh())

    class With(Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = Head()

        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            return self.head(self.a(a), self.v(v))

    model = With()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(eq.OGM(), model, {"a": model.a, "v": model.v}, model.head, optimizer)
    *inputs, target = batch()
    logits = model(*inputs)
    own = model.head.auxiliary
    balancer.backward(balancer.loss(logits, target) + own)
    assert model.head.auxiliary is own


def test_lists_that_a_forward_changes_come_back() -> None:
    class Popping(Model):
        def forward(self, inputs: dict[str, list[Tensor]]) -> Tensor:  # type: ignore[override]
            v, a = inputs["both"].pop(), inputs["both"].pop()
            inputs["done"] = []
            return super().forward(a, v)

    model, plain = Popping(), Model()
    plain.load_state_dict(model.state_dict())
    a, v, target = batch()
    given = {"both": [a, v]}
    balancer, reference = (balanced(m, scores=eq.Ablation()) for m in (model, plain))
    losses = [balancer.loss(model(given), target), reference.loss(plain(a, v), target)]
    assert given == {"both": [], "done": []}  # as the user's forward left it
    for each, loss in zip((balancer, reference), losses, strict=True):
        each.backward(loss)
        each.modulate()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


class Uneven(Model):
    """Runs an encoder more or less often in evaluation."""

    counts = (3, 2)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        times = self.counts[0] if self.training else self.counts[1]
        z = torch.stack([self.v(v + t) for t in range(times)]).mean(0)
        return self.out(torch.cat([self.a(a), z], 1).tanh())


@pytest.mark.parametrize(
    ("counts", "words"),
    [((3, 2), "the encoder of v ran 3 times, and 2 when"), ((2, 3), "ran 2 times, and more often")],
)
def test_encoders_that_run_more_or_less_often_are_refused(
    counts: tuple[int, int], words: str
) -> None:
    model = Uneven()
    model.counts = counts
    balancer = balanced(model)
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=words):
        balancer.loss(model(*inputs), target)
    assert "forward" not in vars(model.v)
    balancer.detach()
    balanced(model, scores=eq.Probe()).loss(model(*inputs), target)


def test_what_is_changed_in_place_is_refused() -> None:
    class Adding(Model):
        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            z = self.a(a)
            z += 1
            return self.out(torch.cat([z, self.v(v)], 1).tanh())

    class Scaling(Model):
        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            return super().forward(a.mul_(2), v)

    *inputs, target = batch()
    for kind, words in ((Adding, "encoder of a returned was changed"), (Scaling, "model's inputs")):
        model = kind()
        balancer = balanced(model)
        with pytest.raises(eq.MatchError, match=words):
            balancer.loss(model(*inputs), target)


class Swapped(Model):
    """The logits change places between the modes, and nothing but the layers tells."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(16, 3)

    def forward(self, a: Tensor, v: Tensor) -> Any:
        z = torch.cat([self.a(a), self.v(v)], 1).tanh()
        logits, extra = self.out(z), self.extra(z)
        return [extra, logits] if self.training else [logits, extra]


def test_the_place_of_the_logits_is_that_of_each_mode() -> None:
    model = Swapped()
    balancer = balanced(model)
    *inputs, target = batch()
    balancer.loss(model(*inputs)[1], target)
    model.eval()
    with torch.no_grad():
        assert torch.equal(balancer.evaluate(*inputs)[0], model(*inputs)[0])
        singles = balancer.unimodal_logits(*inputs)
        z = torch.cat([model.a(inputs[0]), torch.zeros(6, 8)], 1).tanh()
        torch.testing.assert_close(singles["a"], model.out(z))


def test_logits_that_nothing_places_in_the_other_mode_are_refused() -> None:
    class Joined(Swapped):
        def forward(self, a: Tensor, v: Tensor) -> Any:
            first, second = super().forward(a, v)
            return (first, second) if self.training else (first + second, second - first)

    model = Joined()
    balancer = balanced(model)
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"in evaluation mode 2 tensors.*at the same place"):
        balancer.loss(model(*inputs)[1], target)


def test_several_calls_are_read_alike_without_gradients() -> None:
    model = Uneven()
    model.counts = (3, 3)
    balancer = balanced(model)
    *inputs, target = batch()
    with torch.no_grad():
        before = balancer.unimodal_logits(*inputs)
    assert not any(logits.requires_grad for logits in before.values())
    balancer.loss(model(*inputs), target)
    with torch.no_grad():
        after = balancer.unimodal_logits(*inputs)
        z = torch.stack([model.v(inputs[1] + t) for t in range(3)]).mean(0)
        by_hand = model.out(torch.cat([torch.zeros(6, 8), z], 1).tanh())
    for found in (before, after):
        torch.testing.assert_close(found["v"], by_hand)


def test_calls_by_hand_do_not_pile_up() -> None:
    """Encoders that are trained alone for a while, with the balancer attached."""
    model = Model()
    balancer = balanced(model)
    (optimizer,) = balancer.optimizers
    for _ in range(5):
        model.a(batch()[0]).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            model.v(batch()[1])
    assert sum(len(calls) for calls in balancer.attached.recorder._calls.values()) <= 2


def test_frames_folded_into_the_batch_are_named_where_each_sample_counts() -> None:
    class Folded(Model):
        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            z = self.v(v.flatten(0, 1)).view(6, 4, 8).mean(1)
            return self.out(torch.cat([self.a(a), z], 1).tanh())

    a, _, target = batch()
    v = torch.randn(6, 4, 8)
    model = Folded()
    balancer = balanced(model, scores=eq.Ablation())
    balancer.backward(balancer.loss(model(a, v), target))  # zeros need no samples
    balancer.detach()
    with pytest.raises(eq.MatchError, match=r"feature of v has shape \(24, 8\).*6 samples"):
        probed = balanced(model, scores=eq.Probe())
        probed.loss(model(a, v), target)
