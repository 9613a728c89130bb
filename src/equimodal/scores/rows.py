"""What methods know of a head that they run on many sets of features."""

from __future__ import annotations

import torch

from equimodal.errors import MatchError
from equimodal.scores.generic import Structure, ask, by_rows
from equimodal.step import Step


class Head:
    """What a head is, and whether many sets of features may run through it in one call.

    BatchNorm in training mode, attention over the batch and an input beside the features that has
    an entry for every sample make a row depend on others or on its place. So the head is asked, in
    generic position and once for each mode, and the sets run one by one where they do.
    """

    def __init__(self) -> None:
        self._structure: Structure | None = None
        self._by_rows: dict[bool, bool] = {}

    def structure(self, step: Step) -> Structure:
        """Return what the head is; that it is nothing in particular where it cannot be asked."""
        if self._structure is None:
            if torch.compiler.is_compiling() or step.question is None or not step.handed_on:
                return Structure(False)
            try:
                self._structure = ask(step.question())
            except MatchError:  # of scores; a method that runs the head needs no answer
                self._structure = Structure(False)
        return self._structure

    def takes_rows(self, step: Step) -> bool:
        """Whether each row of its answer follows from the same row of the features alone.

        In the mode that it is in. One sample tells nothing, and many sets of it are run one by one.
        """
        training = step.boundary.training
        if step.size < 2 or torch.compiler.is_compiling():
            return False
        if training not in self._by_rows:
            if step.question is None or not step.handed_on:
                return False
            try:
                question = step.question()
            except MatchError:
                return False
            given = question.layout.read(question.inputs)
            first = all(given[n].shape[:1] == step.logits.shape[:1] for n in step.names)
            self._by_rows[training] = first and by_rows(question, training)
        return self._by_rows[training]
