"""Open the site in headless Chromium: `make docs` ends with it, where there is a Chromium.

    python docs/site/browse.py [--html build/site/html] [--pictures FOLDER]

Every page is opened as wide as a phone: nothing may be wider than the screen, no message may reach
the console, and nothing may be asked of another host. The search has to find what people look for.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
PHONE = 390
WIDTHS = (PHONE, 768, 1280, 1920)
SHOWN = ("index", "methods", "docs/methods/ogm", "docs/methods/results", "api/equimodal.functional")
LISTINGS = ("_modules/", "source/", "genindex", "py-modindex")  # of code, and of names
SEARCHED = {
    "ogm": "docs/methods/ogm",
    "accumulation": "docs/loop",
    "missing modality": "docs/attach",
}
FOUND = "[...document.querySelectorAll('ul.search li > a')].map(a => a.href)"
TOO_WIDE = (
    "[...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > "
    "innerWidth + 1 && !e.closest('pre, .table-wrapper, div.math, span.math')).map(e => "
    "e.outerHTML.slice(0, 90))"
)


class Quiet(SimpleHTTPRequestHandler):
    """A server that does not speak of every file."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a port that is free, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def faults(html: Path, pages: list[str], searched: dict[str, str]) -> list[str]:
    """Return what is wrong with a site, in words; nothing if all is well.

    Args:
        html: the folder of the site.
        pages: those to open, without suffix.
        searched: what to search for, and a page that has to be found.
    """
    from support.chromium import Chromium

    wrong = []
    with served(html) as base, Chromium() as browser:

        def heard(page: str) -> None:
            wrong.extend(f"{page}: console: {said}" for said in browser.console)
            outside = [u for u in browser.requests if not u.startswith((base, "data:"))]
            wrong.extend(f"{page}: asks for {url}" for url in outside)

        for page in pages:
            browser.open(f"{base}{page}.html", PHONE)
            width = browser.value("document.documentElement.scrollWidth")
            if width > PHONE:
                wrong.append(f"{page}: {width} wide on a screen of {PHONE}")
            wrong.extend(f"{page}: too wide: {each}" for each in browser.value(TOO_WIDE))
            heard(page)
        for words, page in searched.items():
            browser.open(f"{base}search.html?q={words.replace(' ', '+')}")
            found: list[str] = []
            for _ in range(100):
                found = browser.value(FOUND)
                if any(f"/{page}.html" in each for each in found):
                    break
                time.sleep(0.1)
            else:
                wrong.append(f"search for {words!r}: {page} is not among {len(found)} found")
            heard(f"search for {words!r}")
    return wrong


def pictures(html: Path, out: Path) -> None:
    """Take pictures of some pages at all widths, light and, on the widest, dark."""
    from support.chromium import Chromium

    out.mkdir(parents=True, exist_ok=True)
    with served(html) as base, Chromium() as browser:
        for page in SHOWN:
            for width in WIDTHS:
                browser.open(f"{base}{page}.html", width, dark=width == WIDTHS[-1])
                browser.screenshot(out / f"{page.replace('/', '-')}-{width}.png")


def main() -> int:
    """Look at all pages, and say what is wrong."""
    parser = argparse.ArgumentParser(description="Open the documentation in a browser.")
    parser.add_argument("--html", type=Path, default=ROOT / "build" / "site" / "html")
    parser.add_argument("--pictures", type=Path, help="folder for pictures to look at")
    options = parser.parse_args()
    from support.chromium import FOUND as CHROMIUM

    if CHROMIUM is None:
        print("not opened in a browser: no chromium here (apt-get install chromium)")
        return 0
    if options.pictures:
        pictures(options.html, options.pictures)
    names = (path.relative_to(options.html).as_posix() for path in options.html.rglob("*.html"))
    pages = sorted(name.removesuffix(".html") for name in names if not name.startswith(LISTINGS))
    wrong = faults(options.html, pages, SEARCHED)
    print(*wrong, f"{len(pages)} pages opened, {len(wrong)} faults", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
