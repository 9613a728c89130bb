"""equimodal report: a page on results, and their figures for a paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equimodal.cli.folders import new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.text import wrapped
from equimodal.errors import SetupError

if TYPE_CHECKING:
    from equimodal.report.document import Written


def run(arguments: Sequence[str]) -> int:
    """Write the page and the figures, and say where they are and what is missing."""
    parser = Parser(
        "report",
        "Make one HTML page of the folder of a comparison or a run, finished or not, or of a "
        "diagnosis alone, and the figures beside it as SVG and PDF for a paper. The page needs no "
        "network and no other file.",
    )
    parser.add(
        "results",
        type=Path,
        help="folder of equimodal compare, train or diagnose --out; or a diagnosis.json",
    )
    parser.add("--out", type=Path, default=None, help="the page [RESULTS/report.html]")
    parser.add(
        "--diagnosis",
        type=Path,
        default=None,
        help="of equimodal diagnose [RESULTS/diagnosis.json, if it is there]",
    )
    parser.add(
        "--json",
        action="store_true",
        help="print JSON in place of words, beside the page: see docs/json.md",
    )
    options = parser.read(arguments)
    if options is None:
        return 0
    place = options.results.parent if options.results.is_file() else options.results
    out = options.out or place / "report.html"
    if out.suffix not in (".html", ".htm") or out.is_dir():
        raise SetupError(f"--out: expected a file that ends in .html, found {out}")
    if options.out is not None or options.results.is_dir():  # else it is the results that are wrong
        new_or_existing_folder(out.parent)
    from equimodal.report.document import write_report  # takes seconds: not for --help

    written = write_report(options.results, out, options.diagnosis)
    if options.json:
        print(json.dumps(_plain(options.results, written), indent=1, allow_nan=False))
        return 0
    print(wrapped(written.verdict))
    if written.notices:
        print("\nRead with care:")
        for notice in written.notices:
            print(f"- {wrapped(notice, 2)[2:]}")
    print(f"\n{written.page}")
    if written.figures:
        print(f"{len(written.figures)} files of figures in {written.figures[0].parent}")
    return 0


def _plain(folder: Path, written: Written) -> dict[str, Any]:
    """Return what is on the page as JSON values."""
    from equimodal.compare.plain import FORMAT, plain_rows
    from equimodal.report.alone import diagnosis_alone
    from equimodal.report.results import read

    lone = diagnosis_alone(folder)
    results = read(folder) if lone is None else None
    said = {
        "format": FORMAT,
        "kind": "report",
        "folder": str(folder),
        "page": str(written.page),
        "figures": [str(path) for path in written.figures],
    }
    if results is None:
        return {**said, "verdict": written.verdict, "notices": written.notices, "rows": []}
    return {
        **said,
        "data": results.data,
        "fingerprint": results.fingerprint,
        "modalities": list(results.modalities),
        "verdict": written.verdict,
        "notices": written.notices,
        "runs": [
            {"row": held.run.label, "seed": held.run.seed, "state": held.state}
            for held in results.runs
        ],
        "rows": plain_rows(results.rows),
    }
