"""What a stranger's loop, head, encoder or criterion does that ours do not: right, or refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equimodal as eq

ALPHA, BATCH, WIDTH, CLASSES = 0.5, 8, 6, 3


class Net(nn.Module):
    """Two encoders of two layers and a head."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.video = nn.Sequential(nn.Linear(5, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.head = head or nn.Linear(2 * WIDTH, CLASSES)

    def features(self, audio: Tensor, video: Tensor) -> list[Tensor]:
        return [self.audio(audio), self.video(video)]

    def fuse(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(torch.cat(features, dim=1))
        return logits

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        return self.fuse(self.features(audio, video))


def batches(count: int = 4) -> list[tuple[Tensor, Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [
        (
            2 * torch.randn(BATCH, 4, generator=draws),
            torch.randn(BATCH, 5, generator=draws),
            torch.randint(CLASSES, (BATCH,), generator=draws),
        )
        for _ in range(count)
    ]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def made(kind: Callable[[], Net], seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return kind()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)


def balanced(
    model: Net, method: eq.Method | None = None, make: Any = sgd, **settings: Any
) -> tuple[eq.Balancer, torch.optim.Optimizer]:
    optimizer = make(model)
    method = method or eq.OGM(ALPHA, parameters="all")
    encoders = {"audio": model.audio, "video": model.video}
    head = settings.pop("head", model.head)
    return eq.Balancer(method, model, encoders, head, optimizer, **settings), optimizer


def trained(model: Net, method: eq.Method | None = None, **settings: Any) -> Tensor:
    balancer, optimizer = balanced(model, method, **settings)
    for audio, video, target in batches():
        balancer.backward(balancer.loss(model(audio, video), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


@torch.no_grad()
def coefficients(model: Net, features: list[Tensor], losses: Any, affine: bool) -> list[float]:
    """OGM's, of features that were taken in the forward."""
    scores = []
    nothing = [torch.zeros_like(z) for z in features]
    for index, feature in enumerate(features):
        alone = model.fuse([feature if i == index else z for i, z in enumerate(nothing)])
        alone = alone - model.fuse(nothing) / 2 if affine else alone
        scores.append((-losses(alone)).exp().sum().item())
    ratios = [scores[0] / scores[1], scores[1] / scores[0]]
    return [1 - math.tanh(ALPHA * ratio) if ratio > 1 else 1.0 for ratio in ratios]


def by_hand(
    model: Net,
    criterion: Any = F.cross_entropy,
    each: Any = None,
    affine: bool = True,
    targets: Callable[[Tensor], Any] = lambda target: target,
) -> Tensor:
    """Train with OGM in gradient space, as a user would write it down."""
    optimizer = sgd(model)
    each = each or (lambda logits, target: F.cross_entropy(logits, target, reduction="none"))
    for audio, video, labels in batches():
        target = targets(labels)
        features = model.features(audio, video)
        criterion(model.fuse(features), target).backward()
        detached = [z.detach() for z in features]
        factors = coefficients(model, detached, lambda u, t=target: each(u, t), affine)
        for factor, encoder in zip(factors, (model.audio, model.video), strict=True):
            for parameter in encoder.parameters():
                assert parameter.grad is not None
                parameter.grad *= factor
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


# ------------------------------------------------------- gradients of some layers are cleared


def without(model: Net) -> None:
    for layer in (model.audio[0], model.video[0], model.head):
        layer.weight.grad = None


def zeroed(model: Net) -> None:
    for layer in (model.audio[0], model.video[0], model.head):
        assert isinstance(layer, nn.Linear)
        assert layer.weight.grad is not None
        layer.weight.grad.zero_()


@pytest.mark.parametrize("clear", [without, zeroed])
@pytest.mark.parametrize("space", ["gradient", "update"])
def test_a_layer_that_the_loop_leaves_out_takes_nothing_else_with_it(
    clear: Callable[[Net], None], space: str
) -> None:
    """Cleared after modulate, before it, and between the micro-batches of a step."""
    adam: Any = lambda model: torch.optim.Adam(model.parameters(), 0.01)  # noqa: E731
    first, second = batches(2)

    def update(where: str) -> Tensor:
        model = made(Net)
        method = eq.OGM(ALPHA, parameters="all", space=space)  # type: ignore[arg-type]
        balancer, optimizer = balanced(model, method, adam if space == "update" else sgd)
        start = weights(model)
        for audio, video, target in (first, second):
            balancer.backward(balancer.loss(model(audio, video), target))
            if where == "between":
                clear(model)
        if where == "before":
            clear(model)
        balancer.modulate()
        if where == "after":
            clear(model)
        optimizer.step()
        moved = weights(model) - start
        sizes = [p.numel() for p in model.parameters()]
        left = {id(layer.weight) for layer in (model.audio[0], model.video[0], model.head)}
        kept = [
            part
            for part, p in zip(torch.split(moved, sizes), model.parameters(), strict=True)
            if id(p) not in left
        ]
        return torch.cat(kept)

    truth = update("nowhere")
    for where in ("after", "before", "between"):
        torch.testing.assert_close(update(where), truth, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("to_none", [True, False])
def test_all_layers_cleared_are_gone_all_the_same(to_none: bool) -> None:
    first, second = batches(2)

    def update(dropped: bool) -> Tensor:
        model = made(Net)
        balancer, optimizer = balanced(model)
        for audio, video, target in (first, second) if dropped else (second,):
            optimizer.zero_grad(set_to_none=to_none)
            balancer.backward(balancer.loss(model(audio, video), target))
        balancer.modulate()
        optimizer.step()
        return weights(model)

    torch.testing.assert_close(update(True), update(False), rtol=0, atol=0)


# ------------------------------------------------------- what a separate pass does not come to


class Checkpointed(nn.Module):
    def __init__(self, module: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.module, self.reentrant = module, reentrant

    def forward(self, x: Tensor) -> Any:
        if self.reentrant and not x.requires_grad:
            x = x.clone().requires_grad_()
        return checkpoint(self.module, x, use_reentrant=self.reentrant)


def checkpointed(reentrant: bool, partly: bool = False) -> Net:
    model = Net()
    model.audio = nn.Sequential(Checkpointed(model.audio[:2], reentrant), model.audio[2])
    if not partly:
        model.video = nn.Sequential(Checkpointed(model.video, reentrant))
    return model


@pytest.mark.parametrize("method", [eq.AGM, eq.MMPareto])
@pytest.mark.parametrize("partly", [True, False])
def test_separate_passes_refuse_reentrant_checkpointing(method: Any, partly: bool) -> None:
    with pytest.raises(eq.StepError, match="use_reentrant=False"):
        trained(made(lambda: checkpointed(True, partly)), method())
    of_checkpointed = trained(made(lambda: checkpointed(False, partly)), method())
    torch.testing.assert_close(of_checkpointed, trained(made(Net), method()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [eq.OGM, eq.MultiLoss, eq.MLA, eq.DGL])
def test_one_pass_goes_through_reentrant_checkpointing(method: Any) -> None:
    of_checkpointed = trained(made(lambda: checkpointed(True)), method())
    torch.testing.assert_close(of_checkpointed, trained(made(Net), method()), rtol=1e-5, atol=1e-6)


def test_agm_in_one_pass_goes_through_reentrant_checkpointing() -> None:
    runs = [made(lambda r=r: checkpointed(r)) for r in (True, False)]  # type: ignore[misc]
    first, second = (trained(model, eq.AGM(), micro_batches=1) for model in runs)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def deep() -> nn.Module:
    return nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", [eq.DGL, eq.MCR])
def test_heads_run_with_other_parameters_are_not_recomputed_with_their_own(
    reentrant: bool, method: Any
) -> None:
    with pytest.raises(eq.StepError, match="leave the head out of checkpointing"):
        trained(made(lambda: Net(Checkpointed(deep(), reentrant))), method())


@pytest.mark.parametrize("method", [eq.AGM, eq.MMPareto])
def test_hooks_on_parameters_are_followed_where_they_are_linear(method: Any) -> None:
    """With a linear head AGM scales the gradients that are there, whatever hooks made of them."""

    def net() -> nn.Module:
        return Net(deep()) if method is eq.AGM else Net()

    def hooked(hook: Callable[[Tensor], Tensor | None]) -> Tensor:
        model = made(net)
        for parameter in model.parameters():
            parameter.register_hook(hook)  # type: ignore[no-untyped-call]
        return trained(model, method())

    plain = trained(made(net), method())
    torch.testing.assert_close(hooked(lambda g: None), plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hooked(lambda g: 1.0 * g), plain, rtol=1e-5, atol=1e-6)
    for hook in (lambda g: g.clamp(-0.01, 0.01), torch.sign):
        with pytest.raises(eq.StepError, match="hooks on parameters"):
            hooked(hook)


@pytest.mark.parametrize("method", [eq.AGM, eq.MMPareto, eq.OGM])
def test_stepping_within_the_backward_pass_is_said(method: Any) -> None:
    model = made(Net)

    def step(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.data.sub_(0.1 * parameter.grad)
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)  # type: ignore[no-untyped-call]
    with pytest.warns(eq.BalanceWarning, match="no gradient reached encoders"):
        trained(model, method())


# ------------------------------------------------------- heads and encoders


class Upcast(nn.Module):
    """Takes whatever precision, and has one of its own."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.out = dtype, nn.Linear(2 * WIDTH, CLASSES).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(x.to(self.dtype)).float()
        return logits


def test_a_head_that_casts_by_itself_is_split() -> None:
    make = lambda: Net(Upcast(torch.float64))  # noqa: E731
    torch.testing.assert_close(trained(made(make)), by_hand(made(make)), rtol=1e-5, atol=1e-6)


class Stacked(Net):
    """Features as tokens, one for each modality, in another order than the encoders."""

    dim = 1

    def fuse(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(torch.stack(features[::-1], dim=self.dim))
        return logits


class StackedLast(Stacked):
    dim = 2


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.across = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.across(x, x, x, need_weights=False)[0].mean(1))


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(1), nn.Linear(2 * WIDTH, CLASSES))


@pytest.mark.parametrize(
    ("make", "affine"),
    [
        (lambda: Stacked(flat()), True),
        (lambda: StackedLast(flat()), True),
        (lambda: Stacked(Tokens()), False),
    ],
)
def test_stacked_features_are_told_apart(make: Callable[[], Net], affine: bool) -> None:
    truth = by_hand(made(make), affine=affine)
    torch.testing.assert_close(trained(made(make)), truth, rtol=1e-5, atol=1e-6)
    places = {"audio": slice(1, 2), "video": slice(0, 1)}
    torch.testing.assert_close(trained(made(make), features=places), truth, rtol=1e-5, atol=1e-6)


class Mapped(Net):
    def features(self, audio: Tensor, video: Tensor) -> list[Tensor]:
        return [torch.func.vmap(self.audio)(audio), self.video(video)]


def test_an_encoder_under_vmap_is_found_by_its_parameters() -> None:
    torch.testing.assert_close(trained(made(Mapped)), by_hand(made(Net)), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------- criteria


class Following(nn.Module):
    """Class weights that follow the labels it has seen, in place or not."""

    def __init__(self, in_place: bool, reduced: bool) -> None:
        super().__init__()
        self.in_place, self.calls = in_place, 0
        if reduced:
            self.reduction = "mean"
        self.weight: Tensor
        self.register_buffer("weight", torch.ones(CLASSES))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        seen = F.one_hot(target, CLASSES).float().sum(0)
        if self.in_place:
            self.weight.mul_(0.9).add_(0.1 * seen.detach())
        else:
            self.weight = 0.9 * self.weight + 0.1 * seen.detach()
        self.calls += 1
        losses = F.cross_entropy(logits, target, self.weight.clone(), reduction="none")
        return losses if getattr(self, "reduction", "mean") == "none" else losses.mean()


@pytest.mark.filterwarnings("ignore:the criterion Following is")  # a sample alone moves it too
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("method", [eq.OGM, eq.MultiLoss, eq.DGL])
def test_a_criterion_follows_the_calls_of_the_loop_alone(
    in_place: bool, reduced: bool, method: Any
) -> None:
    criterion, alone = (Following(in_place, reduced) for _ in range(2))
    if (
        in_place and not reduced and method is eq.OGM
    ):  # reads samples alone; vmap writes into no tensor from outside
        with pytest.raises(eq.MatchError, match="reduction"):
            trained(made(Net), method(), criterion=criterion)
        return
    trained(made(Net), method(), criterion=criterion)
    for _, _, target in batches():
        alone(torch.zeros(BATCH, CLASSES), target)
    assert criterion.calls == alone.calls == len(batches())
    torch.testing.assert_close(criterion.weight, alone.weight)


class Scheduled(nn.Module):
    """Its settings change during training, as by ``set_epoch``."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction, self.sharpness = "mean", 1.0

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(self.sharpness * logits, target, reduction=self.reduction)


def test_settings_of_a_criterion_are_those_of_the_moment() -> None:
    runs = []
    for late in (True, False):
        model, criterion = made(Net), Scheduled()
        balancer, _ = balanced(model, criterion=criterion)
        audio, video, target = batches(1)[0]
        if late:
            balancer.loss(model(audio, video), target)  # it has been read before
        criterion.sharpness = 5.0
        balancer.backward(balancer.loss(model(audio, video), target))
        balancer.modulate()
        runs.append(balancer.metrics()["ratio/audio"])
    assert runs[0] == pytest.approx(runs[1], rel=1e-6)


def mixed(target: Tensor) -> Any:
    return target, target.flip(0), 0.3


def described(target: Tensor) -> Any:
    return {"label": target, "weight": torch.linspace(0.5, 1.5, BATCH), "names": "all"}


def elements(logits: Tensor, target: Any) -> Any:
    if isinstance(target, dict):
        return F.cross_entropy(logits, target["label"], reduction="none") * target["weight"]
    first, second = (F.cross_entropy(logits, t, reduction="none") for t in target[:2])
    return target[2] * first + (1 - target[2]) * second


@pytest.mark.parametrize("targets", [mixed, described])
def test_targets_of_several_parts_are_read_per_sample(targets: Callable[[Tensor], Any]) -> None:
    criterion: Any = lambda logits, target: elements(logits, target).mean()  # noqa: E731
    model = made(Net)
    balancer, optimizer = balanced(model, criterion=criterion)
    for audio, video, target in batches():
        balancer.backward(balancer.loss(model(audio, video), targets(target)))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    truth = by_hand(made(Net), criterion, elements, targets=targets)
    torch.testing.assert_close(weights(model), truth, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------- messages


def test_wrong_arguments_are_refused_in_words() -> None:
    model = made(Net)
    with pytest.raises(eq.SetupError, match="did you mean 'audio'"):
        balanced(copy.deepcopy(model), features={"audoi": 0, "video": 1})
    balancer, _ = balanced(model)
    audio, video, target = batches(1)[0]
    with pytest.raises(eq.MatchError, match="expected a dict from modality to a mask"):
        balancer.loss(model(audio, video), target, present=["video"])  # type: ignore[arg-type]
    with pytest.raises(eq.MatchError, match="expected bool of shape"):
        balancer.loss(model(audio, video), target, present={"video": [True]})  # type: ignore[dict-item]
    with pytest.raises(eq.MatchError) as caught:
        balancer.loss(model(audio, video), target.numpy())
    assert "logits.device" not in str(caught.value)


# ------------------------------------------------------- parameters of an encoder that are new


class Adapter(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.down = layer.requires_grad_(False), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) + self.down(x)


def adapted(model: Net) -> None:
    model.audio[2] = Adapter(model.audio[2])


def normed(model: Net) -> None:
    nn.utils.parametrizations.weight_norm(model.video[0])


def assigned(model: Net) -> None:
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)


@pytest.mark.parametrize("change", [adapted, normed, assigned])
def test_parameters_that_come_after_the_balancer_are_refused(
    change: Callable[[Net], None],
) -> None:
    model = made(Net)
    balancer, optimizer = balanced(model)
    change(model)
    optimizer.add_param_group({"params": list(set(model.parameters()) - set(held(optimizer)))})
    audio, video, target = batches(1)[0]
    with pytest.raises(eq.SetupError, match="got new parameters after the balancer was made"):
        balancer.loss(model(audio, video), target)


def test_parameters_replaced_during_training_are_refused() -> None:
    model = made(Net)
    balancer, optimizer = balanced(model)
    audio, video, target = batches(1)[0]
    for late in (False, True):
        balancer.backward(balancer.loss(model(audio, video), target))
        with pytest.raises(eq.SetupError, match="assign=True") if late else nullcontext():
            balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        assigned(model)


def held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
