"""One row per method: how the generic tests make it. A test fails when a row is missing."""

from __future__ import annotations

from collections.abc import Callable

import equimodal as eq
from equimodal import testing
from equimodal.nn import MLP, MMTM
from support.teachers import teachers


def ogm() -> eq.Method:
    return eq.OGM(alpha=0.8)


def ogm_ge() -> eq.Method:
    return eq.OGMGE(alpha=0.8)


def unimodal() -> eq.Method:
    return eq.Unimodal("audio")


def arl() -> eq.Method:
    return eq.ARL(start=-1)


def amco() -> eq.Method:
    return eq.AMCo(ramp=1.5)


def aug() -> eq.Method:
    return eq.AUG(every=1, dead_zone=0.0, most=3, width=8)


def data_remixing() -> eq.Method:
    return eq.DataRemixing(warm_up=1)


def di_mml() -> eq.Method:
    return eq.DIMML(contrast=1, encoding=2)


def diagnosing_relearning() -> eq.Method:
    return eq.DiagnosingRelearning(every=1, times=2)


def dynamic_mslr() -> eq.Method:
    return eq.DynamicMSLR(epochs=2)


def g2d() -> eq.Method:
    return eq.G2D(teachers(), gating=(0, 1))


def gradient_blending() -> eq.Method:
    return eq.GradientBlending(eq.OnlineBlending(1))


def host(modalities: int = 2) -> MMTM:
    """Gates between branches, which Greedy needs."""
    names = testing.NAMES[:modalities]
    branches = {name: MLP(4 + i, (7, 6), 5 + i) for i, name in enumerate(names)}
    return MMTM(branches, testing.CLASSES)


@testing.on(host)
def greedy() -> eq.Method:
    return eq.Greedy(tolerance=0.05, duration=2, start=0)


def mcr() -> eq.Method:
    return eq.MCR(permutations=4, reconstruction=1.0)


def midas() -> eq.Method:
    return eq.MIDAS(warm_up=0)


def modality_valuation() -> eq.Method:
    return eq.ModalityValuation(warm_up=1, part=0.5)


def mses() -> eq.Method:
    return eq.MSES(patience=1, restore=True, smoothing=0.3)


def mslr() -> eq.Method:
    return eq.MSLR({"audio": 0.5, "visual": 1.5})


def opm() -> eq.Method:
    return eq.OPM(warm_up=0)


def pretraining() -> eq.Method:
    return eq.Pretraining(1)


def reconboost() -> eq.Method:
    return eq.ReconBoost(boosting_epochs=1, rectifying_epochs=1)


def sample_valuation() -> eq.Method:
    return eq.SampleValuation(warm_up=1)


def umt() -> eq.Method:
    return eq.UMT(teachers())


METHODS: dict[str, Callable[[], eq.Method]] = {
    "agm": eq.AGM,
    "amco": amco,
    "amss": eq.AMSS,
    "arl": arl,
    "aug": aug,
    "bss": eq.BSS,
    "cggm": eq.CGGM,
    "cml": eq.CML,
    "data-remixing": data_remixing,
    "dgl": eq.DGL,
    "di-mml": di_mml,
    "diagnosing-relearning": diagnosing_relearning,
    "dynamic-mslr": dynamic_mslr,
    "ensemble": eq.Ensemble,
    "g2d": g2d,
    "ge": eq.GE,
    "gradient-blending": gradient_blending,
    "greedy": greedy,
    "inforeg": eq.InfoReg,
    "iprm": eq.IPRM,
    "joint": eq.Joint,
    "lfm": eq.LFM,
    "loss-weighting": eq.LossWeighting,
    "masam": eq.MASAM,
    "mbsd": eq.MBSD,
    "mcr": mcr,
    "midas": midas,
    "mimo": eq.MIMO,
    "mla": eq.MLA,
    "mmcosine": eq.MMCosine,
    "mmpareto": eq.MMPareto,
    "modality-dropout": eq.ModalityDropout,
    "modality-valuation": modality_valuation,
    "modgap": eq.ModGap,
    "mses": mses,
    "mslr": mslr,
    "multi-loss": eq.MultiLoss,
    "mwam": eq.MWAM,
    "ogm": ogm,
    "ogm-ge": ogm_ge,
    "olm": eq.OLM,
    "opm": opm,
    "passion": eq.PASSION,
    "pmr": eq.PMR,
    "pretraining": pretraining,
    "reconboost": reconboost,
    "sample-valuation": sample_valuation,
    "simbamm": eq.SimBaMM,
    "tcmax": eq.TCMax,
    "umt": umt,
    "unimodal": unimodal,
}


# Variants with another implementation behind them.


def smoothed_elements() -> eq.Method:
    return eq.OGMGE(alpha=0.8, smoothing=0.9, noise=eq.ElementNoise())


def on_updates() -> eq.Method:
    return eq.OGMGE(alpha=0.8, space="update")


def two_sided() -> eq.Method:
    return eq.OGM(alpha=0.8, coefficient=eq.TwoSided(beta=1.5))


def amss_plus() -> eq.Method:
    return eq.AMSS(scaling=eq.InverseProbability())


def uncertainty() -> eq.Method:
    return eq.LossWeighting(eq.Uncertainty())


VARIANTS: dict[str, Callable[[], eq.Method]] = {
    "loss-weighting, uncertainty": uncertainty,
    "amss+": amss_plus,
    "ogm-ge, smoothed, noise per element": smoothed_elements,
    "ogm-ge, on updates": on_updates,
    "ogm, two-sided": two_sided,
}
