"""Preferences: what a model says of two answers to the same question.

Rafailov et al., *Direct Preference Optimization*, NeurIPS 2023, equation 7.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def preference_losses(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    r"""Negative logarithm of the probability that the chosen answer is preferred, for each pair.

    .. math:: \ell_i = -\log \sigma\Big(\beta \log \frac{\pi(y^w_i \mid x_i)}{\pi_0(y^w_i \mid x_i)}
        - \beta \log \frac{\pi(y^l_i \mid x_i)}{\pi_0(y^l_i \mid x_i)}\Big)

    Args:
        policy: log-probabilities of whole answers under the model, shape ``(2, B)``, floating
            point; row 0 those chosen, row 1 those rejected.
        reference: the same under the frozen reference.
        beta: how far the model may go from the reference, above 0.

    Returns:
        Losses, shape ``(B,)``; log 2 where the model is the reference.

    >>> import torch
    >>> policy = torch.tensor([[-1.0, -2.0], [-3.0, -2.0]])
    >>> preference_losses(policy, torch.full((2, 2), -2.0), beta=0.5).exp().reciprocal()
    tensor([0.7311, 0.5000])
    """
    gain = policy - reference
    return -F.logsigmoid(beta * (gain[0] - gain[1]))
