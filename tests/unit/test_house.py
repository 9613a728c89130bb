"""The house: who imports whom, what the core needs, what each method must have."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import equimodal as eq
from equimodal.methods.registry import ENTRY_POINTS
from support.settings import METHODS

PACKAGE = Path(eq.__file__).parent
ROOT = PACKAGE.parent.parent

# Lower rooms first: a module imports from its own room and from those of rows before it.
ROOMS = [
    {"commanded", "errors"},
    {"adapters", "functional", "planning", "search", "system"},
    {"modalities", "noise", "criterion", "evidence"},
    {"attach"},
    {"step"},
    {"readout", "method"},
    {"scores"},
    {"update", "matching"},
    {"composing", "epochs"},
    {"loop"},
    {"reading"},
    {"balancer"},
    {"methods"},
    {"testing", "__init__"},
    {"nn", "data", "tasks"},
    {"training", "integrations", "diagnostics"},
    {"compare", "report"},
    {"choosing", "reproducing"},
    {"cli", "__main__"},
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}
# Names that stand for the whole package, which lazily imports what is asked of it.
CORE = {name for names in ROOMS[:14] for name in names}
# What a contract names of rooms above it, for types alone: it is handed one.
HANDED = {("method", "epochs"), ("method", "update"), ("step", "scores")}


def imports(path: Path, typing: bool = False) -> set[str]:
    """What a module imports when it is itself imported (not lazily), or also to annotate with."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not typing:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "equimodal":
                found.update(f"equimodal.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = room(path)
    assert here in LEVEL, f"{here} has no room in the list of this test"
    for name in imports(path, typing=here in CORE):
        parts = name.split(".")
        if (here, parts[1] if len(parts) > 1 else "") in HANDED:
            continue
        if parts[0] == "equimodal" and len(parts) > 1 and parts[1] in LEVEL:
            beside = parts[1] == here or here not in CORE
            allowed = LEVEL[here] if beside else LEVEL[here] - 1
            assert LEVEL[parts[1]] <= allowed, f"{here} imports {name}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if room(p) in CORE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_core_needs_torch_alone(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top in {"torch", "equimodal", *sys.stdlib_module_names}, f"{path} imports {name}"


def test_importing_equimodal_imports_nothing_heavier_than_torch() -> None:
    code = (
        "import torch, sys; before = set(sys.modules); import equimodal\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert set(result.stdout.split()) == {"equimodal"}


def test_every_method_has_all_that_it_must_have() -> None:
    """A name, a line of export, a row of settings, a page of documentation."""
    ours = {n: m for n, m in eq.methods.available().items() if m.__module__.startswith("equimodal")}
    assert set(ours) == set(METHODS), "settings table of the generic tests"
    for name, kind in ours.items():
        assert kind.name == name
        assert getattr(eq, kind.__name__) is kind, "a line of export"
        assert kind.__name__ in eq.__all__
        card = ROOT / "docs" / "methods" / f"{name}.md"
        assert card.exists(), f"no page {card}"
        assert f"eq.{kind.__name__}(" in card.read_text(), "the page shows how to use it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_say_which_idea_they_hold(path: Path) -> None:
    text = path.read_text()
    assert path.name not in {"utils.py", "common.py", "helpers.py", "misc.py"}
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= 500


def install(folder: Path, name: str, value: str) -> None:
    """Make a package with an entry point, as pip would leave it behind."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{name} = {value}\n")
    (folder / f"{name.replace('-', '_')}.py").write_text(
        "import equimodal as eq\nclass Theirs(eq.Method):\n    name = 'their-method'\nfive = 5\n"
    )


def test_a_method_of_another_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "their-method", "their_method:Theirs")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = eq.methods.find("their-method")
    assert found.__name__ == "Theirs"
    assert "their-method" in eq.methods.available()
    assert "ogm" in eq.methods.available()


def test_an_entry_point_that_is_no_method_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "broken-method", "broken_method:five")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(eq.SetupError, match=r"broken_method:five.*found 5"):
        eq.methods.available()


def test_an_unknown_method_is_refused_with_a_suggestion() -> None:
    with pytest.raises(eq.SetupError, match="unknown method 'ogm_ge': did you mean 'ogm-ge'"):
        eq.methods.find("ogm_ge")
