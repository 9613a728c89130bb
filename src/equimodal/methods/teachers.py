"""Frozen unimodal models that teach a multimodal one."""

from __future__ import annotations

import copy
import ctypes
import weakref
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from equimodal.errors import MatchError, SetupError
from equimodal.method import Capabilities, Method
from equimodal.methods.remembered import Remembered
from equimodal.readout import feature_vectors, move
from equimodal.step import Shapes, Step


class Taught(NamedTuple):
    """What a teacher says of one micro-batch: logits ``(B, ...)`` and pooled feature ``(B, D)``.

    Both in double precision for a model in double precision, else in single.
    """

    logits: Tensor
    feature: Tensor


class Teachers:
    """Teachers of a method: frozen copies in evaluation mode, held outside of its modules.

    What they are is the user's to keep: they enter no state, which has a checksum of them only.

    Args:
        given: for each modality a module from the encoder's input to logits and feature.
        cached: for whom answers are kept, for messages; "" where each step asks.

    Attributes:
        checksums: one number for each teacher, from all its parameters and buffers.

    Raises:
        SetupError: a teacher is no module.
    """

    def __init__(self, given: Mapping[str, nn.Module], cached: str = "") -> None:
        if not isinstance(given, Mapping) or not given:
            raise SetupError(
                'teachers: expected a module for each modality, such as {"audio": eq.Teacher('
                f"encoder, classifier), ...}}, found {given!r}"
            )
        for name, module in given.items():
            if not isinstance(module, nn.Module):
                raise SetupError(f"teachers[{name!r}]: expected a module, found {module!r}")
        # Copies: a teacher may be the student's own encoder as it was, and neither its mode nor
        # whether the user trains it elsewhere is for a method to change.
        self.modules = {
            name: copy.deepcopy(module).eval().requires_grad_(False)
            for name, module in given.items()
        }
        self.checksums = {name: _checksum(module) for name, module in self.modules.items()}
        self._known = {name: Remembered(cached) for name in self.modules if cached}
        self._latest: tuple[weakref.ref[Step], dict[str, Taught]] | None = None

    def move(self, device: torch.device) -> None:
        """Move the teachers to the device of the features."""
        for module in self.modules.values():
            move(module, device)

    def answers(self, step: Step) -> dict[str, Taught]:
        """Return what the teachers say of a step, without gradients; computed once per step.

        A modality whose encoder did not run in this step has no entry.

        Raises:
            MatchError: a teacher's answer does not fit the step.
        """
        if self._latest is None or self._latest[0]() is not step:
            answers = {}
            with torch.no_grad():
                for name in step.names:
                    if name in step.encoders and name in self.modules:
                        answers[name] = self._ask(name, step)
            self._latest = weakref.ref(step), answers
        return self._latest[1]

    def _ask(self, name: str, step: Step) -> Taught:
        inputs = step.encoders[name][0]
        if name in self._known:
            answer = self._known[name].answers(
                inputs, step.size, step.epoch, lambda given: self._told(name, given)
            )
        else:
            answer = self._told(name, inputs)
        logits, feature = answer
        if _numbers(logits) and _numbers(step.logits) and len(logits) == len(step.logits):
            logits = logits.view_as(step.logits)  # with or without a dimension of one class
        if logits.shape != step.logits.shape:
            raise MatchError(
                f"teachers[{name!r}]: expected logits of shape {tuple(step.logits.shape)}, found "
                f"{tuple(logits.shape)}. A teacher is given what the encoder is given, and must "
                "answer for every sample of the batch"
            )
        feature = feature_vectors(feature)
        own = feature_vectors(step.features[name])
        if feature.shape != own.shape:
            raise MatchError(
                f"teachers[{name!r}]: expected a feature that is {own.shape[1]} wide, as that of "
                f"the model, found shape {tuple(feature.shape)}: use the same encoder"
            )
        precision = step.shapes.dtype
        return Taught(logits.to(precision), feature.to(precision))

    def _told(self, name: str, inputs: Any) -> tuple[Tensor, ...]:
        """Return what a teacher says of inputs: logits and feature, as it gives them."""
        teacher = self.modules[name]
        floating = (p.dtype for p in teacher.parameters() if p.is_floating_point())
        args, kwargs = _cast(inputs, next(floating, None))
        answer = teacher(*args, **kwargs)
        pair = isinstance(answer, tuple | list) and len(answer) == 2
        if not pair or not all(isinstance(part, Tensor) for part in answer):
            raise MatchError(
                f"teachers[{name!r}]: expected (logits, feature), found {type(answer).__name__}: "
                "let it return both, or write eq.Teacher(encoder, classifier)"
            )
        return tuple(answer)

    @property
    def remembered(self) -> int:
        """Bytes that kept answers take."""
        return sum(known.nbytes for known in self._known.values())


class TaughtMethod(Method):
    """A method with a frozen teacher for every modality: what those of distillation share.

    Args:
        teachers: for each modality a module that takes what the encoder takes and returns logits
            and feature: `eq.Teacher(encoder, classifier)`, those of `eq.teachers_of(balancer,
            batch)`, or your own. They are copied, and frozen in evaluation mode. Teachers of other
            modalities are not used.
        cached: keep what they say of an input, and do not ask again when it comes back.

    Attributes:
        remembered: bytes that is kept in.

    Raises:
        SetupError: a teacher is no module; when attached, a modality has none.
    """

    needs = frozenset({"encoder inputs"})
    capabilities = Capabilities()

    def __init__(self, teachers: Mapping[str, nn.Module], cached: bool = False) -> None:
        super().__init__()
        self.cached = cached
        self._teachers = Teachers(teachers, type(self).__name__ if cached else "")

    @property
    def remembered(self) -> int:
        return self._teachers.remembered

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        missing = [name for name in names if name not in self._teachers.modules]
        if missing:
            raise SetupError(
                f"{type(self).__name__}: no teacher for {', '.join(missing)}, there are teachers "
                f"for {', '.join(self._teachers.modules)}"
            )

    def build(self, shapes: Shapes) -> None:
        self._teachers.move(shapes.device)

    def answers(self, step: Step) -> dict[str, Taught]:
        """Return what the teachers say of a step, without gradients; computed once per step."""
        return self._teachers.answers(step)

    def get_extra_state(self) -> dict[str, int]:
        return {name: self._teachers.checksums[name] for name in self.names}

    def set_extra_state(self, state: dict[str, int]) -> None:
        for name, checksum in state.items():
            if self._teachers.checksums.get(name) != checksum:
                raise SetupError(
                    f"{type(self).__name__}: this state is of another teacher for {name}: load the "
                    "teachers that the run began with"
                )


def _numbers(logits: Tensor) -> bool:
    """Whether each sample has a single number, as in regression."""
    return logits.ndim > 0 and logits.numel() == len(logits)


def _cast(tree: Any, dtype: torch.dtype | None) -> Any:
    """Return nested inputs with their floating point tensors in the teacher's precision."""
    if isinstance(tree, Tensor):
        return tree.to(dtype) if tree.is_floating_point() else tree
    if isinstance(tree, Mapping):
        return {key: _cast(value, dtype) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(_cast(value, dtype) for value in tree)
    return tree


def _checksum(module: nn.Module) -> int:
    """Return a number that changes with any bit of the module's parameters and buffers."""
    total = 0
    for name, value in sorted(module.state_dict().items()):
        total = zlib.crc32(name.encode(), total)
        if isinstance(value, Tensor) and value.numel():
            flat = value.detach().cpu().contiguous().reshape(-1)
            content = (ctypes.c_char * flat.nbytes).from_address(flat.data_ptr())  # without NumPy
            total = zlib.crc32(content, total)
    return total
