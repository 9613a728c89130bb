"""Numbers that the authors' released code gave: an oracle from our notes proves our notes alone.

Inputs and outputs are data of one run each in double precision; no code of theirs is here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equimodal.functional import lfm
from equimodal.functional.amco import reliance
from equimodal.functional.cml import confidence_excess
from equimodal.functional.data_remixing import separability
from equimodal.functional.distillation import feature_distance
from equimodal.functional.gradient_blending import blending_weights
from equimodal.functional.iprm import divergence, geodesic_mixture
from equimodal.functional.mbsd import self_distillation
from equimodal.functional.mcr import supervised_contrast
from equimodal.functional.mmpareto import min_norm_weight
from equimodal.functional.pmr import prototype_logits
from equimodal.methods.objective.alignment import FittedWeight


def tensors(*values: object) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


# ---------------------------------------------------------------------- LFM, NeurIPS 2024


LFM_PARAMETERS = (
    [[0.19, 0.54, -2.22], [0.26, -1.03, -0.5]],  # of the first encoder, before a tanh
    [0.27, -0.92],
    [[-0.04, 0.29], [-0.01, -0.91]],  # of the second, likewise
    [-1.09, -0.27],
    [[0.19, -0.22], [2.06, -0.04], [0.06, -0.77]],  # of the classifiers
    [1.1, 2.76, 0.18],
    [[-0.93, -1.51], [-0.66, 1.32], [0.04, -0.28]],
    [-0.13, 1.89, 3.11],
)
LFM_INPUTS = (
    [[-1.13, -0.09, 1.0], [-0.08, 0.18, 0.95], [-1.76, 1.01, 0.54], [0.28, -0.51, -1.47]],
    [[-1.06, 1.55], [-0.65, 2.57], [-2.02, -0.68], [0.43, -0.37]],
)


@pytest.mark.parametrize(
    ("weight", "slope"), [(0.95, -0.0063267474424206), (0.7, -0.003963842769447935)]
)
def test_the_slope_of_lfm(weight: float, slope: float) -> None:
    parameters = [p.requires_grad_() for p in tensors(*LFM_PARAMETERS)]
    one, two = tensors(*LFM_INPUTS)
    first = F.linear(F.linear(one, *parameters[0:2]).tanh(), *parameters[4:6])
    second = F.linear(F.linear(two, *parameters[2:4]).tanh(), *parameters[6:8])
    classification = F.cross_entropy((first + second) / 2, torch.ones(4, dtype=torch.long))
    alignment = lfm.mixture_first_divergence(first, second).mean()
    found = lfm.weight_slope(tensors(weight)[0], classification, alignment, parameters)
    assert found.item() == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize(
    ("epoch", "classification"),
    [
        (0, 0.204623704),
        (1, 0.20809851368241683),
        (50, 0.43668069671874993),
        (100, 0.5391551959999998),
        (199, 0.9159887524162471),
    ],
)
def test_the_fitted_weight_of_lfm(epoch: int, classification: float) -> None:
    """Over its 200 epochs, and at the same share of a training of 40."""
    weighting = FittedWeight().over(200)
    found = weighting.following(torch.zeros((), dtype=torch.float64), epoch, lambda: torch.ones(()))
    assert 1 - found.item() == pytest.approx(classification, rel=1e-9)
    if epoch % 5 == 0:
        shorter = FittedWeight().over(40)
        again = shorter.following(found, epoch // 5, lambda: torch.ones(()))
        assert again.item() == pytest.approx(found.item(), rel=1e-9)


# ---------------------------------------------------------------------- others, from a file


def released(method: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("released.json").read_text())
    return dict(found[method])


def test_the_penalty_of_cml() -> None:
    of = released("cml")
    subset, superset = tensors(of["subset"], of["superset"])
    found = confidence_excess(subset, superset, torch.tensor([0, 1, 2, 0, 1, 2])).sum()
    assert found.item() == pytest.approx(of["loss"], rel=1e-9)
    assert found > 0


def test_the_weights_of_mmpareto() -> None:
    of = released("mmpareto")
    joint, unimodal = (torch.cat(tensors(*of[which])) for which in ("joint", "unimodal"))
    weight = min_norm_weight(joint @ joint, joint @ unimodal, unimodal @ unimodal)
    assert [weight.item(), 1 - weight.item()] == pytest.approx(of["weights"], rel=1e-9)
    assert 0.01 < weight < 0.99


def test_the_distances_of_pmr() -> None:
    of = released("pmr")
    features, prototypes, distances = tensors(of["z"], of["p"], of["d"])
    torch.testing.assert_close(-prototype_logits(features, prototypes), distances)


def test_the_mixture_and_the_divergence_of_iprm() -> None:
    of = released("iprm")
    first, second, mixed, own, other = tensors(*(of[k] for k in ("a", "b", "mixed", "u", "w")))
    found = geodesic_mixture(first, second, torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(found, mixed, rtol=1e-6, atol=1e-7)
    assert divergence(own, other).mean().item() == pytest.approx(of["kl"], rel=1e-9)


def test_the_separability_of_data_remixing() -> None:
    of = released("data-remixing")
    (logits,) = tensors(of["u"])
    assert separability(logits).tolist() == pytest.approx(of["kl"], rel=1e-7)


def test_the_contrast_and_the_divergence_of_mcr() -> None:
    of = released("mcr")
    (vectors,) = tensors(of["vectors"])
    found = supervised_contrast(vectors, torch.tensor(of["target"]), temperature=0.5)
    assert found.item() == pytest.approx(of["loss"], rel=1e-9)
    first, second = tensors(*of["divergence_of"])
    divergence = lfm.jensen_shannon_divergence(first, second).mean()
    assert divergence.item() == pytest.approx(of["divergence"], rel=1e-9)


# ---------------------------------------------------------------------- of a toolkit, where the
# authors' code is not to be had: a second witness of our notes, but not of theirs


def test_the_distance_of_mbsd() -> None:
    of = released("mbsd")
    (logits,) = tensors(of["unimodal"])
    found, _ = self_distillation(logits, torch.tensor(of["target"]))
    assert found.item() == pytest.approx(of["similarity"], rel=1e-9)
    assert found > 0


def test_the_shares_of_amco() -> None:
    of = released("amco")
    (logits,) = tensors(of["unimodal"])
    shares = reliance(logits).mean(dim=1)
    assert shares.tolist() == pytest.approx(of["shares"], rel=1e-9)
    assert (shares > 0.5).tolist() == of["dependent"]


def test_the_weights_of_gradient_blending() -> None:
    of = released("gradient-blending")
    order = ("train_before", "held_out_before", "train_after", "held_out_after")
    found = blending_weights(*tensors(*(of[name] for name in order)))
    assert found.tolist() == pytest.approx(of["weights"], rel=1e-9)


def test_the_distance_of_umt() -> None:
    of = released("umt")
    student, teacher = tensors(of["student"], of["teacher"])
    found = feature_distance(student, teacher)
    assert found.item() == pytest.approx(of["distance"], rel=1e-9)
