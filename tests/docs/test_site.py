"""The site: what it is made of. `make docs` builds it, warnings as errors, and opens every page."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import chromium

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"


def part(name: str) -> ModuleType:
    """A module of the site by its file: they are no package."""
    if name not in sys.modules:
        spec = util.spec_from_file_location(name, SITE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


reference, changed, structure = part("reference"), part("changed"), part("structure")
stage = part("stage")


@pytest.fixture(scope="module")
def public() -> dict[str, Any]:
    """Every public class and function, by the name that the reference documents it under."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for module in map(import_module, reference.MODULES):
        for name in reference.public(module):
            what = getattr(module, name)
            if (inspect.isclass(what) or inspect.isroutine(what)) and id(what) not in seen:
                seen.add(id(what))
                found[f"{module.__name__}.{name}"] = what
    return found


def test_every_public_name_has_a_docstring_of_its_own(public: dict[str, Any]) -> None:
    assert len(public) > 400
    assert [
        name for name, what in public.items() if not vars(what).get("__doc__", what.__doc__)
    ] == []
    # What a protocol or a base class declares is documented there.
    declared = {
        each
        for what in public.values()
        if getattr(what, "_is_protocol", False)
        for each, of in vars(what).items()
        if inspect.isfunction(of) and of.__doc__
    }
    unsaid = [
        f"{name}.{each}"
        for name, what in public.items()
        if inspect.isclass(what)
        for each, of in vars(what).items()
        if not each.startswith("_") and inspect.isfunction(of) and each not in declared
        if not any(getattr(vars(base).get(each), "__doc__", None) for base in what.__mro__)
    ]
    assert unsaid == []


def described(doc: str) -> set[str] | None:
    """The arguments that a docstring describes; None where it has no such section."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", f"{inspect.cleandoc(doc)}\n", re.MULTILINE)
    if section is None:
        return None
    return set(re.findall(r"^    \*{0,2}(\w+)(?: \([^)]*\))?:", section[1], re.MULTILINE))


def test_arguments_are_described_all_or_none(public: dict[str, Any]) -> None:
    """None where the sentence says them; one that is left out of a list is one forgotten."""
    wrong = {}
    for name, what in public.items():
        if inspect.isclass(what) and issubclass(what, BaseException):
            continue
        said = described(what.__doc__)
        if said is not None and said != set(inspect.signature(what).parameters):
            wrong[name] = said ^ set(inspect.signature(what).parameters)
    assert wrong == {}


def test_what_takes_tensors_says_their_shapes(public: dict[str, Any]) -> None:
    unsaid = [
        name
        for name, what in public.items()
        if inspect.isroutine(what) and "Tensor" in str(inspect.signature(what))
        if not re.search(r"``\(|shape", what.__doc__ or "")
    ]
    assert unsaid == []


def test_papers_equations_name_their_source(public: dict[str, Any]) -> None:
    """In the module of a function: a paper, a venue or a year."""
    functional = {
        what.__module__ for name, what in public.items() if name.startswith("equimodal.functional.")
    }
    assert len(functional) > 30
    functional -= {f"equimodal.functional.{own}" for own in ("means", "precision", "remaining")}
    for module in functional:
        text = inspect.getsource(sys.modules[module])
        assert re.search(r"(19|20)\d\d|et al\.", text), f"{module} names no source"


def test_pages_of_the_reference_hold_every_public_name_once(public: dict[str, Any]) -> None:
    methods = {f"equimodal.{kind.__name__}" for kind in reference.methods().values()}
    text = "\n".join(reference.pages().values())
    for name in public.keys() - methods:
        found = len(re.findall(rf"^\.\. auto(?:class|function):: {re.escape(name)}$", text, re.M))
        assert found == 1, f"{name} is documented {found} times"
    for name, kind in reference.methods().items():
        assert f":link: docs/methods/{name}\n" in text
        card = reference.card(kind, "# Title\n\nText.\n")
        assert card.startswith("# Title\n\n| | |\n|---|---|\n| class |")
        assert f".. autoclass:: equimodal.{kind.__name__}" in card


def test_every_page_is_in_the_sidebar_once(tmp_path: Path) -> None:
    pages = [
        path.relative_to(ROOT).with_suffix("").as_posix()
        for path in [*ROOT.glob("[CR]*.md"), *(ROOT / "docs").rglob("*.md")]
    ]
    found = structure.sections([*pages, "docs/new"])
    listed = [page for of in found.values() for page in of]
    assert len(listed) == len(set(listed))
    assert found["How-to guides"][-1] == "docs/new"  # what nobody has listed
    below = ("docs/methods/", "docs/hosts/", "docs/tasks/", "docs/trainers/")
    assert {page for page in pages if not page.startswith(below)} <= {*listed}
    for section in structure.SECTIONS.values():
        assert {*section} - {*structure.GENERATED} <= {*pages}


def test_links_to_code_lead_to_pages_that_show_it(tmp_path: Path) -> None:
    written: dict[str, str] = {}
    text = "[a](../examples/ddp_plain.py), [b](loop.md#adam), [c](https://x.y), ![d](figures/watch.png)"
    pages = {"docs/x.md": text, "docs/loop.md": ""}
    found = stage.with_sources(text, "docs/x.md", pages, written, tmp_path)
    assert found == text.replace("../examples/ddp_plain.py", "../source/examples/ddp_plain.py.md")
    assert (ROOT / "examples" / "ddp_plain.py").read_text() in written[
        "source/examples/ddp_plain.py.md"
    ]
    assert (tmp_path / "docs" / "figures" / "watch.png").stat().st_size > 0


def test_every_entry_of_the_changelog_stands_with_somebody() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    entries = list(changed.entries(text))
    assert len(entries) == len(re.findall(r"^- ", text, re.MULTILINE))
    page = changed.page(text)
    for _, _, entry in entries:
        assert page.count(entry) >= len(changed.concerned(entry)) > 0
    (one,) = changed.entries("## 1.0\n\n### Added\n\n- `equimodal diagnose` says\n  more.\n")
    assert one == ("1.0", "Added", "- `equimodal diagnose` says\n  more.")
    assert changed.concerned(one[2]) == ["You diagnose a model"]
    assert changed.concerned("- Nothing.") == [changed.REST]


def test_equations_are_drawn_by_the_browser_itself() -> None:
    pytest.importorskip("latex2mathml", reason="the extra `docs` is not installed")
    mathml = part("mathml")
    split = mathml.parts(r"a = b, \qquad c = \begin{cases} 1 & d \qquad e \end{cases}")
    assert split == ["a = b,", r"c = \begin{cases} 1 & d \qquad e \end{cases}"]
    drawn = mathml.mathml(r"\rho_m > 1", block=False)
    assert drawn.startswith("<math")
    assert "&#x003C1;" in drawn
    assert 'display="block"' in mathml.mathml("a", block=True)


PAGES = {
    "docs/loop.md": "# The training step\n\nAccumulation of gradients.\n",
    "docs/attach.md": "# Attaching\n\n## A missing modality\n\nText.\n",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small site, built as the whole one is."""
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    kind = reference.methods()["ogm"]
    card = reference.card(kind, (ROOT / "docs" / "methods" / "ogm.md").read_text())
    index = "# Front\n\n```{toctree}\n" + "\n".join(p.removesuffix(".md") for p in PAGES)
    card = re.sub(r"\]\((?!https)[^)]*\)", "](ogm.md)", card)  # the other pages are not there
    pages = {**PAGES, "docs/methods/ogm.md": card}
    for name, text in {**pages, "index.md": f"{index}\ndocs/methods/ogm\n```\n"}.items():
        stage.save(folder / "pages" / name, text.encode())
    named = "myst_parser,sphinx.ext.autodoc,sphinx.ext.napoleon,sphinx_design,mathml"
    how = ["-q", "-W", "-bhtml", f"-c{SITE}", f"-d{folder / 'read'}", f"-Dextensions={named}"]
    command = [sys.executable, "-m", "sphinx", *how, str(folder / "pages"), str(folder / "html")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.mark.skipif(chromium.FOUND is None, reason="no chromium: apt-get install chromium")
def test_a_site_opens_without_faults_and_faults_are_found(site: Path) -> None:
    browse = part("browse")
    pages = ["index", "docs/loop", "docs/methods/ogm"]
    assert browse.faults(site, pages, browse.SEARCHED) == []
    assert "<math" in (site / "docs" / "methods" / "ogm.html").read_text()
    broken = "<html><article><div style='width: 900px'>x</div></article><script>oops()</script>"
    (site / "broken.html").write_text(broken)
    found = browse.faults(site, ["broken"], {})
    assert any("wide on a screen of 390" in each for each in found)
    assert any("console" in each for each in found)
