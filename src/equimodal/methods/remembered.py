"""What a frozen module said of an input, known again when the same input comes back."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from equimodal.errors import MatchError

Answers = tuple[Tensor, ...]
PLAIN = (bool, int, float, str, type(None))


class Remembered:
    """Rows of answers, by the bits of the input that they are of.

    A sample is known by what is in it and not by its number, so that any order of any loop is
    right, and an input that random augmentation has changed is another input. The SHA-1 of its bits
    stands for them: no two that nobody has made up for it have the same. It is taken on the CPU;
    inputs that are elsewhere are brought there, and each step waits for them.

    Args:
        who: whose answers they are, for messages.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self._places: dict[tuple[Any, ...], int] = {}
        self._tables: Answers = ()
        self._epoch = self._known = self._asked = 0
        self._rows_apart = False

    @property
    def nbytes(self) -> int:
        """Memory that the answers take."""
        return sum(table.nbytes for table in self._tables)

    def answers(self, inputs: Any, size: int, epoch: int, ask: Callable[[Any], Answers]) -> Answers:
        """Return answers of every sample, asking for those that are not known.

        Args:
            inputs: nested tuples and dicts of tensors of shape ``(B, ...)`` and plain values.
            size: B.
            epoch: counted from 0.
            ask: gives the answers to inputs, each of shape ``(B, ...)``.

        Raises:
            MatchError: an input has no row for each sample; answers depend on the other rows of a
                batch; in an epoch after the first no input was known.
        """
        self._judge(epoch)
        keys = self._keys(inputs, size)
        new = [row for row, key in enumerate(keys) if key not in self._places]
        self._known, self._asked = self._known + size - len(new), self._asked + size
        if new:
            wanted = inputs if len(new) == size else _picked(inputs, new)
            told = ask(wanted)
            self._refuse_mixing(wanted, told, ask)
            self._keep([keys[row] for row in new], told)
            if len(new) == size:
                return told
        places = torch.tensor([self._places[key] for key in keys])
        return tuple(table[places.to(table.device)] for table in self._tables)

    def _judge(self, epoch: int) -> None:
        """Refuse to go on where a whole epoch brought nothing back.

        Raises:
            MatchError: it did not.
        """
        if epoch == self._epoch:
            return
        if self._epoch > 0 and self._asked and not self._known:
            raise MatchError(
                f"{self.who}, cached=True: none of the {self._asked} inputs of epoch {self._epoch} "
                "had been there before, as where augmentation is random: leave cached=True out, or "
                "augment only after the first epochs"
            )
        self._epoch, self._known, self._asked = epoch, 0, 0

    def _keys(self, inputs: Any, size: int) -> list[tuple[Any, ...]]:
        """Return what stands for the bits of each sample."""
        shared: list[Any] = []
        rows = [hashlib.sha1(usedforsecurity=False) for _ in range(size)]
        held = 0
        for leaf in _leaves(inputs):
            if not isinstance(leaf, Tensor):
                if not isinstance(leaf, PLAIN):
                    raise MatchError(
                        f"{self.who}, cached=True: the encoder is given a {type(leaf).__name__}, "
                        "and whether it is as before cannot be told: leave cached=True out"
                    )
                shared.append(leaf)
                continue
            if leaf.ndim == 0 or len(leaf) != size:
                raise MatchError(
                    f"{self.who}, cached=True: the encoder is given a tensor of shape "
                    f"{tuple(leaf.shape)}, and has no row for each of {size} samples: leave "
                    "cached=True out"
                )
            shared.append((leaf.dtype, leaf.shape[1:]))
            here = leaf.detach().cpu().contiguous()
            width = here.nbytes // size
            content = memoryview((ctypes.c_char * here.nbytes).from_address(here.data_ptr()))
            for row, digest in enumerate(rows):
                digest.update(content[row * width : (row + 1) * width])
            held += width
        if not held:
            raise MatchError(f"{self.who}, cached=True: the encoder is given no tensor")
        beside = tuple(shared)
        return [(beside, digest.digest()) for digest in rows]

    def _refuse_mixing(self, inputs: Any, told: Answers, ask: Callable[[Any], Answers]) -> None:
        """Refuse, once, answers that differ with the other rows of a batch.

        Raises:
            MatchError: they do.
        """
        rows = len(told[0])
        if self._rows_apart or rows < 2:
            return
        alone = ask(_picked(inputs, list(range(rows // 2))))
        for some, whole in zip(alone, told, strict=True):
            near = 1e-3 * float(whole.abs().max()) + 1e-6
            if not torch.allclose(some, whole[: rows // 2], rtol=1e-3, atol=near):
                raise MatchError(
                    f"{self.who}, cached=True: what it says of a sample depends on the others of "
                    "its batch: leave cached=True out"
                )
        self._rows_apart = True

    def _keep(self, keys: list[tuple[Any, ...]], told: Answers) -> None:
        start = len(self._places)
        rows: dict[tuple[Any, ...], int] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, row)  # one input may be there twice
        end = start + len(rows)
        if not self._tables:
            self._tables = tuple(part.new_empty(0, *part.shape[1:]) for part in told)
        if end > len(self._tables[0]):
            room = max(end, 2 * len(self._tables[0]))
            self._tables = tuple(
                torch.cat([table[:start], table.new_empty(room - start, *table.shape[1:])])
                for table in self._tables
            )
        picked = list(rows.values())
        for table, part in zip(self._tables, told, strict=True):
            table[start:end] = part if len(picked) == len(part) else part[picked]
        self._places.update({key: start + place for place, key in enumerate(rows)})


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        for key in tree:
            yield str(key)
            yield from _leaves(tree[key])
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from _leaves(value)
    else:
        yield tree


def _picked(tree: Any, rows: list[int]) -> Any:
    if isinstance(tree, Tensor):
        return tree[rows]
    if isinstance(tree, Mapping):
        return {key: _picked(value, rows) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(_picked(value, rows) for value in tree)
    return tree
