"""From clips as they were downloaded to a folder of Parquet shards, in processes that may die.

`prepare` does it, `verify` checks what it made.
Finished shards stay whatever happens: the same call goes on where the last one stopped, and ends
with the same bytes.
"""

from equimodal.data.preparing.failures import MissingClipsError
from equimodal.data.preparing.prepare import Progress, prepare
from equimodal.data.preparing.recipe import Recipe
from equimodal.data.preparing.summary import Summary
from equimodal.data.preparing.verify import verify

__all__ = ["MissingClipsError", "Progress", "Recipe", "Summary", "prepare", "verify"]
