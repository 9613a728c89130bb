"""Data sets in LeRobot's format, from look-alikes whose pictures say which frame they are."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

import equimodal as eq
from equimodal import data
from support.examples import ROOT

CAMERAS = ("observation.images.front", "observation.images.wrist")
STATE, FPS, LENGTHS, CHUNK = "observation.state", 10, (7, 4), 4


def shade(camera: str, frame: int) -> int:
    return 40 + 18 * frame if camera == CAMERAS[0] else 240 - 18 * frame


def numbers(episode: int, frame: int) -> tuple[list[float], list[float]]:
    return [episode, frame, 0.5], [frame, -frame, episode + 0.25]


def video(path: Path, shades: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 32, 16, "yuv420p", 4_000_000
        for each in shades:
            picture = av.VideoFrame.from_ndarray(np.full((16, 32, 3), each, np.uint8), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def table(episodes: list[int]) -> pa.Table:
    first = [sum(LENGTHS[:episode]) for episode in range(len(LENGTHS))]
    rows = [
        {
            STATE: numbers(episode, frame)[0], "action": numbers(episode, frame)[1],
            "timestamp": frame / FPS, "frame_index": frame, "episode_index": episode,
            "index": first[episode] + frame, "task_index": 0,
        }
        for episode in episodes
        for frame in range(LENGTHS[episode])
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def look_alike(folder: Path, version: str) -> Path:
    number = {"dtype": "float32", "shape": [3]}
    features: dict[str, Any] = dict.fromkeys((STATE, "action"), number)
    features |= {name: {"dtype": "video", "shape": [16, 32, 3]} for name in CAMERAS}
    features |= {"timestamp": {"dtype": "float32", "shape": [1]}}
    features |= {"index": {"dtype": "int64", "shape": [1]}}
    info = {"codebase_version": version, "fps": FPS, "chunks_size": 1, "features": features}
    (folder / "meta").mkdir(parents=True)
    if version == "v2.1":
        part = "chunk-{episode_chunk:03d}"
        info["video_path"] = f"videos/{part}/{{video_key}}/episode_{{episode_index:06d}}.mp4"
        for episode, length in enumerate(LENGTHS):
            file = folder / f"data/chunk-{episode:03d}/episode_{episode:06d}.parquet"
            file.parent.mkdir(parents=True)
            pq.write_table(table([episode]), file)
            for camera in CAMERAS:
                place = {"episode_chunk": episode, "episode_index": episode, "video_key": camera}
                path = folder / info["video_path"].format(**place)  # type: ignore[attr-defined]
                video(path, [shade(camera, frame) for frame in range(length)])
    else:
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        for name in ("data", "meta/episodes"):
            (folder / name / "chunk-000").mkdir(parents=True)
        pq.write_table(table([0, 1]), folder / "data/chunk-000/file-000.parquet")
        listed: list[dict[str, Any]] = [{"episode_index": e} for e in range(len(LENGTHS))]
        for camera in CAMERAS:
            shades = [shade(camera, frame) for length in LENGTHS for frame in range(length)]
            video(folder / f"videos/{camera}/chunk-000/file-003.mp4", shades)
            for episode, row in enumerate(listed):
                row[f"videos/{camera}/chunk_index"] = 0
                row[f"videos/{camera}/file_index"] = 3
                row[f"videos/{camera}/from_timestamp"] = sum(LENGTHS[:episode]) / FPS
        pq.write_table(
            pa.Table.from_pylist(listed), folder / "meta/episodes/chunk-000/file-000.parquet"
        )
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return look_alike(tmp_path_factory.mktemp("robot"), request.param)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def test_every_sample_is_its_frame(folder: Path) -> None:
    samples = data.LeRobot(folder, chunk=CHUNK)
    assert samples.cameras == list(CAMERAS)
    places = [(e, frame) for e, length in enumerate(LENGTHS) for frame in range(length)]
    assert len(samples) == len(places)
    for place, (episode, frame) in enumerate(places):
        sample, length = samples[place], LENGTHS[episode]
        assert sample.keys() == {*CAMERAS, STATE, "action", "action_is_pad"}
        assert sample[STATE].tolist() == numbers(episode, frame)[0]
        ahead = [min(frame + k, length - 1) for k in range(CHUNK)]
        assert sample["action"].tolist() == [numbers(episode, each)[1] for each in ahead]
        assert sample["action_is_pad"].tolist() == [frame + k >= length for k in range(CHUNK)]
        for camera in CAMERAS:
            picture = sample[camera]
            assert (picture.shape, picture.dtype) == ((3, 16, 32), torch.float32)
            off = (picture.mean(dim=(1, 2)) * 255 - shade(camera, frame)).abs().max()
            assert off < 8, (place, camera)  # the next frame is 18 away


def test_a_policy_takes_its_batches(folder: Path) -> None:
    """The recipe's, by the names of the data set."""
    path = ROOT / "examples" / "recipes" / "policy_plain.py"
    policy = runpy.run_path(str(path))["Policy"]()
    batch = next(iter(DataLoader(data.LeRobot(folder, chunk=CHUNK), 6)))
    assert batch["action"].shape == (6, CHUNK, 3)
    assert batch["action_is_pad"].dtype == torch.bool
    assert batch[CAMERAS[1]].shape == (6, 3, 16, 32)
    loss, _ = policy(batch)
    predicted, padded = policy.model(batch), batch["action_is_pad"]
    errors = (predicted - batch["action"]).abs()[~padded]
    torch.testing.assert_close(loss, errors.mean())
    assert padded.any()
    with pytest.raises(IndexError):
        data.LeRobot(folder)[sum(LENGTHS)]


def rewrite(folder: Path, **changed: Any) -> None:
    file = folder / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def test_what_is_no_such_data_set_is_refused(copied: Path) -> None:
    with pytest.raises(eq.SetupError, match=r"chunk\): expected 1 or more actions, found 0"):
        data.LeRobot(copied, chunk=0)
    video = next(copied.rglob(f"{CAMERAS[1]}/**/*.mp4"), None) or next(copied.rglob("*.mp4"))
    video.rename(video.with_suffix(".away"))
    with pytest.raises(eq.SetupError, match=r"of episode \d: no file .*mp4"):
        data.LeRobot(copied)
    features = json.loads((copied / "meta" / "info.json").read_text())["features"]
    rewrite(copied, features=features | {"depth": {"dtype": "image", "shape": [4, 4, 1]}})
    with pytest.raises(eq.SetupError, match="depth is kept as pictures, which are not read"):
        data.LeRobot(copied)
    rewrite(copied, features={STATE: features[STATE]})
    with pytest.raises(eq.SetupError, match=r"expected a feature 'action', found \['observation"):
        data.LeRobot(copied)
    rewrite(copied, codebase_version="v1.6")
    with pytest.raises(eq.SetupError, match=r"expected codebase_version among .*found 'v1\.6'"):
        data.LeRobot(copied)
    (copied / "meta" / "info.json").unlink()
    with pytest.raises(eq.SetupError, match=r"info\.json: expected a data set of LeRobot"):
        data.LeRobot(copied)


def test_a_video_that_is_too_short_is_named(copied: Path) -> None:
    for path in copied.rglob("*.mp4"):
        video(path, [0, 0])
    samples = data.LeRobot(copied)
    samples[0]
    with pytest.raises(eq.SetupError, match=r"\.mp4: no picture at 0\.300 s"):
        samples[3]


def test_columns_that_are_missing_are_named(copied: Path) -> None:
    for path in (copied / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["timestamp"]), path)
    with pytest.raises(eq.SetupError, match=r"parquet: no column 'timestamp'"):
        data.LeRobot(copied)
    for path in (copied / "data").rglob("*.parquet"):
        path.write_bytes(b"torn")
    with pytest.raises(eq.SetupError, match=r"parquet: cannot be read"):
        data.LeRobot(copied)
