"""Words that came with a clip."""

from __future__ import annotations

from equimodal.data.media.refusal import Undecodable


def words(text: str) -> str:
    r"""Return a text with one space between words, lines kept.

    Raises:
        Undecodable: there is no word in it.

    >>> words(" Apple   Pie \n (vegan)")
    'Apple Pie\n(vegan)'
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    kept = "\n".join(line for line in lines if line)
    if not any(character.isalnum() for character in kept):
        raise Undecodable("no text")
    return kept
