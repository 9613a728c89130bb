"""The reference trainer, on Lightning and the public API alone. Needs the extra ``train``."""

from equimodal.system.extras import require

require("train", "lightning", "torchmetrics")

from equimodal.training.fit import fit  # noqa: E402
from equimodal.training.models import Encoder, Fusion, model_for  # noqa: E402
from equimodal.training.module import BalancedModule  # noqa: E402
from equimodal.training.refit import refit  # noqa: E402
from equimodal.training.result import Result  # noqa: E402
from equimodal.training.settings import Settings  # noqa: E402
from equimodal.training.teaching import train_teachers  # noqa: E402

__all__ = [
    "BalancedModule",
    "Encoder",
    "Fusion",
    "Result",
    "Settings",
    "fit",
    "model_for",
    "refit",
    "train_teachers",
]
