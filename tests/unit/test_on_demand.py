"""A name is imported when it is first asked for, and is all the same what a type checker sees."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import equimodal as eq


def checked(module: ModuleType) -> dict[str, str]:
    """Return where a type checker finds each name."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.dump(node.test)
    ]
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("module", [eq, eq.methods])
def test_every_name_is_the_one_that_a_type_checker_sees(module: ModuleType) -> None:
    told = checked(module)
    assert set(module.__all__) - {"choose", "available", "find"} == set(told)
    for name, where in told.items():
        assert getattr(module, name) is getattr(importlib.import_module(where), name)
    assert set(module.__all__) <= set(dir(module))


def test_methods_know_where_they_are() -> None:
    told = {name: where.split("methods.")[1] for name, where in checked(eq.methods).items()}
    assert told == eq.methods.WHERE


@pytest.mark.parametrize("module", [eq, eq.methods])
def test_an_unknown_name_is_refused_as_ever(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no .*'OGMM'") as info:
        _ = module.OGMM
    assert info.value.name == "OGMM"
    assert info.value.obj is module
    assert not hasattr(module, "__wrapped__")


def test_importing_reads_no_method_and_one_method_no_other() -> None:
    code = (
        "import sys, equimodal as eq\n"
        "def read(): return sorted(m for m in sys.modules if m.startswith('equimodal.'))\n"
        "print(*read()); eq.MultiLoss; print(*[m for m in read() if '.methods.' in m])\n"
        "from equimodal import *; print(OGMGE.name, functional.__name__, methods.find('ogm').name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, one, star = done.stdout.splitlines()
    assert first == "equimodal.commanded"
    assert one.split() == [
        "equimodal.methods.objective",
        "equimodal.methods.objective.multi_loss",
        "equimodal.methods.registry",
    ]
    assert star == "ogm-ge equimodal.functional ogm"
