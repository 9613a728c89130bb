"""The contract of a method.

A method overrides the hooks it needs and declares what it can do. The balancer calls the hooks at
their place in the training step; a method never calls `backward`, never steps the user's optimizer
and never touches the user's loop. In order of the step:

    order          once an epoch    which samples, in which order, with which modalities
    gate           each forward     scale or drop features before the head
    objective      each loss        named terms of the loss
    measure        each loss        sums that are added over micro-batches and ranks
    coefficients   each step        factors on the gradients of the modalities, from the evidence
    combine        each step        the gradient of a modality from the gradients of the terms
    perturb        each step        where to run the batches of the step again, from the gradients
    merge          each step        the gradients of the step from those of both passes
    adjust         each step        change gradients in place
    commit         each step        the optimizer really stepped: make proposed state permanent
    end_epoch      each epoch       evaluate, train copies, rewrite parameters
    predict        inference        logits by the method's own rule
    predict_unimodal                logits of single modalities by the method's own rule
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.modalities import Modalities, OwnedParameter, Selection, Selector
from equimodal.noise import Noise
from equimodal.planning import required
from equimodal.search import Search
from equimodal.step import Shapes, Step

if TYPE_CHECKING:
    from equimodal.epochs.run import Run
    from equimodal.update.substeps import SubSteps

Need = Literal[
    "scores",
    "encoder inputs",
    "training data",
    "held-out data",
    "sample identities",
    "length of training",
]
Space = Literal["gradient", "update"]
REST = "(rest)"  # stands for what is outside of the encoders


@dataclass(frozen=True)
class Capabilities:
    """What a method can do, for the comparison table and for refusing what it cannot.

    Attributes:
        accumulation: "exact" if N micro-batches give the step of one large batch, "per micro-batch"
            if the method acts on each of them, "refused" if it must not be used so.
        ranks: whether it works on several ranks.
        autocast: whether it works under automatic mixed precision and loss scaling.
        compiled: whether the model may be compiled after the balancer was attached.
        sharded: whether it works with fully sharded parameters (FSDP2).
        forwards: extra forwards of the whole model per step, in words.
        backwards: extra backward passes per step, in words.
        most: the largest number of modalities it is defined for, or None.
        order: "free" if the order in which the encoders are given changes nothing, "drawn" if other
            random numbers are drawn, "matters" if it says whose turn is first.
    """

    accumulation: Literal["exact", "per micro-batch", "refused"] = "exact"
    ranks: bool = True
    autocast: bool = True
    compiled: bool = True
    sharded: bool = False
    forwards: str = "0"
    backwards: str = "0"
    most: int | None = None
    order: Literal["free", "drawn", "matters"] = "free"


@dataclass(frozen=True)
class Order:
    """An epoch's samples for `Balancer.batches`.

    Attributes:
        indices: positions in the data set, in order, repetitions allowed.
        keep: for a modality, which of them keep it, shape ``(len(indices),)``, bool. A modality
            without an entry is kept in all.
        parts: sizes of consecutive parts of the indices whose samples never share a batch; all of
            them are one part by default.
        dealt: whether batches of the parts come in turn, in proportion to the parts' sizes, and not
            one part after the other.
    """

    indices: Sequence[int]
    keep: Mapping[str, Tensor] = field(default_factory=dict)
    parts: Sequence[int] = ()
    dealt: bool = False

    def __post_init__(self) -> None:
        if self.parts and sum(self.parts) != len(self.indices):
            raise SetupError(
                f"Order(parts): expected sizes that add up to {len(self.indices)} indices, found "
                f"{list(self.parts)}"
            )


class Method(nn.Module):
    """A way of balancing: subclass it, override the hooks you need, declare the rest.

    State that must survive a restart is registered as buffers, parameters or submodules, as in any
    module (`get_extra_state` for what is no tensor). Parameters are trained by an optimizer of the
    balancer's own, of the class of the user's and with its learning rate; their gradients are
    averaged over ranks.

    Attributes:
        name: how the command and the tables call it.
        source: paper, venue and year.
        needs: what it must be given beyond a step.
        by_epochs: arguments that follow the length of training where they are None, each from the
            number of epochs: the authors' share of the authors' run.
        planned: how many epochs training has in all, None where nobody said.
        search: which values of its arguments `equimodal choose` tries, beside those by default.
        capabilities: what it can do.
        replaces_joint: whether `objective` returns a "joint" term in place of the user's loss.
        combines_rest: whether `combine` is asked for everything outside of the encoders too.
        modulates: whether `coefficients` returns factors, and does not only take note.
        scored: whether scores are of the unimodal logits that `predict_unimodal` returns, because
            the method trains those in place of the head.
        single_pass: whether its terms need no backward passes of their own where every optimizer
            step has one micro-batch (`Step.single`).
        graded: whether factors other than 0 and 1 are among them.
        selection: which parameters of a modality the coefficients and the noise act on.
        space: whether they act on gradients, or on the updates that the optimizer makes of them.
        noise: noise added after the coefficients, or None.
        modalities: the modalities it acts on, None for all.
        window: first and last epoch in which it acts, both included, None for all; a last one of
            None for good.
    """

    name: ClassVar[str] = "method"
    source: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = frozenset()
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {}
    search: ClassVar[Search] = {}
    capabilities: ClassVar[Capabilities] = Capabilities()
    replaces_joint: ClassVar[bool] = False
    combines_rest: ClassVar[bool] = False
    modulates: ClassVar[bool] = True
    scored: ClassVar[bool] = False
    single_pass: ClassVar[bool] = False
    graded: ClassVar[bool] = True

    selection: Selection | Selector = "all"
    space: Space = "gradient"
    noise: Noise | None = None
    modalities: tuple[str, ...] | None = None
    window: tuple[int, int | None] | None = None
    planned: int | None = None
    _followed: frozenset[str] = frozenset()

    def plan(self, epochs: int | None) -> None:
        """Learn how long training is; called once, before `bind`.

        Raises:
            SetupError: an argument follows it, and it is not known.
        """
        self.planned = epochs
        for argument, value in self.by_epochs.items():
            if argument in self._followed or getattr(self, argument, 0) is None:
                self._followed |= {argument}
                length = required(epochs, type(self).__name__, argument)
                setattr(self, argument, value(length))

    def ends(self, epoch: int) -> bool:
        """Whether nobody trains after this epoch, as far as is known."""
        return self.planned is not None and epoch + 1 >= self.planned

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        """Learn the modalities; called once, when the balancer is attached."""
        self.names = names
        self.seed = seed

    def attach(self, model: nn.Module, modalities: Modalities) -> Sequence[RemovableHandle]:
        """Put hooks on modules of the model that the method itself must see or change.

        Called once, after `bind`; the balancer removes the hooks when it is detached. Register
        functions as ``Hook(function)`` of `equimodal.attach.capture`, so that copies of the model
        do not carry them, and keep modules of the model in tuples, so that they do not become
        submodules of the method.

        Args:
            model: the user's, without the wrapper for several ranks.
            modalities: the encoders and the parameters that each modality owns.

        Returns:
            The handles of the hooks.

        Raises:
            SetupError: the method does not work with this model. No hook may be left then.
        """
        return ()

    def build(self, shapes: Shapes) -> None:
        """Make modules whose sizes depend on the features.

        Called once: at the first step, or before a state is restored.
        """

    def equip(self, steps: SubSteps) -> None:
        """Take parameters that the method steps itself in `objective`, more than once per step.

        Called once, after `build`. What is not taken here is stepped once per step by the balancer.
        """

    def acts(self, epoch: int) -> bool:
        """Whether the method acts in this epoch."""
        first, last = self.window or (0, None)
        return first <= epoch and (last is None or epoch <= last)

    # ------------------------------------------------------------------ in order of the step

    def order(self, samples: int, epoch: int) -> Order | None:
        """Return the samples of an epoch, or None to leave the user's loader alone.

        Args:
            samples: size of the data set.
            epoch: counted from 0.
        """
        return None

    def gate(self, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return factors on features before the head, in training: shape ``(B,)`` per modality.

        A modality without an entry keeps its features. Factors of several methods are multiplied.
        """
        return {}

    def objective(self, step: Step) -> Mapping[str, Tensor]:
        """Return terms of the loss by name, each of shape ``()``, to be added to the user's.

        A term named "joint" takes the place of the user's loss, for methods that declare
        `replaces_joint`; 0 leaves it out.
        """
        return {}

    def measure(self, step: Step) -> Mapping[str, Tensor]:
        """Return quantities to be summed over the micro-batches and ranks of a step."""
        return {}

    def coefficients(self, evidence: Evidence) -> Tensor | None:
        """Return a factor for each modality, shape ``(M,)``, or None for ones.

        Called once per step, also to take note of what was measured: a method that returns no
        factors declares so (`modulates`), and encoders without anything to modulate suit it too.
        """
        return None

    def frozen(self) -> frozenset[str]:
        """Return the modalities whose encoder the optimizer must not touch in this step.

        `REST` among them stands for what is outside of the encoders, and of that for what no loss
        leads to: a head that only the replaced joint loss would have trained, not a backbone that
        the method's own terms go through, nor a decoder of the user's. A frozen parameter has no
        gradient: one of zero would still let momentum and weight decay move it.
        """
        return frozenset()

    def combine(self, modality: str, gradients: Mapping[str, list[Tensor]]) -> list[Tensor] | None:
        """Return the gradient of an encoder from the gradients of the terms of the loss.

        Called after `coefficients`, so that it may go by what was judged there.

        Args:
            modality: whose encoder; `REST` for everything outside of the encoders.
            gradients: for each term that the method's `objective` returned (and "joint") the
                gradients of the encoder's parameters, over all micro-batches and ranks.
        """
        return None

    def perturb(
        self, gradients: Mapping[str, list[Tensor]], evidence: Evidence
    ) -> Mapping[str, list[Tensor]]:
        """Return by how much to move parameters, for a second pass over the batches of the step.

        Called once per step, after `coefficients` and `combine`, between the passes of the user's
        loop (`Balancer.passes`). The weights are put back before the optimizer steps. What was
        measured, and the gradients of methods' own modules, are those of the first pass.

        Args:
            gradients: of the first pass, of every encoder and under `REST` of everything outside,
                over all micro-batches and ranks, one for each parameter that has one. A gradient
                scaler may have multiplied all of them by one factor: go by their direction.
            evidence: what was measured in the first pass.

        Returns:
            Displacements shaped like the gradients, by name; what has no entry stays where it is.
            An empty mapping asks for no second pass in this step.
        """
        return {}

    def merge(self, part: str, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Return the gradients of the step, of an encoder or under `REST` of everything outside.

        Args:
            part: whose they are.
            first: gradients of the first pass.
            second: gradients at the moved weights, of the same parameters.
        """
        return second

    def adjust(
        self, modality: str, parameters: Sequence[OwnedParameter], evidence: Evidence
    ) -> None:
        """Change the gradients of an encoder in place, after the coefficients."""

    def commit(self) -> None:
        """Make state proposed in this step permanent: the optimizer has stepped."""

    def end_epoch(self, run: Run) -> None:
        """Act between epochs, with what the run offers."""

    def predict(self, step: Step) -> Tensor:
        """Return logits by the method's own rule of inference; the user's logits by default."""
        return step.logits

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of every modality alone; those of the chosen scores by default."""
        return step.unimodal

    # ------------------------------------------------------------------

    def overrides(self, hook: str) -> bool:
        """Whether this method has a hook of its own."""
        return getattr(type(self), hook) is not getattr(Method, hook)

    def extra_repr(self) -> str:
        settings = {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in ("training", "names", "seed", "planned")
        }
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())

    def forward(self, *inputs: object) -> None:
        raise TypeError(
            f"{type(self).__name__} is a method, not a layer: pass it to eq.Balancer(...)"
        )
