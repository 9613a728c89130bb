"""Figures, and later the page that reports a comparison. Needs the extra ``report``."""

from equimodal.extras import require

require("report", "matplotlib")

from equimodal.report.curves import learning_curves, save  # noqa: E402

__all__ = ["learning_curves", "save"]
