"""The pages as Sphinx reads them: the Markdown of the repository, and what is made of the code.

The Markdown stays as it is; what a site needs beside it is written into a copy.
"""

from __future__ import annotations

import re
from pathlib import Path

import changed
import reference
from structure import ABOUT, sections

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)\s#])")
PICTURES = {".png", ".svg"}
TOCTREE = "\n\n```{toctree}\n:hidden:\n:maxdepth: 1\n%s\n```\n"
FRONT = """# equimodal

*Find out which modality your model ignores, and train it so that it no longer does.*

A PyTorch library: OGM-GE, some fifty other methods and the baselines that all of them must be held
against, on your own model, in your own loop. New here? Begin with
[your first balance in ten minutes](docs/tutorials/first-balance.md).

"""


def stage(out: Path) -> None:
    """Write all pages into a folder, and leave those alone that have not changed.

    Args:
        out: the folder; it is laid out as the repository is, so that links stay as they are.
    """
    pages = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in [*ROOT.glob("[CR]*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    }
    written: dict[str, str] = {}
    for name, text in pages.items():
        written[name] = with_sources(text, name, pages, written, out)
    for name, kind in reference.methods().items():
        card = f"docs/methods/{name}.md"
        written[card] = reference.card(kind, written[card])
    for name in pages:
        if name.startswith("docs/") and name.endswith("/README.md") and name != "docs/README.md":
            folder = name.removesuffix("README.md")
            below = [page[len(folder) : -3] for page in pages if page.startswith(folder)]
            written[name] += TOCTREE % "\n".join(sorted({*below} - {"README", "results"}))
    written |= reference.pages()
    written["changed.md"] = changed.page(pages["CHANGELOG.md"])
    written["index.md"] = front([name.removesuffix(".md") for name in pages])
    for name, text in written.items():
        save(out / name, text.encode())
    for stale in {*out.rglob("*.md"), *out.rglob("*.rst")} - {out / name for name in written}:
        stale.unlink()


def front(pages: list[str]) -> str:
    """Return the front page: the four kinds of pages, with the first of each, and the sidebar."""
    found = sections(pages)
    cards = [
        f":::{{grid-item-card}} {name}\n:link: {listed[0]}\n:link-type: doc\n{ABOUT[name]}\n:::\n"
        for name, listed in found.items()
    ]
    grid = "::::{grid} 1 1 2 2\n:gutter: 3\n\n" + "\n".join(cards) + "::::\n"
    trees = [
        f"\n```{{toctree}}\n:hidden:\n:caption: {name}\n:maxdepth: 1\n"
        + "\n".join(listed)
        + "\n```\n"
        for name, listed in found.items()
    ]
    return FRONT + grid + "".join(trees)


def with_sources(
    text: str, name: str, pages: dict[str, str], written: dict[str, str], out: Path
) -> str:
    """Return a page whose links to code lead to pages that show it, and bring its pictures.

    Args:
        text: the page.
        name: its path in the repository.
        pages: what is a page already, by path.
        written: where pages that show code are put.
        out: where pictures are put.
    """

    def there(found: re.Match[str]) -> str:
        link = found[1]
        path = ((ROOT / name).parent / link).resolve()
        if ":" in link or not path.is_file() or not path.is_relative_to(ROOT):
            return link
        file = path.relative_to(ROOT).as_posix()
        if file in pages:
            return link
        if path.suffix in PICTURES:
            save(out / file, path.read_bytes())
            return link
        language = {".py": "python"}.get(path.suffix, "text")
        up = "../" * name.count("/")
        written[f"source/{file}.md"] = (
            f"---\norphan: true\n---\n\n# {file}\n\n````{language}\n{path.read_text()}````\n"
        )
        return f"{up}source/{file}.md"

    return LINK.sub(there, text)


def save(path: Path, content: bytes) -> None:
    """Write a file unless it holds that already: Sphinx reads anew what is newer."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
