"""Robots' episodes as LeRobot keeps them: numbers in Parquet, cameras as videos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from equimodal.errors import SetupError
from equimodal.system.extras import require

ACTION = "action"
KNOWN = ("v2.0", "v2.1", "v3.0")
NUMBERS = ("float32", "float64")


class _Video(NamedTuple):
    """Where the pictures of an episode are: a file, and when in it the episode begins."""

    path: Path
    start: float


class LeRobot(Dataset[dict[str, Tensor]]):
    """Samples of a policy from a data set in the format of LeRobot, versions 2.0, 2.1 and 3.0.

    A sample is one frame of an episode, by the names of ``meta/info.json``: each camera's picture,
    float32 from 0 to 1, shape ``(3, H, W)``; all features of floating point, float32, in their
    shape; ``action`` of this frame and those that follow, shape ``(chunk, A)``; and
    ``action_is_pad``, bool, shape ``(chunk,)``, True beyond the end of the episode, where the last
    action is repeated. Features of other types, and the tasks in words, are not read.

    Args:
        folder: with ``meta``, ``data`` and ``videos``.
        chunk: how many actions a sample has, 1 or more.

    Raises:
        SetupError: it is no such data set, of another version, or lacks a file; where a sample is
            taken, a video has no picture at its moment.
    """

    def __init__(self, folder: str | Path, chunk: int = 1) -> None:
        require("data", "av", "numpy", "pyarrow")
        self.folder = Path(folder)
        if chunk < 1:
            raise SetupError(f"LeRobot(chunk): expected 1 or more actions, found {chunk}")
        self.chunk = chunk
        info = _info(self.folder)
        self.fps = float(info["fps"])
        kinds = {name: feature["dtype"] for name, feature in info["features"].items()}
        if ACTION not in kinds:
            raise SetupError(f"{self.folder}: expected a feature {ACTION!r}, found {list(kinds)}")
        kept = [name for name, kind in kinds.items() if kind == "image"]
        if kept:
            raise SetupError(f"{self.folder}: {kept[0]} is kept as pictures, which are not read")
        self.cameras = [name for name, kind in kinds.items() if kind == "video"]
        names = [name for name, kind in kinds.items() if kind in NUMBERS and name != "timestamp"]
        rows = _rows(self.folder, [*names, "timestamp", "episode_index", "index"])
        order = rows["index"].argsort()
        self.episodes = rows["episode_index"][order]
        self.moments = rows["timestamp"][order].double()
        self.numbers = {name: rows[name][order].float() for name in names}
        whole = self.episodes.tolist()
        self._last = {episode: place for place, episode in enumerate(whole)}  # of each episode
        self._videos = _videos(self.folder, info, self.cameras, self._last)

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = range(len(self))[index]
        episode = int(self.episodes[place])
        sample = {name: values[place] for name, values in self.numbers.items()}
        wanted = torch.arange(place, place + self.chunk)
        last = self._last[episode]
        sample[ACTION] = self.numbers[ACTION][wanted.clamp(max=last)]
        sample[f"{ACTION}_is_pad"] = wanted > last
        for camera in self.cameras:
            video = self._videos[episode, camera]
            sample[camera] = _picture(video, float(self.moments[place]), self.fps)
        return sample


def _info(folder: Path) -> dict[str, Any]:
    file = folder / "meta" / "info.json"
    try:
        info: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"{file}: expected a data set of LeRobot: {error}") from error
    found = info.get("codebase_version")
    if found not in KNOWN:
        raise SetupError(f"{file}: expected codebase_version among {KNOWN}, found {found!r}")
    return info


def _rows(folder: Path, names: list[str]) -> dict[str, Tensor]:
    """Return columns of all episodes, in the order of the files."""
    pa: Any = import_module("pyarrow")
    tables = [_table(file, names) for file in sorted((folder / "data").rglob("*.parquet"))]
    if not tables:
        raise SetupError(f"{folder / 'data'}: expected Parquet files, found none")
    whole = pa.concat_tables(tables)
    return {name: torch.tensor(whole[name].to_pylist()) for name in names}


def _table(file: Path, names: list[str]) -> Any:
    """Return some columns of a file."""
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    try:
        missing = set(names) - set(pq.read_schema(file).names)
        if missing:
            raise SetupError(f"{file}: no column {min(missing)!r}")
        return pq.read_table(file, columns=names, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise SetupError(f"{file}: cannot be read: {error}") from error


def _videos(
    folder: Path, info: Mapping[str, Any], cameras: list[str], episodes: Mapping[int, int]
) -> dict[tuple[int, str], _Video]:
    """Return where the pictures of each episode and camera are."""
    if not cameras:
        return {}
    found = {}
    if info["codebase_version"].startswith("v2"):
        for episode in episodes:
            part = episode // int(info["chunks_size"])
            for camera in cameras:
                path = info["video_path"].format(
                    episode_chunk=part, episode_index=episode, video_key=camera
                )
                found[episode, camera] = _Video(folder / path, 0.0)
    else:
        for row in _listed(folder, cameras):
            for camera in cameras:
                path = info["video_path"].format(
                    video_key=camera,
                    chunk_index=row[f"videos/{camera}/chunk_index"],
                    file_index=row[f"videos/{camera}/file_index"],
                )
                start = float(row[f"videos/{camera}/from_timestamp"])
                found[row["episode_index"], camera] = _Video(folder / path, start)
    for episode in episodes:
        for camera in cameras:
            video = found.get((episode, camera))
            if video is None or not video.path.exists():
                where = "nothing says where it is" if video is None else f"no file {video.path}"
                raise SetupError(f"{folder}: {camera} of episode {episode}: {where}")
    return found


def _listed(folder: Path, cameras: list[str]) -> list[dict[str, Any]]:
    """Return what version 3 says of each episode."""
    said = ("chunk_index", "file_index", "from_timestamp")
    names = ["episode_index", *(f"videos/{camera}/{each}" for camera in cameras for each in said)]
    files = sorted((folder / "meta" / "episodes").rglob("*.parquet"))
    return [row for file in files for row in _table(file, names).to_pylist()]


def _picture(video: _Video, moment: float, fps: float) -> Tensor:
    """Return the picture of a moment of an episode, less than half a frame away."""
    av: Any = import_module("av")
    wanted, half = video.start + moment, 0.5 / fps
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        container.seek(max(0, int((wanted - half) / stream.time_base)), stream=stream)
        for frame in container.decode(stream):
            if frame.time is not None and frame.time > wanted - half:
                if frame.time >= wanted + half:
                    break
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                return pixels.permute(2, 0, 1).float() / 255
    raise SetupError(f"{video.path}: no picture at {wanted:.3f} s")
