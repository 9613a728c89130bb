"""Words counted by their hash: a text as a vector, without a vocabulary."""

from __future__ import annotations

import itertools
import re
import zlib

import torch
from torch import Tensor

WORD = re.compile(r"\$\w+\$|\w+")
MOST = 255  # times that a word counts


def counted(text: str, words: int) -> Tensor:
    """Return how often words, and pairs of neighbours, occur: uint8, shape ``(words,)``.

    Where a word counts is its CRC-32 modulo `words`, in any case and on any machine: two may fall
    together. Pairs keep a little of the order. A pair does not go over the end of a line.

    >>> counted("Apple pie, apple tart", 64).sum()  # 4 words, 3 pairs
    tensor(7)
    """
    found = []
    for line in text.casefold().splitlines():
        single = WORD.findall(line)
        found += single + [" ".join(pair) for pair in itertools.pairwise(single)]
    places = torch.tensor([zlib.crc32(word.encode()) % words for word in found], dtype=torch.int64)
    return torch.bincount(places, minlength=words).clamp(max=MOST).to(torch.uint8)
