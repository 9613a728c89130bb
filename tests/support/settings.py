"""One row per method: how the generic tests make it. A test fails when a row is missing."""

from __future__ import annotations

from collections.abc import Callable

import equimodal as eq


def ogm() -> eq.Method:
    return eq.OGM(alpha=0.8)


def ogm_ge() -> eq.Method:
    return eq.OGMGE(alpha=0.8)


def unimodal() -> eq.Method:
    return eq.Unimodal("audio")


METHODS: dict[str, Callable[[], eq.Method]] = {
    "ensemble": eq.Ensemble,
    "ge": eq.GE,
    "joint": eq.Joint,
    "multi-loss": eq.MultiLoss,
    "ogm": ogm,
    "ogm-ge": ogm_ge,
    "unimodal": unimodal,
}


# Variants with another implementation behind them.


def smoothed_elements() -> eq.Method:
    return eq.OGMGE(alpha=0.8, smoothing=0.9, noise=eq.ElementNoise())


def on_updates() -> eq.Method:
    return eq.OGMGE(alpha=0.8, space="update")


def two_sided() -> eq.Method:
    return eq.OGM(alpha=0.8, coefficient=eq.TwoSided(beta=1.5))


VARIANTS: dict[str, Callable[[], eq.Method]] = {
    "ogm-ge, smoothed, noise per element": smoothed_elements,
    "ogm-ge, on updates": on_updates,
    "ogm, two-sided": two_sided,
}
