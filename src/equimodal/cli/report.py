"""equimodal report: a page on results, and their figures for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equimodal.cli.folders import new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.text import wrapped
from equimodal.errors import SetupError


def run(arguments: Sequence[str]) -> int:
    """Write the page and the figures, and say where they are and what is missing."""
    parser = Parser(
        "report",
        "Make one HTML page of the folder of a comparison or a run, finished or not, and the "
        "figures beside it as SVG and PDF for a paper. The page needs no network and no other "
        "file.",
    )
    parser.add("results", type=Path, help="folder of equimodal compare, or of train --out")
    parser.add("--out", type=Path, default=None, help="the page [RESULTS/report.html]")
    parser.add(
        "--diagnosis",
        type=Path,
        default=None,
        help="of equimodal diagnose [RESULTS/diagnosis.json, if it is there]",
    )
    options = parser.read(arguments)
    if options is None:
        return 0
    out = options.out or options.results / "report.html"
    if out.suffix not in (".html", ".htm") or out.is_dir():
        raise SetupError(f"--out: expected a file that ends in .html, found {out}")
    if options.out is not None or options.results.is_dir():  # else it is the results that are wrong
        new_or_existing_folder(out.parent)
    from equimodal.report.document import write_report  # takes seconds: not for --help

    written = write_report(options.results, out, options.diagnosis)
    print(wrapped(written.verdict))
    if written.notices:
        print("\nRead with care:")
        for notice in written.notices:
            print(f"- {wrapped(notice, 2)[2:]}")
    print(f"\n{written.page}")
    if written.figures:
        print(f"{len(written.figures)} files of figures in {written.figures[0].parent}")
    return 0
