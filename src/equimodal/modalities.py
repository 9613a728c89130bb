"""Which modules and which parameters belong to which modality."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from equimodal.adapters import Adapter
from equimodal.errors import SetupError, unknown

Part = nn.Module | nn.Parameter | str | Adapter
Encoder = Part | Sequence[Part]
Encoders = Mapping[str, Encoder] | nn.ModuleDict


@dataclass(frozen=True)
class OwnedParameter:
    """A parameter of one encoder: its name in the model, itself, and the layer that uses it.

    That is the layer that holds it, or the one that it is a parametrization of, as under
    `torch.nn.utils.parametrizations.weight_norm`.
    """

    name: str
    parameter: nn.Parameter
    layer: nn.Module


Selector = Callable[[OwnedParameter], bool]
Selection = Literal["weights", "convolutions", "all"]


def weights(owned: OwnedParameter) -> bool:
    """Weights with two or more dimensions: what convolutions, linear layers and attention learn."""
    return owned.parameter.ndim >= 2


def convolutions(owned: OwnedParameter) -> bool:
    """Weights of convolutions only, as in the published code of OGM-GE."""
    return isinstance(owned.layer, _ConvNd) and owned.parameter.ndim >= 3


def everything(owned: OwnedParameter) -> bool:
    """All parameters: biases and the affine parameters of normalisation too."""
    return True


SELECTORS: dict[str, Selector] = {
    "weights": weights,
    "convolutions": convolutions,
    "all": everything,
}


def selector(selection: Selection | Selector) -> Selector:
    """Return the function behind a named selection, or the user's own function as it is."""
    if callable(selection):
        return selection
    if selection not in SELECTORS:
        raise SetupError(unknown("selection of parameters", str(selection), SELECTORS))
    return SELECTORS[selection]


class Modalities:
    """The encoders of a model by the name of their modality, and the parameters each one owns.

    A parameter belongs to a modality because it lives in the modules of its encoder or is itself
    named as a part of it, never because of its name. A parameter that lives in two encoders, or in
    an encoder and elsewhere in the model, belongs to no modality: it is `shared`, and no method
    modulates it.

    Args:
        model: the whole model. Encoders are looked up in it.
        encoders: for each modality the module that encodes it, or several, given as modules of the
            model or as their dotted names. A parameter that is in no module of its own, such as a
            modality token, may stand among them.

    Attributes:
        names: the modalities, in the order given.
        modules: the encoder modules of each modality.
        raw: the parameters of each modality that were named by themselves.
        owned: the parameters that each modality alone owns, trainable or not.
        shared: names of the parameters that live in an encoder and somewhere else.
        rest: the parameters that belong to no modality.

    Raises:
        SetupError: fewer than two modalities, an encoder that is not part of the model or that
            contains another one.
    """

    def __init__(self, model: nn.Module, encoders: Encoders) -> None:
        if isinstance(encoders, nn.ModuleDict):
            encoders = dict(encoders.items())
        if not isinstance(encoders, Mapping) or len(encoders) < 2:
            found = list(encoders) if isinstance(encoders, Mapping) else type(encoders).__name__
            raise SetupError(
                "encoders: expected a dict of two or more modalities and their modules, such as "
                f'{{"audio": model.audio_net, "visual": model.visual_net}}, found {found}'
            )
        self.names = tuple(encoders)
        parts = {name: _parts(model, name, given) for name, given in encoders.items()}
        _refuse_lazy(parts)
        self.modules = {
            name: tuple(part for part in of if isinstance(part, nn.Module))
            for name, of in parts.items()
        }
        self.raw = {
            name: tuple(part for part in of if isinstance(part, nn.Parameter))
            for name, of in parts.items()
        }
        self._refuse_nesting(model)
        self.owned, self.shared = self._assign(model)
        owned = {each.parameter for of in self.owned.values() for each in of}
        self.rest = [parameter for parameter in model.parameters() if parameter not in owned]

    def encoder_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield every encoder module with its modality."""
        for name, modules in self.modules.items():
            for module in modules:
                yield name, module

    def places(self, model: nn.Module) -> dict[str, list[str]]:
        """Return for each modality the dotted names of its modules and raw parameters."""
        modules = {module: name for name, module in model.named_modules()}
        parameters = {parameter: name for name, parameter in model.named_parameters()}
        return {
            name: [modules[m] for m in self.modules[name]] + [parameters[p] for p in self.raw[name]]
            for name in self.names
        }

    def refuse_changed(self) -> None:
        """Refuse encoders whose parameters are others than they were.

        Raises:
            SetupError: some were put in or replaced.
        """
        if torch.compiler.is_compiling():
            return
        known = {each.parameter for of in self.owned.values() for each in of}.union(self.rest)
        for name, module in self.encoder_modules():
            new = [n for n, p in module.named_parameters() if p not in known and p.requires_grad]
            if new:
                raise SetupError(
                    f"encoders['{name}'] got new parameters after the balancer was made, which no "
                    f"method would act on: {', '.join(new[:3])}{', ...' if new[3:] else ''}. Make "
                    "the balancer when the model is complete: after adapters such as LoRA, weight "
                    "normalisation, new embeddings and load_state_dict(assign=True)"
                )

    def trainable(self, name: str) -> list[OwnedParameter]:
        """Return the parameters that the modality owns and that require a gradient."""
        return [owned for owned in self.owned[name] if owned.parameter.requires_grad]

    def frozen(self) -> set[str]:
        """Return the modalities of which nothing can be trained, and which may leave no graph."""
        trained = {
            name
            for name, modules in self.modules.items()
            for of in (*(module.parameters() for module in modules), self.raw[name])
            if any(parameter.requires_grad for parameter in of)
        }
        return set(self.names) - trained

    def _named(self, parameter: nn.Parameter) -> set[str]:
        """Return the modalities that name a parameter itself; outside of all where none does."""
        return {n for n, of in self.raw.items() if any(parameter is p for p in of)} or {""}

    def _refuse_nesting(self, model: nn.Module) -> None:
        for outer_name, outer in self.encoder_modules():
            inside = set(outer.modules())
            if model in inside:
                raise SetupError(
                    f"encoders['{outer_name}'] is the whole model: name the submodule that encodes "
                    f"{outer_name} alone"
                )
            for name, module in self.encoder_modules():
                if module is not outer and module in inside:
                    raise SetupError(
                        f"encoders['{name}'] lies inside encoders['{outer_name}']: name two "
                        "modules of which neither contains the other"
                    )

    def _assign(self, model: nn.Module) -> tuple[dict[str, list[OwnedParameter]], tuple[str, ...]]:
        names = {parameter: name for name, parameter in model.named_parameters()}
        owners: dict[nn.Parameter, set[str]] = {parameter: set() for parameter in names}
        layers: dict[nn.Parameter, nn.Module] = {}
        homes: dict[nn.Module, set[str]] = {}
        raw = {parameter for of in self.raw.values() for parameter in of}
        for name, encoder in self.encoder_modules():
            for layer in encoder.modules():
                homes.setdefault(layer, set()).add(name)
        for layer in model.modules():
            for parameter in layer.parameters(recurse=False):
                of = homes.get(layer) or self._named(parameter)
                # "" stands for outside of encoders. Named, it is of one modality; a second layer
                # that holds it is still another home.
                owners[parameter] |= {""} if parameter in layers and parameter in raw else of
                layers[parameter] = layer
        homes_of = {
            held: layer
            for layer in model.modules()
            if is_parametrized(layer)
            for held in layer.get_submodule("parametrizations").modules()
        }
        owned: dict[str, list[OwnedParameter]] = {name: [] for name in self.names}
        shared = []
        for parameter, of in owners.items():
            if len(of) > 1:
                shared.append(names[parameter])
            elif "" not in of:
                layer = layers[parameter]
                entry = OwnedParameter(names[parameter], parameter, homes_of.get(layer, layer))
                owned[next(iter(of))].append(entry)
        return owned, tuple(shared)


def _refuse_lazy(parts: Mapping[str, Sequence[nn.Module | nn.Parameter]]) -> None:
    for name, of in parts.items():
        for part in of:
            for parameter in part.parameters() if isinstance(part, nn.Module) else [part]:
                if is_lazy(parameter):
                    raise SetupError(
                        f"encoders['{name}'] has lazy modules, whose parameters have no shape yet: "
                        "run the model once on a batch before the balancer and its optimizer are "
                        "made"
                    )


def _parts(model: nn.Module, name: str, given: Encoder) -> tuple[nn.Module | nn.Parameter, ...]:
    entries: list[Any] = list(given) if isinstance(given, tuple | list) else [given]
    where = f"encoders['{name}']"
    parts = tuple(
        part
        for entry in entries
        for part in (
            entry.parameters(model, where)
            if isinstance(entry, Adapter)
            else [_part(model, where, entry)]
        )
    )
    if not parts:
        raise SetupError(f"encoders['{name}'] is empty: name at least one module")
    return parts


def _part(model: nn.Module, where: str, given: Any) -> nn.Module | nn.Parameter:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if isinstance(given, str) and given in parameters:
        return parameters[given]
    if not isinstance(given, nn.Parameter):
        return find_module(model, where, given)
    if all(given is not parameter for parameter in parameters.values()):
        raise SetupError(
            f"{where}: this parameter of shape {tuple(given.shape)} is none of "
            f"{type(model).__name__}: pass the model that contains it, and name parameters after "
            "the model is complete"
        )
    return given


def find_module(model: nn.Module, where: str, given: nn.Module | str) -> nn.Module:
    """Return the module of the model that is given as such or by its dotted name."""
    known: dict[str, nn.Module] = dict(model.named_modules())
    if isinstance(given, str):
        if given not in known:
            raise SetupError(f"{where}: " + unknown("module", given, filter(None, known)))
        return known[given]
    if not isinstance(given, nn.Module):
        raise SetupError(f"{where}: expected a module of the model, found {type(given).__name__}")
    if all(given is not module for module in known.values()):
        raise SetupError(
            f"{where} is not a module of the model that was given "
            f"({type(given).__name__} is not among the modules of {type(model).__name__}): "
            "pass the model that contains it"
        )
    return given
