"""Build the site: `make docs`. Any warning is an error, so that no link or name leads nowhere.

    python docs/site/build.py [--out build/site]

The page to open is OUT/html/index.html; its search needs a server (`python -m http.server`) only
for the excerpts below what it finds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sphinx.cmd.build import build_main
from stage import ROOT, stage


def main() -> int:
    """Build, and say where and how long it took."""
    parser = argparse.ArgumentParser(description="Build the documentation.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="folder")
    out: Path = parser.parse_args().out
    begun = time.monotonic()
    stage(out / "pages")
    how = [f"-c{Path(__file__).parent}", f"-d{out / 'read'}", "-bhtml", "-j2", "-q"]
    status = build_main([*how, "--fail-on-warning", str(out / "pages"), str(out / "html")])
    if not status:
        print(f"{out / 'html' / 'index.html'}, in {time.monotonic() - begun:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
