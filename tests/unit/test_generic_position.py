"""What a head is, whatever its weights are now and however many samples the first batch has."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import equimodal as eq
from equimodal.attach.features import Concatenated, Inputs, Separate
from equimodal.scores.generic import Structure, ask
from equimodal.scores.question import Question

WIDTH = 6
SEPARATE = Separate({"audio": (0, 0), "visual": (0, 1)})
TOGETHER = Concatenated((0, 0), 1, {"audio": (0, WIDTH), "visual": (WIDTH, WIDTH)})


class Head(nn.Module):
    """A head whose forward is a function of itself and its inputs."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def linear(width: int = 2 * WIDTH, classes: int = 3) -> nn.Linear:
    return nn.Linear(width, classes)


def film(self: Any, a: Tensor, v: Tensor) -> Tensor:
    scale, shift = self.film(a).chunk(2, dim=1)
    return self.out(scale * v + shift)


def tensor_fusion(self: Any, a: Tensor, v: Tensor) -> Tensor:
    one, other = (F.pad(z, (0, 1), value=1.0) for z in (a, v))
    return self.out((one[:, :, None] * other[:, None]).flatten(1))


def number() -> nn.Parameter:
    return nn.Parameter(torch.zeros(()))


def mlp() -> nn.Module:
    return nn.Sequential(linear(), nn.ReLU(), linear(3))


# By the name: whether it is affine; the order where one layer is given the features; the modalities
# that zeros in place of the others silence.
HEADS: dict[str, tuple[Callable[[], nn.Module], Any, tuple[Any, ...]]] = {
    "linear": (linear, TOGETHER, (True, ("audio", "visual"))),
    "linear in a module": (lambda: nn.Sequential(nn.Identity(), linear()), TOGETHER,
                           (True, ("audio", "visual"))),
    "joined in another order": (
        lambda: Head(lambda s, a, v: s.out(torch.cat([v, a], 1)), out=linear()), SEPARATE,
        (True, ("visual", "audio"))),
    "frozen": (lambda: linear().requires_grad_(False), TOGETHER, (True, ("audio", "visual"))),
    "half precision": (lambda: linear().half(), TOGETHER, (True, ("audio", "visual"))),
    "single precision inside": (
        lambda: Head(lambda s, x: F.linear(x.float(), s.out.weight.float()), out=linear()),
        TOGETHER, (True, None)),
    "autocast inside": (
        lambda: Head(lambda s, x: autocast(s.out, x), out=linear()), TOGETHER,
        (True, ("audio", "visual"))),
    "sum of layers": (
        lambda: Head(lambda s, a, v: s.p(a) + s.q(v), p=linear(WIDTH), q=linear(WIDTH)), SEPARATE,
        (True, None)),
    "mean of layers and a bias": (
        lambda: Head(lambda s, a, v: (s.p(a) + s.q(v)) / 2 + s.b, p=linear(WIDTH),
                     q=linear(WIDTH), b=number()), SEPARATE, (True, None)),
    "layer on a sum": (lambda: Head(lambda s, a, v: s.out(a + v), out=linear(WIDTH)), SEPARATE,
                       (True, None)),
    "two layers": (lambda: nn.Sequential(linear(), linear(3)), TOGETHER, (True, None)),
    "scaled after": (lambda: Head(lambda s, x: s.out(x) * s.t, out=linear(), t=number()), TOGETHER,
                     (True, None)),
    "weight norm, by hooks": (lambda: torch.nn.utils.weight_norm(linear()), TOGETHER, (True, None)),
    "weight norm": (lambda: parametrizations.weight_norm(linear()), TOGETHER, (True, None)),
    "spectral norm": (lambda: parametrizations.spectral_norm(linear()), TOGETHER, (True, None)),
    "normalised": (
        lambda: Head(lambda s, a, v: s.out(F.normalize(torch.cat([a * 30, v], 1))), out=linear()),
        SEPARATE, (False, None)),
    "a branch behind a gate that is closed": (
        lambda: Head(lambda s, x: s.out(x) + s.gate * s.mlp(x), out=linear(), mlp=mlp(),
                     gate=number()), TOGETHER, (False, None)),
    "a gate that is a buffer": (lambda: with_buffer(), TOGETHER, (False, None)),
    "rare dropout": (lambda: nn.Sequential(nn.Dropout(0.001), linear()), TOGETHER, (False, None)),
    "noise of Python's": (
        lambda: Head(lambda s, x: s.out(x) * (random.random() > -1), out=linear()),
        TOGETHER, (False, None)),
    "batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(2 * WIDTH), linear()), TOGETHER,
                   (False, None)),
    "log-softmax": (lambda: nn.Sequential(linear(), nn.LogSoftmax(1)), TOGETHER, (False, None)),
    "tanh": (lambda: nn.Sequential(linear(), nn.Tanh()), TOGETHER, (False, None)),
    "deep": (mlp, TOGETHER, (False, None)),
    "rectified before": (
        lambda: Head(lambda s, a, v: s.p(a.relu()) + s.q(v.relu()), p=linear(WIDTH),
                     q=linear(WIDTH)), SEPARATE, (False, None)),
    "logarithm": (lambda: Head(lambda s, x: s.out((x + s.b.square()).log()), out=linear(),
                               b=number()), TOGETHER, (False, None)),
    "gate": (
        lambda: Head(lambda s, a, v: s.out(s.x(a).sigmoid() * s.y(v)), x=linear(WIDTH, 4),
                     y=nn.Linear(WIDTH, 4, bias=False), out=linear(4)), SEPARATE,
        (False, None, "audio")),
    "gate with biases": (
        lambda: Head(lambda s, a, v: s.out(s.x(a).sigmoid() * s.y(v)), x=linear(WIDTH, 4),
                     y=linear(WIDTH, 4), out=linear(4)), SEPARATE, (False, None)),
    "FiLM": (lambda: Head(film, film=linear(WIDTH, 2 * WIDTH), out=linear(WIDTH)), SEPARATE,
             (False, None)),
    "product": (lambda: Head(lambda s, a, v: s.out(a * v), out=linear(WIDTH)), SEPARATE,
                (False, None, "audio", "visual")),
    "bilinear": (lambda: Head(lambda s, a, v: s.out(a, v), out=nn.Bilinear(WIDTH, WIDTH, 3)),
                 SEPARATE, (False, None, "audio", "visual")),
    "tensor fusion": (lambda: Head(tensor_fusion, out=linear((WIDTH + 1) ** 2)), SEPARATE,
                      (False, None)),
    "GRU": (
        lambda: Head(lambda s, a, v: s.out(s.gru(torch.stack([a, v], 1))[0][:, -1]),
                     gru=nn.GRU(WIDTH, 4, batch_first=True), out=linear(4)), SEPARATE,
        (False, None)),
    "attention": (
        lambda: Head(lambda s, a, v: s.out(s.layer(torch.stack([a, v], 1)).mean(1)),
                     layer=nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True),
                     out=linear(WIDTH)), SEPARATE, (False, None)),
    "keeps state": (lambda: Head(remembering, out=linear(), seen=[]), TOGETHER, (False, None)),
}  # fmt: skip


def autocast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result: Tensor = layer(x)
    return result


def with_buffer() -> nn.Module:
    head = Head(lambda s, x: s.out(x) + s.gate * s.mlp(x), out=linear(), mlp=mlp())
    head.register_buffer("gate", torch.zeros(()))
    return head


def remembering(self: Any, x: Tensor) -> Tensor:
    self.seen.append(x)
    self.latest = x
    logits: Tensor = self.out(x) * len(self.seen)
    return logits.tanh()


def question(head: nn.Module, layout: Any, samples: int) -> Question:
    dtype = next(head.parameters()).dtype
    if layout is TOGETHER:
        inputs: Inputs = ((torch.randn(samples, 2 * WIDTH, dtype=dtype),), {})
    else:  # what one encoder returns is zero throughout: its ReLU is dead in this batch
        inputs = ((torch.zeros(samples, WIDTH), torch.randn(samples, WIDTH)), {})

    def run(given: Inputs) -> Any:
        return head(*given[0], **given[1])

    return Question("Head", tuple(head.modules()), layout, inputs, {True: (), False: ()}, run)


def told(structure: Structure) -> tuple[Any, ...]:
    order = None if structure.linear is None else structure.linear[1]
    return (structure.affine, order, *structure.silenced)


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm:FutureWarning")
@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_told_from_its_function(name: str, zeros: bool, samples: int) -> None:
    torch.manual_seed(0)
    make, layout, expected = HEADS[name]
    head = make()
    with torch.no_grad():
        for parameter in head.parameters() if zeros else ():
            parameter.zero_()
    asked = question(head, layout, samples)
    attributes = [(module, module.__dict__, dict(module.__dict__)) for module in head.modules()]
    values = {key: value.clone() for key, value in head.state_dict().items()}
    given = [value.clone() for value in asked.inputs[0]]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert told(ask(asked)) == expected
    for module, own, entries in attributes:
        assert module.__dict__ is own
        assert list(own) == list(entries)
        assert all(own[key] is entries[key] for key in own)
        assert module.training
        assert not module._forward_hooks
    assert all(torch.equal(value, values[key]) for key, value in head.state_dict().items())
    assert getattr(head, "seen", []) == []
    assert all(torch.equal(a, b) for a, b in zip(asked.inputs[0], given, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


def test_not_a_number_in_the_first_batch_says_nothing() -> None:
    asked = question(linear(), TOGETHER, 4)
    asked.inputs[0][0].fill_(torch.nan)
    assert told(ask(asked)) == (True, ("audio", "visual"))


def test_a_mask_on_classes_is_no_affine_map() -> None:
    """Minus infinity less minus infinity is no number."""
    mask = torch.tensor([0.0, 0.0, -torch.inf])
    head = Head(lambda s, x: s.out(x) + mask.to(x), out=linear())
    assert told(ask(question(head, TOGETHER, 4))) == (False, None)


def test_a_head_that_never_gives_a_number_cannot_be_asked() -> None:
    head = Head(lambda s, x: s.out(x) * torch.nan, out=linear())
    with pytest.raises(eq.MatchError, match=r"cannot be asked.*not finite.*give scores="):
        ask(question(head, TOGETHER, 4))


def test_a_head_that_takes_single_precision_alone_is_asked_in_it() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError(f"float32 wanted, {x.dtype} found")
        logits: Tensor = self.out(x)
        return logits

    made = [Head(forward, out=linear()), Head(lambda s, x: forward(s, x).tanh(), out=linear())]
    assert [ask(question(head, TOGETHER, 4)).affine for head in made] == [True, False]


def test_a_head_that_checks_its_inputs_is_refused_with_its_reason() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if not bool((x.norm(dim=1) == 1).all()):
            raise ValueError("expected unit vectors")
        logits: Tensor = self.out(x)
        return logits

    with pytest.raises(eq.MatchError, match=r"ValueError: expected unit vectors"):
        ask(question(Head(forward, out=linear()), TOGETHER, 4))


def test_large_parameters_share_their_numbers_and_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("equimodal.scores.numbers.LARGE", 4)
    for name in ("linear", "sum of layers", "deep", "product", "weight norm"):
        make, layout, expected = HEADS[name]
        assert told(ask(question(make(), layout, 4))) == expected
