"""Make the pictures of a report that the documentation shows: its top, on a desktop and a phone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIZES = {"desktop": (1280, 1400), "phone": (390, 1400)}
LARGEST = 200_000  # bytes


def main() -> None:
    """Take the pictures of a page that `equimodal report` has made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="report.html")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help="folder")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from support.chromium import Chromium  # type: ignore[import-not-found]

    with Chromium() as browser:
        for name, (width, height) in SIZES.items():
            browser.open(options.page, width, height, dark=name == "phone")
            path = options.out / f"report-{name}.png"
            browser.screenshot(path)
            size = path.stat().st_size
            if size > LARGEST:
                raise SystemExit(f"{path}: {size} bytes, expected at most {LARGEST}")
            print(path, size)


if __name__ == "__main__":
    main()
