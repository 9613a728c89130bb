"""Build the wheel, install it into a clean environment without extras, and use it there."""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
LARGEST = 8 * 2**20  # bytes: "a few MB"
USE = """
import importlib.metadata, sys, time
import equimodal as eq
from equimodal import data
for name in data.available():
    seconds = float("inf")
    for _ in range(3):  # a busy machine is not what is measured
        start = time.perf_counter()
        splits = data.load(name)
        seconds = min(seconds, time.perf_counter() - start)
    assert seconds < 1, f"{name} took {seconds:.2f} s"
    assert splits.card.licence and splits.card.citation and splits.card.source, name
    print(f"{splits} ({seconds:.2f} s)")
heavy = {"numpy", "lightning", "matplotlib", "ray", "scipy"} & set(sys.modules)
assert not heavy, f"imported without need: {heavy}"
assert "site-packages" in eq.__file__, eq.__file__
"""


def main() -> int:
    """Return 0 if the wheel works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="torch", help="requirement of PyTorch")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        python = environment(Path(folder, "clean"), options.torch, wheel)
        without_numpy = "ignore:Failed to initialize NumPy"  # says torch, which can do without
        run(python, "-W", "error", "-W", without_numpy, "-c", USE)
        run(python, "-m", "equimodal", "methods")
        refused = subprocess.run(
            [python, "-m", "equimodal", "train", "watch"], capture_output=True, text=True
        )
        if refused.returncode != 2 or "pip install 'equimodal[train]'" not in refused.stderr:
            print(f"without extras, `equimodal train` said:\n{refused.stderr}", file=sys.stderr)
            return 1
    return 0


def build(folder: Path) -> Path:
    """Build the wheel and return its path."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 2**20:.1f} MiB")
    if size > LARGEST:
        raise SystemExit(f"the wheel is larger than {LARGEST / 2**20:.0f} MiB")
    return wheel


def environment(folder: Path, torch: str, wheel: Path) -> str:
    """Make an environment with PyTorch and the wheel alone, and return its interpreter."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, torch)
    run(*install, wheel)
    return python


def run(*command: str | Path) -> None:
    """Run a command outside of the repository, so that nothing of it can be imported by chance."""
    subprocess.run(command, check=True, cwd="/")


if __name__ == "__main__":
    sys.exit(main())
