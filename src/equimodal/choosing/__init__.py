"""One command chooses: which method, if any, to train with, on a user's own model and data.

Needs the extra ``compare``.
"""

from equimodal.system.extras import require

require("compare", "lightning", "torchmetrics", "scipy")
require("report", "matplotlib")

from equimodal.choosing.choice import Choice, predictions  # noqa: E402
from equimodal.choosing.choose import choose  # noqa: E402
from equimodal.choosing.plan import Plan, planned  # noqa: E402
from equimodal.choosing.seeds import seed_all, seed_epoch  # noqa: E402
from equimodal.choosing.trainings import Told  # noqa: E402

__all__ = ["Choice", "Plan", "Told", "choose", "planned", "predictions", "seed_all", "seed_epoch"]
