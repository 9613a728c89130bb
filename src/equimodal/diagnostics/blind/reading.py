"""Samples out of JSON lines or a `datasets` folder; media are opened when a sample is asked for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

ENTRIES = ("image", "images", "audio", "text", "answer", "choices", "says", "id")
OTHERWISE = {"prompt": "text", "question": "text", "label": "answer"}


class Read(Sequence[dict[str, Any]]):
    """Samples as `blind` takes them.

    An entry ``image`` is one picture; ``images`` several, a list, which are called "image 1" and so
    on, or a dict by name, such as cameras; ``audio`` a sound; ``text``, ``prompt`` or ``question``
    the prompt. ``answer`` may be the place of the answer among ``choices``.

    Args:
        path: a file of JSON lines, whose paths are relative to it, or a folder that
            `datasets.Dataset.save_to_disk` wrote.
        columns: what the data call an entry, by entry.
        rate: samples a second of sound to give; None where there must be none.
        limit: take so many samples, drawn by the seed; all by default.
        seed: of the choice.

    Attributes:
        passed: names in the data that stand for no entry.

    Raises:
        SetupError: there is nothing to read, or it cannot be read.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, str] | None = None,
        rate: int | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self.path, self.rate = path, rate
        for entry in columns or {}:
            if entry not in ENTRIES and entry not in OTHERWISE:
                raise SetupError(f"columns: {unknown('entry', entry, ENTRIES)}")
        self.names = {name: OTHERWISE.get(entry, entry) for entry, name in (columns or {}).items()}
        self.rows: Any = _folder(path) if path.is_dir() else _lines(path)
        if not len(self.rows):
            raise SetupError(f"{path}: expected samples, found none")
        self.places = list(range(len(self.rows)))
        if limit is not None and limit < len(self.rows):
            drawn = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(seed))
            self.places = sorted(drawn[:limit].tolist())
        self.passed = [name for name in self._row(0) if self._entry(name) not in ENTRIES]
        known = [name for name in self.names if name not in self._row(0)]
        if known:
            raise SetupError(f"{path}: columns: {unknown('name', known[0], self._row(0))}")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        """Open a sample.

        Raises:
            SetupError: a file is missing or cannot be read.
        """
        row = self._row(place)
        sample: dict[str, Any] = {}
        for name, value in row.items():
            entry = self._entry(name)
            if entry not in ENTRIES or value is None:
                continue
            where = f"{self.path}, sample {row.get('id', self.places[place] + 1)}, {name}"
            if entry == "image":
                sample["image"] = self._picture(value, where)
            elif entry == "images":
                pairs = value.items() if isinstance(value, Mapping) else _numbered(value)
                sample |= {key: self._picture(each, where) for key, each in pairs if each}
            elif entry == "audio":
                sample["audio"] = self._sound(value, where)
            else:
                sample[entry] = value
        sample.setdefault("id", self.places[place] + 1)
        return _placed(sample)

    def answers(self) -> list[str]:
        """Return all answers, each once, without opening media."""
        rows = (self._row(place) for place in range(len(self)))
        found = (row[name] for row in rows for name in row if self._entry(name) == "answer")
        return list(dict.fromkeys(str(each) for each in found if each is not None))

    def _row(self, place: int) -> Mapping[str, Any]:
        row: Mapping[str, Any] = self.rows[self.places[place]]
        return row

    def _entry(self, name: str) -> str:
        if name in self.names:
            return self.names[name]
        return OTHERWISE.get(name, name)

    def _picture(self, value: Any, where: str) -> Any:
        require("data", "PIL")
        from PIL import Image, ImageOps

        if not isinstance(value, str):
            return value.convert("RGB")
        try:
            with Image.open(self.path.parent / value) as opened:
                return ImageOps.exif_transpose(opened).convert("RGB")
        except OSError as error:
            raise SetupError(f"{where}: {error}") from error

    def _sound(self, value: Any, where: str) -> Any:
        if self.rate is None:
            raise SetupError(f"{where}: the model takes no sound: leave it out of the data")
        from equimodal.data.media import Undecodable, sound

        try:
            if isinstance(value, str):
                pcm = sound(self.path.parent / value, 0.0, None, self.rate)
            elif value.get("bytes") is None:
                pcm = sound(Path(value["path"]), 0.0, None, self.rate)
            else:
                with tempfile.NamedTemporaryFile() as file:
                    file.write(value["bytes"])
                    file.flush()
                    pcm = sound(Path(file.name), 0.0, None, self.rate)
        except Undecodable as error:
            raise SetupError(f"{where}: {error}") from error
        return pcm.astype("float32") / 32768


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise SetupError(f"{path}: expected a file of JSON lines or a `datasets` folder")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SetupError(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise SetupError(f"{path}, line {number}: expected an object, found {line[:40]}")
        rows.append(row)
    return rows


def _folder(path: Path) -> Any:
    require("data", "datasets")
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise SetupError(f"{path}: expected a folder of Dataset.save_to_disk: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        first = next(iter(found))
        raise SetupError(f"{path} holds splits ({', '.join(found)}): name one, as {path / first}")
    for name, feature in found.features.items():
        if isinstance(feature, datasets.Audio):
            found = found.cast_column(name, datasets.Audio(decode=False))
    return found


def _numbered(pictures: Sequence[Any]) -> list[tuple[str, Any]]:
    if len(pictures) == 1:
        return [("image", pictures[0])]
    return [(f"image {number}", each) for number, each in enumerate(pictures, 1)]


def _placed(sample: dict[str, Any]) -> dict[str, Any]:
    """Spell an answer that is given by its place among the choices."""
    choices, answer = sample.get("choices"), sample.get("answer")
    spelt = [str(each) for each in choices or ()]
    if isinstance(answer, int) and 0 <= answer < len(spelt) and str(answer) not in spelt:
        sample["answer"] = spelt[answer]
    elif isinstance(answer, int):
        sample["answer"] = str(answer)
    if choices is not None:
        sample["choices"] = spelt
    return sample
