"""Equations as a terminal can show them: letters and signs in place of LaTeX."""

from __future__ import annotations

import re

SIGNS = {
    **dict(zip(
        ("alpha", "beta", "gamma", "delta", "Delta", "epsilon", "eta", "theta", "Theta", "kappa",
         "lambda", "mu", "rho", "sigma", "tau", "phi", "omega", "ell", "nabla", "partial"),
        "αβγδΔεηθΘκλμρστφωℓ∇∂", strict=True,
    )),
    "sum": "Σ", "prod": "Π", "leftarrow": "←", "ne": "≠", "le": "≤", "ge": "≥", "in": "∈",
    "ni": "∋", "supset": "⊃", "cup": "\u222a", "odot": "⊙", "cdot": "·", "propto": "∝", "sim": "~",
    "dots": "…", "top": "T", "lVert": "‖", "rVert": "‖", "Vert": "‖", "|": "‖", "lfloor": "⌊",
    "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "{": "{", "}": "}", "quad": "\n", "qquad": "\n",
    ",": "", ";": " ", ":": " ", "!": "", " ": " ",
}  # fmt: skip
SILENT = {"left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "textstyle"}
FONTS = {"mathrm", "mathbb", "mathcal", "operatorname"}
WORDS = {"text"}  # keep the spaces around them
ACCENTS = {"hat": "\u0302", "tilde": "\u0303", "bar": "\u0304", "overline": "\u0304"}
RAISED = dict(zip("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True))
# What may follow a fraction without being taken for a part of it.
AFTER = {
    "",
    ",",
    ")",
    "]",
    "+",
    "-",
    "=",
    "}",
    r"\quad",
    r"\qquad",
    r"\right",
    r"\leftarrow",
    r"\bigr",
}
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)


def plain(latex: str) -> str:
    r"""Return an equation in plain text; what stands beside it, after a `\quad`, is a line below.

    >>> print(plain(r"g_m \leftarrow k_m\, g_m, \quad k_m = \frac{a}{b + 1} \text{ if } a > 1"))
    g_m ← k_m g_m,
    k_m = (a / (b + 1)) if a > 1
    """
    tokens = TOKEN.findall(" ".join(latex.split()))[::-1]  # the next one is the last
    found = _until(tokens, "")
    return "\n".join(_spaced(line) for line in found.split("\n") if line.strip())


def _until(tokens: list[str], end: str) -> str:
    """Take tokens up to one that ends a group, and return what they say."""
    said = ""
    while tokens:
        token = tokens.pop()
        if token == end:
            break
        said += _one(token, tokens)
    return said


def _one(token: str, tokens: list[str]) -> str:
    """Return what a token says, with the arguments that it takes from those that follow."""
    name = token.removeprefix("\\")
    if token == "{":
        return _until(tokens, "}")
    if token in "_^":
        return _script(token, _argument(tokens))
    if token == name:
        return token
    if name in ("frac", "tfrac"):
        above, below = _argument(tokens), _argument(tokens)
        share = f"{_held(above)} / {_held(below)}"
        follows = next((each for each in reversed(tokens) if not each.isspace()), "")
        return f" {share} " if follows in AFTER else f" ({share}) "
    if name in WORDS or name in FONTS:
        inside = _argument(tokens)
        return inside if name in WORDS else inside + ("" if len(inside) == 1 else " ")
    if name in ACCENTS:
        over = _argument(tokens).strip()
        return over + ACCENTS[name] if len(over) == 1 else f"mean({over})"
    if name == "not":
        return _argument(tokens) + "\u0338"
    if name in SILENT:
        return ""
    sign = SIGNS.get(name, name)  # tanh, log, max and others are their names
    return f"{sign} " if len(sign) > 1 and sign.isalpha() else sign


def _argument(tokens: list[str]) -> str:
    """Return what the next token, or the next group, says."""
    while tokens and tokens[-1].isspace():
        tokens.pop()
    return _one(tokens.pop(), tokens) if tokens else ""


def _script(kind: str, inside: str) -> str:
    inside = inside.strip()
    if inside.startswith("(") and inside.endswith(")"):
        return f"{kind}{inside}"
    if kind == "^" and inside in RAISED:
        return RAISED[inside]
    return f"{kind}{inside}" if len(inside) == 1 or inside.isalnum() else f"{kind}({inside})"


def _held(text: str) -> str:
    """Put a numerator or denominator in parentheses where it is more than one thing."""
    text = _spaced(text)
    return f"({text})" if re.search(r"[ +\-=]", text) else text


def _spaced(text: str) -> str:
    """Return text with single spaces, and none where a bracket or a comma follows or precedes."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<=[(\[]) | (?=[,)\]])", "", text)
    return re.sub(r"\b(?!if|for|then|with)([A-Za-z]{2,}) (?=[_(\[])", r"\1", text)
