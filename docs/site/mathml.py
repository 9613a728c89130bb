"""Equations as MathML, which browsers draw by themselves: no script, and no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def mathml(latex: str, *, block: bool) -> str:
    r"""Return an equation as MathML.

    >>> mathml(r"\rho > 1", block=False).count("<mi>")
    1
    """
    # Lines outside of an environment are those of one: Sphinx writes it around them for TeX.
    if block and re.search(r"\\\\|&", latex) and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    return convert(latex.strip(), display="block" if block else "inline")


def parts(latex: str) -> list[str]:
    r"""Return the equations of one line, which may stand below each other on a narrow screen.

    >>> parts(r"a = b, \qquad c = \begin{cases} 1 & d \qquad e \end{cases}")
    ['a = b,', 'c = \\begin{cases} 1 & d \\qquad e \\end{cases}']
    """
    found = [""]
    depth = 0
    for token in re.findall(r"\\[A-Za-z]+|\\.|.", latex, flags=re.DOTALL):
        depth += (token in ("{", r"\begin", r"\left")) - (token in ("}", r"\end", r"\right"))
        if token == r"\qquad" and not depth:
            found.append("")
        else:
            found[-1] += token
    return [each.strip() for each in found if each.strip()]


def inline(writer: Any, node: nodes.math) -> None:
    """Write an equation within a line."""
    writer.body.append(f'<span class="math">{mathml(node.astext(), block=False)}</span>')
    raise nodes.SkipNode


def displayed(writer: Any, node: nodes.math_block) -> None:
    """Write an equation in a line of its own; it breaks or scrolls on a narrow screen."""
    drawn = "".join(f"<div>{mathml(each, block=True)}</div>" for each in parts(node.astext()))
    writer.body.append(f'<div class="math">{drawn}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the renderer known to Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
