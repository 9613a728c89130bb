"""Criteria of logits, log-probabilities and probabilities: every reading gives what they take."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.criterion import Criterion
from equimodal.criterion.maker import maker

CLASSES = 4


class Pair(nn.Module):
    """What makes the outputs stands in the head, or after it in the forward."""

    def __init__(self, last: Any = None, after: Any = None) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(5, 8), nn.Linear(6, 8)
        layers: list[nn.Module] = [nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, CLASSES)]
        self.head = nn.Sequential(*layers, *([] if last is None else [last]))
        self.after = after

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        joined = torch.cat([self.audio(audio).relu(), self.visual(visual).relu()], 1)
        outputs: Tensor = self.head(joined)
        return outputs if self.after is None else self.after(outputs)


def focal(p: Tensor, y: Tensor) -> Tensor:
    truth = p.gather(1, y[:, None])[:, 0].clamp(1e-7)
    return (-((1 - truth) ** 2) * truth.log()).mean()


def focal_of_logits(u: Tensor, y: Tensor) -> Tensor:
    return focal(u.softmax(1), y)


def negative(logs: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.nll_loss(logs, y, reduction=reduction)


def binary_of_ones_own(p: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy(p, y, reduction="none").mean(1)


def labels(y: Tensor) -> Tensor:
    return y


def one_hot(y: Tensor) -> Tensor:
    return F.one_hot(y, CLASSES).double()


LOG, SOFT, SIGMOID = (lambda u: u.log_softmax(1)), (lambda u: u.softmax(1)), torch.sigmoid
KINDS: dict[str, tuple[Any, Any, Any, Any]] = {
    # the operation, the criterion, the same of logits, the target
    "NLLLoss": (LOG, nn.NLLLoss(), F.cross_entropy, labels),
    "nll_loss": (LOG, F.nll_loss, F.cross_entropy, labels),
    "own, of log-probabilities": (LOG, negative, F.cross_entropy, labels),
    "BCELoss": (SIGMOID, nn.BCELoss(), nn.BCEWithLogitsLoss(), one_hot),
    "own, of a sigmoid": (SIGMOID, binary_of_ones_own, nn.BCEWithLogitsLoss(), one_hot),
    "focal": (SOFT, focal, focal_of_logits, labels),
    "KLDivLoss": (
        LOG, nn.KLDivLoss(reduction="batchmean"), F.cross_entropy, one_hot,
    ),
    "through views": (
        lambda u: u[:, None].softmax(-1).transpose(1, 2).clamp(1e-7, 1).squeeze(2),
        focal, focal_of_logits, labels,
    ),
}  # fmt: skip


class Last(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, u: Tensor) -> Tensor:
        return self.function(u)  # type: ignore[no-any-return]


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    visual = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return audio, visual, torch.randint(CLASSES, (12,), generator=generator)


def trained(
    model: Pair, method: eq.Method, criterion: Any, target: Any, **settings: Any
) -> tuple[dict[str, float], Tensor, dict[str, Tensor], eq.Balancer]:
    model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    encoders = {"audio": model.audio, "visual": model.visual}
    balancer = eq.Balancer(
        method, model, encoders, model.head, optimizer,
        criterion=criterion, track_every=1, epochs=2, **settings,
    )  # fmt: skip
    for seed in range(6):
        audio, visual, y = batch(seed)
        balancer.backward(balancer.loss(model(audio, visual), target(y)))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    audio, visual, _ = batch(9)
    with torch.no_grad():
        alone = balancer.unimodal_logits(audio, visual)
    return balancer.metrics(), weights, alone, balancer


METHODS = [
    (eq.OGM, {"scores": eq.Probe}),
    (eq.OGMGE, {"scores": eq.Ablation}),
    (eq.MMPareto, {}),
    (eq.MultiLoss, {}),
    (eq.Ensemble, {}),
    (eq.AGM, {}),
    (eq.CML, {}),
    (eq.MLA, {}),
    (eq.InfoReg, {}),
]
CASES = [
    pytest.param(kind, method, scores, id=f"{kind}, {method.__name__}")
    for kind in KINDS
    for method, scores in METHODS
    if method is not eq.CML or KINDS[kind][3] is labels  # which is for one class per sample
]


@pytest.mark.parametrize(("kind", "method", "settings"), CASES)
@pytest.mark.parametrize("inside", [True, False], ids=["in the head", "in the forward"])
def test_trains_as_the_same_loss_of_logits(
    kind: str, method: Any, settings: dict[str, Any], inside: bool
) -> None:
    """NLLLoss on log-probabilities is cross-entropy on logits: for every method, not only alone."""
    link, criterion, of_logits, target = KINDS[kind]
    torch.manual_seed(0)
    model = Pair(Last(link)) if inside else Pair(after=link)
    plain = Pair()
    plain.load_state_dict(copy.deepcopy(model.state_dict()))

    def made() -> dict[str, Any]:
        return {name: of() for name, of in settings.items()}

    def new() -> eq.Method:
        return method(0.8) if method in (eq.OGM, eq.OGMGE) else method()  # type: ignore[no-any-return]

    found, weights, alone, _ = trained(model, new(), criterion, target, **made())
    expected, right, logits, _ = trained(plain, new(), of_logits, target, **made())
    torch.testing.assert_close(weights, right, rtol=1e-6, atol=1e-8)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    for name, given in alone.items():
        torch.testing.assert_close(given, link(logits[name]), rtol=1e-6, atol=1e-8)


REFUSED: dict[str, tuple[Any, Any, Any, str]] = {
    # the operation, the criterion, the target, what is said
    "BCELoss of log-probabilities": (
        LOG, nn.BCELoss(), one_hot, r"BCELoss takes probabilities.*LogSoftmax.*outputs=",
    ),
    "NLLLoss of probabilities": (
        SOFT, nn.NLLLoss(), labels, r"NLLLoss takes log-probabilities.*made by Softmax.*outputs=",
    ),
    "NLLLoss of logits": (
        None, nn.NLLLoss(), labels, r"NLLLoss takes log-probabilities.*a linear layer.*outputs=",
    ),
    "cross-entropy of probabilities": (
        SOFT, F.cross_entropy, labels, r"cross_entropy takes logits.*made by Softmax.*outputs=",
    ),
    "binary of a sigmoid": (
        SIGMOID, nn.BCEWithLogitsLoss(), one_hot, r"takes logits.*made by Sigmoid.*outputs=",
    ),
    "a mean of probabilities": (
        lambda u: (u.softmax(1) + u.flip(1).softmax(1)) / 2, focal, labels,
        r"look like probabilities.*Div.*outputs=",
    ),
    "log-probabilities by hand": (
        lambda u: u - u.logsumexp(1, keepdim=True), negative, labels,
        r"look like log-probabilities.*Sub.*outputs=",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused(case: str) -> None:
    after, criterion, target, words = REFUSED[case]
    with pytest.raises(eq.MatchError, match=words):
        trained(Pair(after=after), eq.OGM(0.8), criterion, target, scores=eq.Probe())


@pytest.mark.parametrize(
    ("after", "criterion", "of_logits", "outputs"),
    [
        (
            lambda u: u - u.logsumexp(1, keepdim=True),
            negative,
            F.cross_entropy,
            "log-probabilities",
        ),
        (lambda u: u.exp() / u.exp().sum(1, keepdim=True), focal, focal_of_logits, "probabilities"),
        (lambda u: u.softmax(1), F.cross_entropy, None, "logits"),
    ],
)
def test_what_they_are_may_be_said(
    after: Any, criterion: Any, of_logits: Any, outputs: str
) -> None:
    model, plain = Pair(after=after), Pair()
    plain.load_state_dict(model.state_dict())
    found = trained(model, eq.MMPareto(), criterion, labels, outputs=outputs, scores=eq.Probe())
    if of_logits is not None:
        right = trained(plain, eq.MMPareto(), of_logits, labels, scores=eq.Probe())
        torch.testing.assert_close(found[1], right[1], rtol=1e-6, atol=1e-8)
        assert all((of <= (0 if "log" in outputs else 1)).all() for of in found[2].values())


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"outputs.*log-probabilities"):
        trained(Pair(), eq.OGM(0.8), F.cross_entropy, labels, outputs="log-probs")


def test_log_probabilities_are_logits_that_are_normalised() -> None:
    """Cross-entropy of them is what it would be of the logits: nothing to refuse."""
    found = trained(Pair(after=LOG), eq.MMPareto(), F.cross_entropy, labels, scores=eq.Probe())
    torch.manual_seed(0)
    assert found[0]["loss/joint"] > 0


def test_numbers_of_any_range_go_with_what_made_them() -> None:
    """A squared error of a sigmoid is no contradiction, and readouts stay in its range, too."""

    def of_logits(u: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return F.mse_loss(u.sigmoid(), y, reduction=reduction)

    models = [Pair(after=SIGMOID), Pair()]
    models[1].load_state_dict(models[0].state_dict())
    found = trained(models[0], eq.MultiLoss(), nn.MSELoss(), one_hot)
    right = trained(models[1], eq.MultiLoss(), of_logits, one_hot)
    torch.testing.assert_close(found[1], right[1])
    torch.testing.assert_close(found[2]["audio"], right[2]["audio"].sigmoid())


def test_a_subclass_with_its_own_forward_does_not_tell() -> None:
    """It takes logits, whatever its parent takes."""

    class CrossEntropy2d(nn.NLLLoss):
        def forward(self, u: Tensor, y: Tensor) -> Tensor:
            return super().forward(u.log_softmax(1), y)

    made = [
        trained(Pair(), eq.MMPareto(), criterion, labels)[1]
        for criterion in (CrossEntropy2d(), F.cross_entropy)
        if torch.manual_seed(0) is not None
    ]
    torch.testing.assert_close(made[0], made[1])


@pytest.mark.parametrize("method", [eq.Ensemble, eq.MLA, eq.IPRM])
def test_predictions_are_what_the_model_returns(method: Any) -> None:
    for link, criterion in ((LOG, nn.NLLLoss()), (SOFT, focal)):
        balancer = trained(Pair(after=link), method(), criterion, labels)[3]
        audio, visual, _ = batch(9)
        with torch.no_grad():
            predicted = balancer.predict(audio, visual)
        sums = (predicted.exp() if link is LOG else predicted).sum(1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize(
    ("operation", "kind", "classes"),
    [
        (lambda x: x.log_softmax(-1), "log-probabilities", 2),
        (lambda x: x.softmax(1).permute(2, 0, 1), "probabilities", 2),
        (lambda x: x.softmax(-1).flatten(0, 1), "probabilities", 1),
        (lambda x: x.softmax(1).double().clone(), "probabilities", 1),
        (lambda x: x.softmax(1).log(), "log-probabilities", 1),
        (lambda x: x.log_softmax(2).exp()[:, 1:], "probabilities", 2),
        (lambda x: x.softmax(2)[..., 1], "probabilities", None),
        (lambda x: x.sigmoid()[:, :, 0], "probabilities", None),
        (lambda x: F.linear(x, torch.ones(3, 5)), "logits", None),
        (lambda x: x.softmax(1) * 2, None, None),
        (lambda x: x.detach(), None, None),
    ],
)
def test_the_graph_tells_what_made_a_tensor(operation: Any, kind: Any, classes: Any) -> None:
    made = maker(operation(torch.randn(3, 4, 5, requires_grad=True)))
    assert (made.kind, made.classes) == (kind, classes)


def test_shapes_name_the_kind() -> None:
    balancer = trained(Pair(after=LOG), eq.OGM(0.8), nn.NLLLoss(), labels)[3]
    assert balancer.shapes is not None
    assert balancer.shapes.outputs == "log-probabilities"


def test_a_negative_likelihood_of_numbers() -> None:
    """Mean and variance out of one head, by a function around torch's own loss."""

    def gaussian(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return F.gaussian_nll_loss(out[:, 0], y.double(), out[:, 1].exp(), reduction=reduction)

    u, y = torch.randn(12, CLASSES).double(), torch.randint(CLASSES, (12,))
    variance = u[:, 1].exp()
    expected = 0.5 * (variance.log() + (u[:, 0] - y) ** 2 / variance)
    torch.testing.assert_close(Criterion(gaussian).per_sample(u, y), expected)
    trained(Pair(), eq.OGM(0.8), gaussian, labels, scores=eq.Probe())
