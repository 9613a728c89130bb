"""What a user can say in one line: heads in a row, heads on a sum, raw parameters, methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq

METHODS = [eq.OGM, eq.OGMGE, eq.AGM, eq.MMPareto, eq.ModalityDropout]


class Fuse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 8)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.mix(torch.cat([a, v], 1)).relu()


class Rows(nn.Module):
    """Three modules in a row, called one by one, or as one module, or with something between."""

    def __init__(self, way: str = "row") -> None:
        super().__init__()
        self.a, self.v = nn.Linear(4, 8), nn.Linear(5, 8)
        self.fuse, self.norm, self.classifier = Fuse(), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.way = way
        if way == "one":
            self.head = One(self.fuse, self.norm, self.classifier)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        z = self.a(a), self.v(v)
        if self.way == "one":
            return self.head(*z)
        fused = self.norm(self.fuse(*z))
        if self.way == "in place":
            fused += 1
        return self.classifier(fused.tanh() if self.way == "activation" else fused)

    @property
    def row(self) -> list[nn.Module]:
        return [self.fuse, self.norm, self.classifier]


class One(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        z = self.parts[0](a, v)
        for part in self.parts[1:]:
            z = part(z)
        return z


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (9,), generator=generator)
    a = torch.randn(9, 4, generator=generator, dtype=torch.float64) + 2 * target[:, None]
    return a, torch.randn(9, 5, generator=generator, dtype=torch.float64), target


def trained(model: Any, head: Any, method: eq.Method, encoders: Any = None, **more: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = encoders or {"a": model.a, "v": model.v}
    balancer = eq.Balancer(method, model, encoders, head, optimizer, track_every=1, **more)
    for seed in range(3):
        *inputs, target = batch(seed)
        balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    return balancer


def made(make: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    return make().double()


def same(one: nn.Module, other: nn.Module) -> None:
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", METHODS)
def test_modules_in_a_row_are_one_head(kind: type[eq.Method]) -> None:
    row, one = made(Rows), made(lambda: Rows("one"))
    first = trained(row, row.row, kind())
    second = trained(one, one.head, kind())
    same(row, one)
    assert first.metrics() == pytest.approx(second.metrics())
    assert str(first.attached.layout) == str(second.attached.layout)
    assert torch.equal(row.norm.running_mean, one.norm.running_mean)


def test_a_row_by_name_is_checked_and_forked_and_leaves_nothing() -> None:
    model = made(Rows)
    names = ["fuse", "norm", "classifier"]
    balancer = trained(model, names, eq.OGM(0.8))
    assert balancer.attached.described()["head"] == names
    assert "head    Chain" in str(balancer.check(batch()))
    model.eval()
    assert not balancer.attached.recorder.boundary.training
    balancer.detach()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("way", ["activation", "in place"])
def test_a_row_with_something_between_is_refused(way: str) -> None:
    model = made(lambda: Rows(way))
    words = r"between BatchNorm1d and Linear the forward does more.*one module.*head=None"
    with pytest.raises(eq.MatchError, match=words):
        trained(model, model.row, eq.OGM(0.8))
    same_model = made(lambda: Rows(way))
    trained(same_model, None, eq.OGM(0.8))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ([], "head is empty"),
        (["fuse", "fuse"], "stands twice"),
        (["fuse", "clasifier"], r"head\[1\].*did you mean 'classifier'"),
        (["fuse", "a"], r"encoders\['a'\]"),
    ],
)
def test_rows_that_make_no_sense_are_refused(head: Any, words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        trained(made(Rows), head, eq.OGM(0.8))


def test_a_module_of_a_row_that_also_runs_alone_is_no_head_then() -> None:
    class Twice(Rows):
        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            self.extra = self.classifier(self.a(a))
            logits = super().forward(a, v)
            self.classifier(self.v(v))
            return logits

    twice, once = made(Twice), made(Rows)
    trained(twice, twice.row, eq.OGM(0.8))
    trained(once, once.row, eq.OGM(0.8))
    same(twice, once)


class Sums(nn.Module):
    def __init__(self, way: str = "a + v") -> None:
        super().__init__()
        self.a, self.v, self.out = nn.Linear(4, 8), nn.Linear(5, 8), nn.Linear(8, 3)
        self.way = way

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        x, y = self.a(a), self.v(v)
        if self.way == "by layers":
            return self.out(x) + self.out(y) - self.out.bias
        fused = {
            "a + v": lambda: x + y,
            "v + a": lambda: y + x,
            "in place": lambda: (x + 0).add_(y),
            "torch.add": lambda: torch.add(y, x),
            "a + v / 2": lambda: torch.add(x, y, alpha=0.5),
            "a + v + a": lambda: x + y + x,
            "mean": lambda: (x + y) / 2,
            "max": lambda: torch.maximum(x, y),
            "a - v": lambda: x - y,
            "a * v": lambda: x * y,
        }[self.way]()
        return self.out(fused)


@pytest.mark.parametrize("way", ["a + v", "v + a", "torch.add"])
@pytest.mark.parametrize("kind", METHODS)
def test_a_head_on_a_plain_sum_is_found(way: str, kind: type[eq.Method]) -> None:
    class Head(nn.Module):
        def __init__(self, out: nn.Linear) -> None:
            super().__init__()
            self.out = out

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.out(x + y)

    class Plain(Sums):
        def __init__(self) -> None:
            super().__init__()
            self.head = Head(self.out)

        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            return self.head(self.a(a), self.v(v))

    sums, plain = made(lambda: Sums(way)), made(Plain)
    found = trained(sums, sums.out, kind(), scores=eq.Ablation())
    told = trained(plain, plain.head, kind(), scores=eq.Ablation())
    same(sums, plain)
    assert found.metrics() == pytest.approx(told.metrics())


@pytest.mark.parametrize(
    "way", ["in place", "a + v / 2", "a + v + a", "mean", "max", "a - v", "a * v"]
)
def test_anything_but_a_plain_sum_is_told_to_go_without_a_head(way: str) -> None:
    model = made(lambda: Sums(way))
    with pytest.raises(eq.MatchError, match="head=None"):
        trained(model, model.out, eq.OGM(0.8))
    again = made(lambda: Sums(way))
    trained(again, None, eq.OGM(0.8))


def test_a_frozen_summand() -> None:
    model = made(Sums)
    model.v.requires_grad_(False)
    balancer = trained(model, model.out, eq.OGM(0.8, modalities=["a"]), scores=eq.Ablation())
    assert str(balancer.attached.layout) in ("a + v as argument 0", "v + a as argument 0")


class Tokens(nn.Module):
    """A modality's own token is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.v, self.out = nn.Linear(4, 8), nn.Linear(5, 8), nn.Linear(16, 3)
        self.token = nn.Parameter(torch.randn(1, 8))
        self.scale = nn.Parameter(torch.ones(1, 8))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.out(torch.cat([self.a(a) * self.scale + self.token, self.v(v)], 1))


@pytest.mark.parametrize("how", ["object", "name"])
def test_a_raw_parameter_gets_the_coefficient_of_its_modality(how: str) -> None:
    model = made(Tokens)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    token = model.token if how == "object" else "token"
    encoders = {"a": [model.a, token], "v": model.v}
    balancer = eq.Balancer(eq.OGM(0.8), model, encoders, model.out, optimizer, track_every=1)
    *inputs, target = batch()
    balancer.backward(balancer.loss(model(*inputs), target))
    before = {n: p.grad.clone() for n, p in model.named_parameters()}
    balancer.modulate()
    factor = balancer.metrics()["coefficient/a"]
    assert factor < 1
    for name in ("token", "a.weight"):
        torch.testing.assert_close(model.get_parameter(name).grad, before[name] * factor)
    for name in ("scale", "v.weight", "out.weight"):
        assert torch.equal(model.get_parameter(name).grad, before[name])
    assert balancer.attached.described()["encoders"] == {"a": ["a", "token"], "v": ["v"]}


def test_a_raw_parameter_that_lives_elsewhere_too_is_shared() -> None:
    model = made(Tokens)
    model.v.token = model.token
    modalities = eq.modalities.Modalities(model, {"a": [model.a, "token"], "v": model.v})
    assert modalities.shared == ("token",)
    other = made(Tokens)
    both = eq.modalities.Modalities(other, {"a": ["a", "token"], "v": ["v", "token"]})
    assert both.shared == ("token",)


def test_a_parameter_of_another_model_is_refused() -> None:
    model, other = made(Tokens), made(Tokens)
    with pytest.raises(eq.SetupError, match=r"encoders\['a'\].*shape \(1, 8\) is none of Tokens"):
        trained(model, model.out, eq.OGM(), {"a": [model.a, other.token], "v": model.v})


class Embedded(nn.Module):
    """One modality is nothing but parameters: a prompt that is learnt for the whole task."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt, self.v = nn.Parameter(torch.randn(4, 8)), nn.Linear(5, 8)
        self.head = Fuse()
        self.head.mix = nn.Linear(16, 3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(a @ self.prompt, self.v(v))


def test_an_encoder_may_be_a_parameter_alone() -> None:
    model = made(Embedded)
    balancer = trained(model, model.head, eq.OGM(0.8), {"a": "prompt", "v": "v"})
    assert str(balancer.attached.layout) == "a from argument 0, v from argument 1"
    again = made(Embedded)
    with pytest.raises(eq.MatchError, match=r"encoders\['a'\] is a parameter alone"):
        trained(again, None, eq.OGM(0.8), {"a": "prompt", "v": "v"})


class Extractor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(5, 8)

    def extract(self, x: Tensor) -> Tensor:
        return self.trunk(x).tanh()


class ByMethod(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.v, self.head = nn.Linear(4, 8), Extractor(), Fuse()
        self.head.mix = nn.Linear(16, 3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(self.a(a), self.v.extract(v))


def test_an_encoder_that_is_called_by_a_method_is_found_by_its_parameters() -> None:
    model, told = made(ByMethod), made(ByMethod)
    found = trained(model, model.head, eq.OGM(0.8))
    trained(told, told.head, eq.OGM(0.8), {"a": told.a, "v": told.v.trunk})
    same(model, told)
    assert found.metrics()["coefficient/a"] < 1
    without = made(ByMethod)
    with pytest.raises(eq.MatchError, match=r"encoder of v \(Extractor\).*calls a method of it"):
        trained(without, None, eq.OGM(0.8))
    within = made(ByMethod)
    trained(within, None, eq.OGM(0.8), {"a": within.a, "v": within.v.trunk})
