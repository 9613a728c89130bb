"""Which modalities a model uses, by asking it without them: for language models with eyes and ears.

`blind` asks any callable that scores samples; `opened` makes one of a Hugging Face model.
"""

from equimodal.diagnostics.blind.blind import blind
from equimodal.diagnostics.blind.conditions import AS_IS, FILLS, Condition
from equimodal.diagnostics.blind.found import Blind
from equimodal.diagnostics.blind.matching import Matcher
from equimodal.diagnostics.blind.opening import opened, scorer
from equimodal.diagnostics.blind.scores import Score, Scores, UnableError
from equimodal.diagnostics.blind.speaking import Speaker

__all__ = [
    "AS_IS",
    "FILLS",
    "Blind",
    "Condition",
    "Matcher",
    "Score",
    "Scores",
    "Speaker",
    "UnableError",
    "blind",
    "opened",
    "scorer",
]
