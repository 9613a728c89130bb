"""Which tokens of a shared trunk belong to which modality, and what each brings to a gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.attach.capture import Hook
from equimodal.errors import MatchError, SetupError, StepError
from equimodal.modalities import Modalities, OwnedParameter, find_module
from equimodal.system.late import Late

Which = Callable[..., Mapping[str, Tensor]]
Place = nn.Module | str


class Tokens:
    r"""Which tokens belong to which modality: `eq.Balancer(..., tokens=eq.Tokens(trunk, which))`.

    The gradient of a linear layer is a sum over the tokens that go through it, so that it falls
    into what came through the tokens of each modality:

    .. math:: \frac{\partial L}{\partial W} = \sum_m \sum_{t \in m} g_t x_t^\top

    These parts are what copies of the layer, one for each modality's tokens, would get. Layers of
    type `torch.nn.Linear`, those of low-rank adapters among them, are separated; other parameters
    of the trunk (normalisation, embeddings) are left alone.

    Args:
        trunk: the module that the tokens of all modalities go through, or several, or their dotted
            names in the model.
        which: called as the model is, with all that it was given; returns for each modality its
            tokens, bool, of the shape ``(B, T)`` that layers of the trunk are given them in. One
            modality may be left out: all other tokens are its then. Otherwise tokens may belong to
            none.
    """

    def __init__(self, trunk: Place | Sequence[Place], which: Which) -> None:
        given: Any = trunk
        self.trunk: list[Place] = list(given) if isinstance(given, list | tuple) else [given]
        self.which = which
        if not self.trunk or not callable(which):
            raise SetupError(
                "eq.Tokens(trunk, which): expected a module and a function of the model's inputs, "
                "such as lambda input_ids, **_: {'image': input_ids == IMAGE}, found "
                f"{trunk!r} and {which!r}"
            )

    def on(self, model: nn.Module) -> Tokens:
        """Return the same with modules by their dotted names, as a copy of the model takes it."""
        names = {module: name for name, module in model.named_modules()}
        return Tokens(
            [names[find_module(model, "eq.Tokens(trunk)", place)] for place in self.trunk],
            self.which,
        )


class _Kept(torch.autograd.Function):
    """Keeps a tensor for the backward pass as autograd does: recomputed where a checkpoint asks."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        return weight.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None


# What saves tensors for a backward pass in another way, if anything does.
_hooked = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


class Masks:
    """The tokens of one forward.

    Args:
        given: for each modality but one its tokens, bool, all of one shape.
    """

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        self.shape = next(iter(given.values())).shape
        self._stacked = torch.stack([mask.reshape(-1) for mask in given.values()], dim=1)
        self._as: dict[torch.dtype, Tensor] = {}

    def twice(self) -> Tensor:
        """Return whether a token belongs to two modalities, shape ``(1,)``."""
        return (self._stacked.sum(1) > 1).any()[None].float()

    def like(self, tensor: Tensor) -> Tensor:
        """Return which tokens belong to which modality, shape ``(N, K)``: 1 and 0."""
        if tensor.dtype not in self._as:
            self._as[tensor.dtype] = self._stacked.to(tensor)
        return self._as[tensor.dtype]


class TokenReader:
    """Hooks on the linear layers of a trunk, which separate their gradients by tokens.

    Args:
        tokens: what the user says.
        model: without the wrapper for several ranks.
        modalities: what an encoder owns is not of the trunk.
        handles: the hooks are noted here, for whoever takes them off.

    Attributes:
        members: the parameters that are separated, frozen ones too.
        left: names of the other trainable parameters of the trunk.
        named: the modalities whose tokens are told, in the order of the parts.
        others: the modality that all other tokens belong to, or None.
        open: whether a backward pass runs that adds to gradients, and is to be separated.
        called: layers that have run as modules.
        parts: by parameter, what the tokens of each named modality brought since `forget`, shape
            ``(K, ...)``.

    Raises:
        SetupError: there is no linear layer to separate.
    """

    def __init__(
        self,
        tokens: Tokens,
        model: nn.Module,
        modalities: Modalities,
        handles: list[RemovableHandle],
    ) -> None:
        self._which, self._names = tokens.which, modalities.names
        trunk = [find_module(model, "eq.Tokens(trunk)", place) for place in tokens.trunk]
        inside = {layer for module in trunk for layer in module.modules()}
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._layers = {name: layer for name, layer in model.named_modules() if layer in inside}
        homes = Counter(parameter for layer in model.modules() for parameter in _own(layer))
        owned = {each.parameter for of in modalities.owned.values() for each in of}
        self.members = [
            OwnedParameter(names[parameter], parameter, layer)
            for layer in self._layers.values()
            for parameter in _own(layer)
            if _is_linear(layer) and parameter not in owned and homes[parameter] == 1
        ]
        if not self.members:
            kinds = ", ".join(sorted({type(module).__name__ for module in trunk}))
            raise SetupError(
                f"eq.Tokens(trunk): no torch.nn.Linear in {kinds} has parameters of its own that "
                "no encoder owns: name the module that the tokens of all modalities go through"
            )
        there = {member.parameter for member in self.members}
        self.left = [
            names[p]
            for layer in inside
            for p in _own(layer)
            if p.requires_grad and p not in there and p not in owned
        ]
        self.named: tuple[str, ...] = ()
        self.others: str | None = None
        self.open = False
        self.called: set[nn.Module] = set()
        self.parts: dict[nn.Parameter, Tensor] = {}
        self._masks: Masks | None = None
        self._overlap = Late(self._refuse_overlap)
        layers = {member.layer for member in self.members}
        handles.append(model.register_forward_pre_hook(Hook(self._enter), with_kwargs=True))
        for name, layer in self._layers.items():
            if layer in layers:
                ran = Hook(partial(self._ran, name))
                handles.append(layer.register_forward_hook(ran, with_kwargs=True))

    def forget(self) -> None:
        """Drop what was separated: the gradients that it is part of are no more."""
        self.parts = {}

    def _enter(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """Ask which tokens belong to which modality, before a forward with gradients."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        self._overlap.settle()
        given = self._which(*args, **kwargs)
        found = sorted(given) if isinstance(given, Mapping) else type(given).__name__
        missing = [name for name in self._names if name not in found]
        if not isinstance(given, Mapping) or len(missing) > 1 or not set(given) <= set(self._names):
            raise MatchError(
                f"eq.Tokens(which=): expected a dict with the tokens of {', '.join(self._names)}, "
                f"of which one may be left out, found {found}"
            )
        named = tuple(name for name in self._names if name in given)
        if self.named and named != self.named:
            raise MatchError(
                f"eq.Tokens(which=): expected the tokens of {', '.join(self.named)} in every "
                f"forward, found those of {', '.join(named)}: give a mask that is all False where "
                "a batch has none"
            )
        shapes = {tuple(mask.shape) for mask in given.values()}
        if len(shapes) > 1 or any(mask.dtype != torch.bool for mask in given.values()):
            kinds = {name: f"{mask.dtype} {tuple(mask.shape)}" for name, mask in given.items()}
            raise MatchError(
                f"eq.Tokens(which=): expected bool masks of one shape (B, T), found {kinds}"
            )
        self.named, self.others = named, missing[0] if missing else None
        self._masks = Masks({name: given[name] for name in named})
        if len(named) > 1:
            self._overlap.note(self._masks.twice())

    def _ran(self, name: str, layer: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        """Separate what the backward pass will bring to the parameters of a layer."""
        assert isinstance(layer, nn.Linear)
        weight, bias = layer.weight, layer.bias
        trained = weight if weight.requires_grad else bias
        if trained is None or not trained.requires_grad or not torch.is_grad_enabled():
            return
        if torch.compiler.is_compiling():
            return
        given = args[0] if args else kwargs["input"]
        masks = self._masks
        if masks is None:
            raise MatchError(
                f"eq.Tokens: {name} ran outside of a forward of the model, so that nothing tells "
                "whose tokens these are: call the model as a module"
            )
        # In a backward pass it is recomputed. The pass itself asks the forward's own tokens, and
        # must find as much kept here as there.
        again = torch._C._current_graph_task_id() != -1
        shape = given.shape[:-1]
        if shape != masks.shape and shape != (masks.shape.numel(),) and not again:
            raise MatchError(
                f"eq.Tokens: {name} was given tokens of shape {tuple(given.shape[:-1])}, and "
                f"which= told those of shape {tuple(masks.shape)}: return masks of that shape, or "
                "leave the layer out, by naming modules of the trunk without it"
            )
        self.called.add(layer)
        kept: Any = given.detach()
        if _hooked is None or _hooked(False) is not None:  # as by a checkpoint, which recomputes it
            kept = _Kept.apply(trained, kept).grad_fn  # type: ignore[no-untyped-call]
        arrived = partial(self._arrived, name, layer, [kept], None if again else masks)
        output.register_hook(arrived)  # type: ignore[no-untyped-call]

    def _arrived(
        self, name: str, layer: nn.Linear, kept: list[Any], masks: Masks | None, gradient: Tensor
    ) -> None:
        """Add what the tokens of each modality bring to the parameters of a layer."""
        if not self.open:  # somebody asks for a gradient that does not go to the parameters
            return
        if masks is None:
            raise StepError(
                f"eq.Tokens: {name} is recomputed by reentrant checkpointing, which does not tell "
                "of which forward: say use_reentrant=False"
            )
        if not kept:
            raise StepError(
                f"eq.Tokens: two backward passes went through one forward of {name}: add the "
                "losses up, and call balancer.backward once"
            )
        given = kept.pop()
        if not isinstance(given, Tensor):
            (given,) = given.saved_tensors
        which = masks.like(gradient)
        gradient = gradient.detach().reshape(len(which), -1)
        if layer.weight.requires_grad:
            given = given.reshape(len(which), -1).to(gradient.dtype)
            self._add(layer.weight, _parts(gradient, given, which))
        if layer.bias is not None and layer.bias.requires_grad:
            self._add(layer.bias, which.T @ gradient)

    def _add(self, parameter: Any, part: Tensor) -> None:
        part = part.to(parameter.dtype)
        known = self.parts.get(parameter)
        self.parts[parameter] = part if known is None else known.add_(part)

    def _refuse_overlap(self, flags: list[float]) -> None:
        if any(flags):
            raise MatchError(
                "eq.Tokens(which=): a token belongs to two modalities: return masks that do not "
                "overlap"
            )


def _parts(gradient: Tensor, given: Tensor, which: Tensor) -> Tensor:
    """Return the gradient of a weight through the tokens of each modality, ``(K, out, in)``.

    The narrower of the two is masked: beside a wide layer, an adapter's rank costs next to nothing.
    """
    (n, k), rows, columns = which.shape, gradient.shape[1], given.shape[1]
    if k == 1:
        if rows <= columns:
            return ((gradient * which).T @ given)[None]
        return ((given * which).T @ gradient).T[None]
    if rows <= columns:
        masked = (which[:, :, None] * gradient[:, None]).reshape(n, k * rows)
        return (masked.T @ given).view(k, rows, columns)
    masked = (which[:, :, None] * given[:, None]).reshape(n, k * columns)
    return (gradient.T @ masked).view(rows, k, columns).movedim(1, 0).contiguous()


def _own(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer._parameters.values() if parameter is not None]


def _is_linear(layer: nn.Module) -> bool:
    """Whether a layer does what a linear layer does: a subclass may do something else."""
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward
