"""What cannot be attached, and forwards that do not fit what was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from equimodal.attach.call import Call
from equimodal.attach.chain import Chain
from equimodal.attach.features import tensors
from equimodal.attach.graph import parameters_behind
from equimodal.errors import MatchError, SetupError
from equimodal.modalities import Modalities, find_module

COMPILED = (
    ", and hooks on it would never run: attach the balancer first, then torch.compile the model"
)
Head = nn.Module | str | Sequence[nn.Module | str]


def bare(model: nn.Module) -> nn.Module:
    """Return the user's model without the wrapper for several ranks.

    Raises:
        SetupError: it is no model, or compiled already.
    """
    if not isinstance(model, nn.Module):
        raise SetupError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
    if isinstance(model, DistributedDataParallel):
        return bare(model.module)
    if isinstance(model, torch.jit.ScriptModule):
        raise SetupError(
            "the model is compiled by torch.jit, and runs no hooks: make the balancer on the plain "
            "model, and script what balancer.export() returns after training"
        )
    if "_orig_mod" in model._modules:  # before its modules are looked up by name
        raise SetupError(f"the model is already compiled{COMPILED}")
    return model


def find_head(model: nn.Module, given: Head | None) -> nn.Module | None:
    """Return the head that is given as a module, a dotted name or several that run in a row."""
    if given is None or isinstance(given, nn.Module | str):
        return None if given is None else find_module(model, "head", given)
    if not isinstance(given, list | tuple):
        raise SetupError(f"head: expected a module of the model, found {type(given).__name__}")
    parts = [find_module(model, f"head[{place}]", part) for place, part in enumerate(given)]
    if not parts:
        raise SetupError("head is empty: name at least one module, or None for a model without")
    return parts[0] if len(parts) == 1 else Chain(parts)


class Misfits:
    """Knows the modules that were named, and refuses what does not fit them.

    Args:
        model: the whole model.
        modalities: its encoders.
        head: its fusion head, or None.
        called: modalities whose encoders were seen to be called as modules.
    """

    def __init__(
        self, model: nn.Module, modalities: Modalities, head: nn.Module | None, called: set[str]
    ) -> None:
        self._model = model
        self._called = called
        self._modalities = modalities
        self._heads = dict(_named(head))
        self._parts = {**self._heads}
        for name, module in modalities.encoder_modules():
            self._parts.setdefault(module, f"encoders['{name}']")
        places = {module: name for name, module in model.named_modules()}
        self._places = {part: places[part] for part in self._parts}

    def head_places(self) -> str | list[str] | None:
        """Return the head as a user would name it for a copy of the model."""
        names = [self._places[part] for part in self._heads]
        return (names[0] if names else None) if len(names) < 2 else names

    def refuse(self, wrapped: nn.Module, told: bool = False) -> None:
        """Refuse models that hooks do not reach, and heads and encoders that lie in one another.

        Args:
            wrapped: the model, as it was given.
            told: whether the user said where the head's inputs hold each feature.

        Raises:
            SetupError: it is one.
        """
        for module in wrapped.modules():
            if isinstance(module, nn.DataParallel):
                raise SetupError(
                    "the model is wrapped in nn.DataParallel, which runs copies of it: use "
                    "DistributedDataParallel"
                )
            compiled = getattr(module, "_compiled_call_impl", None) is not None
            if compiled or "_orig_mod" in module._modules:
                self._refuse_within(module, f"already compiled{COMPILED}")
            if isinstance(module, torch.jit.ScriptModule):
                self._refuse_within(
                    module, "compiled by torch.jit, and runs no hooks: name plain modules"
                )
        if not (told and self._heads):
            self._refuse_same()
        for name, encoder in self._modalities.encoder_modules():
            for head, said in self._heads.items():
                if head in set(encoder.modules()):
                    raise SetupError(
                        f"the {said} lies inside encoders['{name}']: name the module that takes "
                        "the features of all modalities as the head, and an encoder without it"
                    )
                if encoder in set(head.modules()):
                    raise SetupError(
                        f"encoders['{name}'] lies inside the {said} ({type(head).__name__}): name "
                        "the module that only fuses, or pass head=None"
                    )

    def _refuse_same(self) -> None:
        """Refuse a module of two modalities: which of its calls is of which does not show."""
        seen: dict[nn.Module, str] = {}
        for name, module in self._modalities.encoder_modules():
            other = seen.setdefault(module, name)
            if other != name:
                raise SetupError(
                    f"encoders['{other}'] and encoders['{name}'] name the same module "
                    f"({type(module).__name__}), and which of its calls is of which modality does "
                    "not show: give the head and features= that say where each feature is among "
                    "its inputs, or give each modality a module of its own that calls the shared "
                    "one"
                )

    def _refuse_within(self, module: nn.Module, what: str) -> None:
        inside = set(module.modules())
        for part, name in self._parts.items():
            if part in inside:
                raise SetupError(f"{name} is {what}")

    def refuse_replaced(self) -> None:
        """Say of a forward that does not fit, where it is so, that another module has run."""
        now = dict(self._model.named_modules())
        for part, name in self._parts.items():
            place = self._places[part]
            there = now.get(place)
            if part not in (there, getattr(there, "_orig_mod", None)):  # compiled, it still runs
                raise MatchError(
                    f"{name}, the model's {place!r}, was replaced after the balancer was made "
                    f"({type(part).__name__} by {type(there).__name__}): make the "
                    "balancer when the model is complete, after adapters such as LoRA are put in"
                )

    def uncalled(self, call: Call, ends: Iterable[Tensor]) -> dict[str, list[Tensor]]:
        """Return the parameters behind the tensors of encoders that were not called as modules.

        Raw parameters are used as they are, and some models call a method of an encoder: then no
        hook has run, but the graph knows. An encoder that is called at other times does not take
        part without a call: a feature of it was kept from another forward.
        """
        ran = {*call.calls, *self._called}
        silent = [name for name in self._modalities.names if name not in ran]
        if not silent or call.compiled or torch.compiler.is_compiling():
            return {}
        met = parameters_behind(ends)
        found: dict[str, list[Tensor]] = {
            name: [o.parameter for o in self._modalities.owned[name] if o.parameter in met]
            for name in silent
        }
        return {name: of for name, of in found.items() if of}

    def refuse_missing(self, call: Call, present: Mapping[str, Tensor], logits: Tensor) -> None:
        """Refuse a forward in which some encoders ran and others did not.

        Raises:
            MatchError: it is one, and `present` does not tell of it.
        """
        missing = [n for n in self._modalities.names if n not in {*call.calls, *present}]
        if missing and call.calls:
            took_part = self.uncalled(call, [logits])
            missing = [name for name in missing if name not in took_part]
        if call.calls and missing:
            raise MatchError(
                f"the encoder of {', '.join(missing)} did not run in this forward, while others "
                f"did. Features that are kept from another batch are not trained: encode every "
                "batch anew. Is the modality missing from the batch? Say so: loss(..., "
                f"present={{{missing[0]!r}: mask}}) with a mask of shape (B,) that is True for the "
                "samples that have it; forward= returns it as (logits, target, present)"
            )


def refuse_uncalled(name: str, modalities: Modalities) -> NoReturn:
    """Refuse an encoder that took part without being called, where what it returned is needed.

    Raises:
        MatchError: always.
    """
    if not modalities.modules[name]:
        raise MatchError(
            f"encoders['{name}'] is a parameter alone and returns nothing, but without a head what "
            "the encoders return are the features: name the module that it goes into beside it, or "
            "the head"
        )
    kinds = ", ".join(type(module).__name__ for module in modalities.modules[name])
    raise MatchError(
        f"the encoder of {name} ({kinds}) took part in this forward, but was not called as a "
        "module: the model calls a method of it, or modules within it, and what came out was not "
        "seen. Name the module within it that returns the feature, let its forward do what the "
        "method does, or give the head and features="
    )


def refuse_shapeless(logits: Any) -> None:
    """Refuse what cannot be the logits of a batch.

    Raises:
        MatchError: it cannot.
    """
    if not isinstance(logits, Tensor):
        entries = f" of {', '.join(map(str, logits))}" if isinstance(logits, Mapping) else ""
        raise MatchError(
            f"balancer.loss: expected the logits as a tensor, found {type(logits).__name__}"
            f"{entries}: pass the tensor that the loss is computed from"
        )
    if logits.ndim == 0:
        raise MatchError(
            "balancer.loss: expected the logits with the samples as first dimension, found a "
            "single number: pass what the loss is computed from, and the loss as criterion="
        )
    if logits.shape[0] == 0:
        raise MatchError(
            f"balancer.loss: the batch holds no sample, logits {tuple(logits.shape)}, of which "
            "a mean is NaN: leave it out"
        )


def refuse_unseen(output: Any) -> MatchError:
    """Return what to raise where nothing tells which of several outputs are the logits."""
    return MatchError(
        f"the head returned {len(list(tensors(output)))} tensors, and which of them are the logits "
        "shows at the first balancer.loss: call it before, or let the head return them alone"
    )


def told_present(
    present: Mapping[str, Tensor] | None, names: Sequence[str], size: int
) -> Mapping[str, Tensor]:
    """Return which samples have a modality, as the user told.

    Raises:
        MatchError: it is of no modality, or no mask of the samples.
    """
    for name, mask in (present or {}).items():
        if name not in names:
            raise MatchError(f"present: no modality {name!r}, there are {list(names)}")
        if not isinstance(mask, Tensor):
            raise MatchError(
                f"present[{name!r}]: expected bool of shape ({size},), found {type(mask).__name__}"
            )
        if mask.dtype != torch.bool or mask.shape != (size,):
            raise MatchError(
                f"present[{name!r}]: expected bool of shape ({size},), found "
                f"{mask.dtype} of shape {tuple(mask.shape)}"
            )
    return present or {}


def _named(head: nn.Module | None) -> Iterable[tuple[nn.Module, str]]:
    if isinstance(head, Chain):
        return [(part, f"head[{place}]") for place, part in enumerate(head.parts)]
    return [] if head is None else [(head, "head")]
