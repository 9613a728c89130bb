"""What a criterion takes: logits, log-probabilities or probabilities.

Within the library everything is logits: what a readout, a probe, a split or a method's own module
gives. On its way into the criterion it passes what made the user's outputs, `Outputs.of`, and what
the user's head returns is taken back by `Outputs.logits`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.criterion.maker import Maker, maker
from equimodal.criterion.tokens import TokenLoss
from equimodal.criterion.unreduced import is_torchs
from equimodal.errors import MatchError, SetupError, unknown
from equimodal.functional.precision import at_least_single

Kind = Literal["logits", "log-probabilities", "probabilities"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LOG: tuple[Any, ...] = (nn.NLLLoss, nn.KLDivLoss, F.nll_loss, F.kl_div)
PROBABILITIES: tuple[Any, ...] = (nn.BCELoss, F.binary_cross_entropy)
# Others of torch's losses take numbers of any range, and go with whatever made the outputs.
LOGITS: tuple[Any, ...] = (
    nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss, TokenLoss,
    F.cross_entropy, F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss,
)  # fmt: skip
NORMALISE = (nn.CrossEntropyLoss, TokenLoss, F.cross_entropy)  # log-probabilities are logits too

MARGINS = (nn.MultiMarginLoss, F.multi_margin_loss)


@dataclass(frozen=True)
class Outputs:
    """What the criterion takes, and how it is made of logits.

    Attributes:
        kind: of the outputs.
        classes: the dimension along which they are normalised; None where each stands alone, as
            behind a sigmoid.
    """

    kind: Kind = "logits"
    classes: int | None = None

    @property
    def link(self) -> str | None:
        """The operation that makes the outputs of logits, as autograd names it; None if none."""
        if self.kind == "logits":
            return None
        name = "Sigmoid" if self.classes is None else "Softmax"
        return f"Log{name}" if self.kind == "log-probabilities" else name

    def of(self, logits: Tensor) -> Tensor:
        """Return what the criterion takes, from logits."""
        if self.kind == "logits":
            return logits
        log = self.kind == "log-probabilities"
        if self.classes is None:
            return F.logsigmoid(logits) if log else logits.sigmoid()
        return logits.log_softmax(self.classes) if log else logits.softmax(self.classes)

    def logits(self, outputs: Tensor) -> Tensor:
        """Return logits that give these outputs: the logarithm, or the log-odds.

        Log-probabilities of classes are returned as they are: they are logits that are normalised.
        Probabilities of exactly 0 or 1 are taken for the nearest number to it.
        """
        if self.kind == "logits" or (self.kind == "log-probabilities" and self.classes is not None):
            return outputs
        outputs = at_least_single(outputs)
        limits = torch.finfo(outputs.dtype)
        if self.classes is not None:
            return outputs.clamp(min=limits.tiny).log()
        if self.kind == "log-probabilities":
            outputs = outputs.exp()
        return outputs.clamp(limits.tiny, 1 - limits.eps).logit()


def given_kind(given: object) -> Kind | None:
    """Return the kind that the user has named.

    Raises:
        SetupError: there is none of that name.
    """
    if given is None or given in KINDS:
        return given
    if isinstance(given, str):
        raise SetupError(unknown("outputs", given, KINDS))
    raise SetupError(f"outputs: expected one of {', '.join(KINDS)}, found {given!r}")


def kind_of(loss: Callable[..., Any]) -> Kind | None:
    """Return what a loss takes, as its class or function tells; None for a loss of one's own.

    A subclass with a forward of its own may do anything first, and does not tell.
    """
    function = loss.func if isinstance(loss, functools.partial) else loss
    for known, kind in ((LOG, KINDS[1]), (PROBABILITIES, KINDS[2]), (LOGITS, KINDS[0])):
        if _is(function, known):
            return kind
    return None


def excludes(loss: Callable[..., Any]) -> bool:
    """Whether a loss is of classes of which one is right; a loss of one's own is taken for one.

    >>> excludes(nn.CrossEntropyLoss()), excludes(nn.MSELoss()), excludes(nn.BCEWithLogitsLoss())
    (True, False, False)
    """
    function = loss.func if isinstance(loss, functools.partial) else loss
    return not is_torchs(loss) or _is(function, (*NORMALISE, *LOG, *MARGINS))


def labelled(loss: Callable[..., Any]) -> bool:
    """Whether a loss is of labels of which several may be right, with logits above 0 for those.

    >>> labelled(nn.BCEWithLogitsLoss()), labelled(nn.MSELoss())
    (True, False)
    """
    named = (F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss)
    return loss in named or isinstance(loss, nn.BCEWithLogitsLoss | nn.MultiLabelSoftMarginLoss)


def told(
    loss: Callable[..., Any], given: Kind | None, name: str, outputs: Tensor, target: Any
) -> Outputs:
    """Return what the criterion takes: as said, by its class, or by what made the user's outputs.

    Args:
        loss: the user's criterion.
        given: what the user has said.
        name: how messages call the criterion.
        outputs: what the user's model gave, with its graph.
        target: what it is compared with.

    Raises:
        MatchError: class and graph contradict each other, or a loss of one's own is given what may
            be probabilities, and nothing tells.
    """
    made = maker(outputs)
    of_class = kind_of(loss)
    kind = given or of_class
    if given is None and of_class is not None:
        _refuse_contradiction(loss, of_class, made, name)
    if kind is None:
        kind = made.kind
        if kind is None and not is_torchs(loss):
            _refuse_doubtful(outputs, made, name)
    if kind in (None, "logits"):
        return Outputs()
    if made.kind is not None and made.kind != "logits":
        return Outputs(kind, made.classes)
    return Outputs(kind, _classes(loss, of_class, outputs, target))


def _classes(loss: Any, of_class: Kind | None, outputs: Tensor, target: Any) -> int | None:
    """Return the dimension of the classes where the graph does not show it: torch's."""
    alone = outputs.ndim < 2 or outputs.shape[1] == 1
    if of_class == "probabilities" or (alone and of_class is None):
        return None
    if of_class is None and isinstance(target, Tensor) and target.is_floating_point():
        return None if target.shape == outputs.shape else 1
    return min(1, outputs.ndim - 1)


def _refuse_contradiction(loss: Any, takes: Kind, made: Maker, name: str) -> None:
    function = loss.func if isinstance(loss, functools.partial) else loss
    if made.kind is None or made.kind == takes:
        return
    if made.kind == "log-probabilities" and _is(function, NORMALISE) and made.classes is not None:
        return
    instead = "without it" if takes == "logits" else "with a last layer that makes them"
    raise MatchError(
        f"{name} takes {takes}, and the outputs were made by {made.operation}, which gives "
        f"{made.kind}: let the model end {instead}, take another criterion, or say what they are, "
        f'eq.Balancer(..., outputs="{takes}")'
    )


def _refuse_doubtful(outputs: Tensor, made: Maker, name: str) -> None:
    """Refuse outputs that look like probabilities, where neither class nor graph tells.

    It looks at values, and waits for the device, once: only to refuse, never to decide.
    """
    if torch.compiler.is_compiling() or not outputs.is_floating_point() or outputs.numel() < 8:
        return
    with torch.no_grad():
        values = at_least_single(outputs.detach())
        between = bool(((values > 0) & (values < 1)).all())
        sums = [values.exp().sum(d) for d in (1, -1)] if outputs.ndim > 1 else []
        normal = any(bool(torch.isclose(s, torch.ones_like(s), 1e-3, 1e-3).all()) for s in sums)
    if between or (normal and bool((values <= 0).all())):
        kind = "probabilities" if between else "log-probabilities"
        raise MatchError(
            f"the outputs look like {kind}, and neither the criterion {name} nor the operation "
            f"that made them ({made.operation}) tells: say what they are, "
            f'eq.Balancer(..., outputs="{kind}"), or outputs="logits" for numbers of any range'
        )


def _is(function: Any, known: tuple[Any, ...]) -> bool:
    for each in known:
        if not isinstance(each, type):
            if function is each:
                return True
        elif isinstance(function, each) and type(function).forward is each.forward:  # type: ignore[attr-defined]
            return True
    return False
