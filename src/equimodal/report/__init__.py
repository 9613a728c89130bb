"""Figures, and the page that reports on results. Needs the extra ``report``.

The page is made by `equimodal.report.document.write_report`, which also needs ``compare``. That
room draws its own figure with this one, so that the page is not imported here.
"""

from equimodal.system.extras import require

require("report", "matplotlib")

from equimodal.report.curves import learning_curves, save  # noqa: E402

__all__ = ["learning_curves", "save"]
