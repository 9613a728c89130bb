"""Studies: methods x settings x paired seeds, with honest statistics.

Needs the extras ``compare`` and ``report``.
"""

from equimodal.system.extras import require

require("compare", "lightning", "torchmetrics", "scipy")
require("report", "matplotlib")

from equimodal.compare.candidates import rows_of  # noqa: E402
from equimodal.compare.runs import Entry, Run, main_job  # noqa: E402
from equimodal.compare.statistics import Estimate, difference, estimate  # noqa: E402
from equimodal.compare.study import Comparison, Progress, run_all  # noqa: E402
from equimodal.compare.subject import Subject  # noqa: E402
from equimodal.compare.summary import Row  # noqa: E402
from equimodal.compare.verdict import verdict  # noqa: E402

__all__ = [
    "Comparison",
    "Entry",
    "Estimate",
    "Progress",
    "Row",
    "Run",
    "Subject",
    "difference",
    "estimate",
    "main_job",
    "rows_of",
    "run_all",
    "verdict",
]
