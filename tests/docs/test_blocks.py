"""The documentation, as a reader uses it: blocks run, commands run, links lead somewhere."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import multiprocessing
import os
import re
import shlex
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import equimodal as eq
from equimodal.tasks import local

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CARDS = DOCS / "methods"
PAGES = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
    if path.exists()
]
SKETCH = 'title="sketch"'  # the only way to leave a block out


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("path", PAGES, ids=name_of)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what else stands in the opening line, its text and where."""

    language: str
    info: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opening = re.match(r"( *)(`{3,}|~{3,})\s*(\S*)\s*(.*)$", line)
        if opening is None:
            continue
        indent, fence, language, info = opening.groups()
        inside = []
        for _, each in lines:
            if each.strip() == fence:
                break
            inside.append(each[len(indent) :] if each[: len(indent)].isspace() else each)
        else:
            raise AssertionError(f"line {number}: this block is never closed")
        found.append(Block(language, info, "\n".join(inside) + "\n", number + 1))
    return found


def without_blocks(text: str) -> str:
    return re.sub(r"^ *(`{3,}|~{3,})[^\n]*\n.*?^ *\1 *$", "", text, flags=re.DOTALL | re.MULTILINE)


def runnable(path: Path) -> list[Block]:
    return [b for b in blocks(path.read_text()) if b.language == "python" and SKETCH not in b.info]


# ---------------------------------------------------------------------- python


def run_page(path: Path, folder: Path, answer: Any) -> None:
    """Run the blocks of a page as one script, and answer with what each printed, or the failure."""
    os.chdir(folder)
    import torch

    torch.set_num_threads(1)
    script = types.ModuleType("__main__")
    sys.modules["__main__"] = script  # where pickle looks for the page's classes
    warnings.simplefilter("error", eq.BalanceWarning)
    warnings.filterwarnings("error", module="__main__")
    printed = []
    try:
        for block in runnable(path):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
                exec(code, vars(script))
            printed.append(out.getvalue())
    except BaseException:
        answer.send(traceback.format_exc())
    else:
        answer.send(printed)


def printed_by(path: Path, folder: Path) -> list[str]:
    """Run a page in a fresh process. The server of the processes has imported torch already."""
    context = multiprocessing.get_context("forkserver")
    local._serve({"equimodal", "equimodal.data", "equimodal.nn", "equimodal.testing"})
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_page, args=(path, folder, theirs))
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        answer = "the process ended without an answer"
    process.join()
    assert isinstance(answer, list), answer
    return answer


@pytest.mark.parametrize("path", [p for p in PAGES if runnable(p)], ids=name_of)
def test_python_blocks_run_and_print_what_the_page_says(path: Path, tmp_path: Path) -> None:
    """A block named output says what the python block before it prints, to the letter."""
    printed = dict(zip((b.line for b in runnable(path)), printed_by(path, tmp_path), strict=True))
    for before, after in pairwise(blocks(path.read_text())):
        if after.language == "output":
            assert before.line in printed, f"line {after.line}: no python block before it"
            assert after.text.rstrip() == printed[before.line].rstrip(), f"line {after.line}"


def test_a_page_that_does_not_run_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError, match=r'page.md", line 8'):
        printed_by(page, tmp_path)


# ---------------------------------------------------------------------- console

QUICK = {"methods", "--help", "--version"}


def commands(path: Path) -> Iterator[tuple[list[str], str, int]]:
    """Yield the arguments of each `equimodal` command on a page, what it is said to print, a line."""
    for block in blocks(path.read_text()):
        if block.language == "console":
            joined = block.text.replace("\\\n", " ")
            for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                words = shlex.split(command, comments=True)
                if words[:1] == ["equimodal"]:
                    yield words[1:], output, block.line


def output_of(arguments: list[str]) -> str:
    from equimodal.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    assert status == 0, f"equimodal {shlex.join(arguments)} ended with {status}"
    return out.getvalue()


help_of = functools.cache(lambda *command: output_of([*command, "--help"]))


@pytest.mark.parametrize("path", [p for p in PAGES if any(commands(p))], ids=name_of)
def test_commands_run_or_have_the_options_that_the_page_gives(path: Path) -> None:
    for arguments, output, line in commands(path):
        if arguments[0] in QUICK or "--help" in arguments:
            printed = output_of(arguments)
            if output.strip():
                assert output.strip() == printed.strip(), f"line {line}: {arguments}"
            continue
        for word in arguments[1:]:
            if word.startswith("--"):
                option = re.split(r"[.=]", word)[0]
                # The options of preparing are those of the data set.
                asked = arguments[:2] if arguments[0] == "prepare" else arguments[:1]
                known = re.search(rf"(?<![\w-]){option}(?![\w-])", help_of(*asked))
                assert known, f"line {line}: equimodal {arguments[0]} has no {option}"


# ---------------------------------------------------------------------- links and names


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    found: dict[str, int] = {}
    for title in re.findall(r"^#{1,6} +(.+?) *#*$", without_blocks(text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {
        slug if not n else f"{slug}-{n}" for slug, last in found.items() for n in range(last + 1)
    }


@each_page
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "", without_blocks(path.read_text()))
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose)
    targets += re.findall(r'(?:src|href)="([^"]+)"', prose)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{target}: no such file"
        assert there.is_relative_to(ROOT), f"{target} leaves the repository"
        if anchor:
            assert anchor in anchors(there.read_text()), f"{target}: no such heading"


@each_page
def test_tests_that_a_page_names_are_there(path: Path) -> None:
    for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", path.read_text()):
        assert (ROOT / file).exists(), f"no {file}"
        if test:
            assert f"def {test}(" in (ROOT / file).read_text(), f"no {test} in {file}"


def test_every_public_class_is_on_some_page() -> None:
    words = "\n".join(path.read_text() for path in PAGES)
    classes = [name for name in eq.__all__ if isinstance(getattr(eq, name), type)]
    missing = [n for n in classes if not re.search(rf"\b(eq|equimodal)\.{n}\b", words)]
    assert not missing, f"on no page: {missing}"


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.+)$", text, flags=re.MULTILINE) == [eq.__version__]


# ---------------------------------------------------------------------- methods

OURS = {
    name: kind
    for name, kind in eq.methods.available().items()
    if kind.__module__.startswith("equimodal.")
}
SECTIONS = [
    "What it does",
    "Usage",
    "Settings",
    "Cost and needs",
    "More than two modalities",
    "Composes with",
    "When it hurts",
    "Paper against released code",
    "How it is verified",
]


def table() -> str:
    """The table of methods, from what they declare."""
    rows = [
        "| method | class | acts on | extra forwards + backwards | needs | accumulation | M | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, kind in OURS.items():
        can = kind.capabilities
        rows.append(
            f"| [{name}]({name}.md) | `eq.{kind.__name__}` | {kind.__module__.split('.')[2]} "
            f"| {can.forwards} + {can.backwards} | {', '.join(sorted(kind.needs)) or 'nothing'} "
            f"| {can.accumulation} | {'2 or more' if can.most is None else f'2 to {can.most}'} "
            f"| {kind.source or 'plain training'} |"
        )
    return "\n".join(rows)


def test_the_table_of_methods_is_what_they_declare() -> None:
    text = (CARDS / "README.md").read_text()
    (written,) = re.findall(r"<!-- methods -->\n(.*?)\n<!-- end -->", text, flags=re.DOTALL)
    assert written == table(), f"put this between the marks of docs/methods/README.md:\n{table()}"


@pytest.mark.parametrize("name", OURS)
def test_a_card_has_every_section_in_order(name: str) -> None:
    text = without_blocks((CARDS / f"{name}.md").read_text())
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("name", OURS)
def test_a_card_gives_every_setting_with_its_default(name: str) -> None:
    text = (CARDS / f"{name}.md").read_text()
    section = text.split("## Settings\n")[1].split("\n## ")[0]
    written = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, flags=re.MULTILINE))
    declared = {
        parameter.name: "required"
        if parameter.default is parameter.empty
        else f"`{parameter.default!r}`".replace("'", '"')
        for parameter in inspect.signature(OURS[name]).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    assert written == declared


def test_the_worked_example_of_contributing_passes_the_conformance_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a module that other processes can import, which the check on two ranks needs."""
    source = "\n".join(block.text for block in runnable(ROOT / "CONTRIBUTING.md"))
    (tmp_path / "worked_example.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import worked_example

    for check in eq.testing.CHECKS:
        worked_example.test_halving(check)
