"""Single images of IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from equimodal.data.media.file import present
from equimodal.data.media.refusal import Undecodable
from equimodal.system.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = 0x00000803  # unsigned bytes, three axes


def picture(path: Path, index: int) -> bytes:
    """Return one image of an IDX file as PNG, whose bytes are the same each time.

    The last file stays in memory, so that its images are cheap in any order.

    Args:
        path: of the file; compressed by gzip or not, whatever its name.
        index: which image, counted from 0.

    Raises:
        Undecodable: there is no such file or image, or the file is no such file.
    """
    require("data", "numpy", "PIL")
    from PIL import Image

    stat = present(path).stat()
    images = _images(path.absolute(), stat.st_size, stat.st_mtime_ns)
    if not 0 <= index < len(images):
        raise Undecodable(f"no image with this index: {index} of {len(images)}")
    file = io.BytesIO()
    Image.fromarray(images[index]).save(file, "PNG", optimize=False, compress_level=6)
    return file.getvalue()


@lru_cache(maxsize=1)
def _images(path: Path, size: int, changed: int) -> NDArray[np.uint8]:
    """Return all images (N, height, width); size and time tell a file from a later one."""
    import numpy as np

    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except EOFError:
        raise Undecodable("truncated: the gzip file ends early") from None
    except (OSError, zlib.error) as error:
        raise Undecodable(f"unreadable: {error}") from error
    if len(content) < 16 or struct.unpack_from(">I", content)[0] != MAGIC:
        raise Undecodable("unreadable: not an IDX file of images")
    count, height, width = struct.unpack_from(">III", content, 4)
    one = height * width
    if not one or len(content) < 16 + count * one:
        whole = (len(content) - 16) // one if one else 0
        raise Undecodable(f"truncated: {whole} of {count} images")
    return np.frombuffer(content, np.uint8, count * one, 16).reshape(count, height, width)
