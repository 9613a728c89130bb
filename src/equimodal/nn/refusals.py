"""What encoders, heads and models refuse, where it enters."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from numbers import Integral

from torch import Tensor, nn

from equimodal.errors import SetupError


def refuse_sizes(owner: nn.Module, **sizes: int) -> None:
    """Refuse sizes that are no whole number of 1 or more."""
    for what, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            raise SetupError(
                f"{type(owner).__name__}({what}): expected a whole number of 1 or more, "
                f"found {size!r}"
            )


def refuse_dropout(owner: nn.Module, dropout: float) -> None:
    """Refuse a probability that is not at least 0 and below 1."""
    if not 0 <= dropout < 1:
        raise SetupError(
            f"{type(owner).__name__}(dropout): expected a probability of at least 0 and below 1, "
            f"found {dropout!r}"
        )


def refuse_names(owner: nn.Module, argument: str, names: Iterable[str]) -> None:
    """Refuse names of modalities that cannot name a submodule, and with it its parameters."""
    for name in names:
        where = f"{type(owner).__name__}({argument}): modality {name!r}"
        if not isinstance(name, str) or not name:
            raise SetupError(f"{where}: expected a name, such as 'audio'")
        if "." in name:
            raise SetupError(
                f"{where}: expected a name without dots, which separate the names of submodules: "
                f"write {name.replace('.', '_')!r}"
            )
        if hasattr(nn.ModuleDict(), name):
            raise SetupError(f"{where}: torch gives this name a meaning of its own: change it")


def refuse_inputs(owner: nn.Module, names: Iterable[str], inputs: Sized) -> None:
    """Refuse more or fewer positional inputs than there are modalities."""
    expected = list(names)
    if len(inputs) != len(expected):
        raise SetupError(
            f"{type(owner).__name__}: expected inputs of {', '.join(expected)}, "
            f"found {len(inputs)} arguments"
        )


def refuse_shape(owner: nn.Module, tensor: Tensor, *expected: tuple[str | int, ...]) -> None:
    """Refuse a tensor that has none of the expected shapes; a word stands for any size."""
    shape = tuple(tensor.shape)
    for sizes in expected:
        if len(sizes) == len(shape) and all(
            isinstance(size, str) or size == found for size, found in zip(sizes, shape, strict=True)
        ):
            return
    spelt = " or ".join(f"({', '.join(map(str, sizes))})" for sizes in expected)
    raise SetupError(f"{type(owner).__name__}: expected a tensor of shape {spelt}, found {shape}")
