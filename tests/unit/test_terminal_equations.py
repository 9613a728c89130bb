"""Equations in a terminal."""

from __future__ import annotations

import pytest

from equimodal.cli.equations import plain


@pytest.mark.parametrize(
    ("latex", "said"),
    [
        (r"\theta_m \leftarrow \theta_m - \eta \nabla L", "θ_m ← θ_m - η ∇ L"),
        (r"x_{j \ne m}^{2}", "x_(j ≠ m)²"),
        (r"\frac{a}{b}", "a / b"),
        (r"\frac{1}{M - 1} \sum_j s_j", "(1 / (M - 1)) Σ_j s_j"),
        (r"\tfrac12 b + \tfrac12", "(1 / 2) b + 1 / 2"),
        (r"a = 1, \quad b = 2", "a = 1,\nb = 2"),
        (r"k \text{ if } \rho > 1 \text{, else } 1", "k if \u03c1 > 1, else 1"),
        (r"\max\left(0, \frac{\|a\|}{b}\right)", "max(0, ‖a‖ / b)"),
        (r"\hat y, \overline{w x}", "y\u0302, mean(w x)"),
        (r"\mathrm{softmax}(u) + \log_{10} v", "softmax(u) + log_10 v"),
        (r"\mathcal N(0, \sigma^2)", "N(0, σ²)"),
        (r"S \not\ni m, \; \{a\}", "S ∋\u0338 m, {a}"),
        (r"\unheardof{a}", "unheardof a"),
    ],
)
def test_signs_in_place_of_latex(latex: str, said: str) -> None:
    assert plain(latex) == said
    assert "\\" not in plain(latex)
