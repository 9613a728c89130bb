"""Raw downloads: from publishers with a direct public address, checked and resumable."""

from equimodal.data.download.failure import DownloadError
from equimodal.data.download.published import Elsewhere, Published
from equimodal.data.download.publishers import SETS, find
from equimodal.data.download.whole import Summary, download

__all__ = ["SETS", "DownloadError", "Elsewhere", "Published", "Summary", "download", "find"]
