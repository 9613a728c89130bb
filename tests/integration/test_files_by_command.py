"""Files of the user's own through `equimodal train` and `equimodal compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equimodal import data
from equimodal.cli import main
from equimodal.compare import Comparison, Entry
from equimodal.errors import SetupError
from equimodal.training import Settings


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Words in slots, of which sound and lips know: 60 to learn from and 30 to test on."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {"slot_names": np.array(["colour", "letter"])}
    for split, size in (("train", 120), ("test", 60)):
        labels = generator.integers(3, size=size)
        arrays[f"y_{split}"] = labels
        arrays[f"slot_{split}"] = np.arange(size) % 2
        arrays[f"utt_{split}"] = np.array([f"{split}{i // 2}" for i in range(size)])
        arrays[f"audio_{split}"] = generator.normal(size=(size, 8, 8)) + labels[:, None, None]
        arrays[f"lips_{split}"] = (
            generator.normal(size=(size, 8, 8, 3)) + labels[:, None, None, None]
        )
    np.savez(tmp_path / "words.npz", **arrays)
    return tmp_path / "words.npz"


CHOSEN = ["--filter", "slot=letter", "--groups=utt", "--channels=lips=3"]


def test_train(words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(words), *CHOSEN, "--method=joint", "--epochs=2", "--lr=0.05"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    expected = data.load(words, where={"slot": 1}, groups="utt", channels={"lips": 3})
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["fingerprint"] == expected.fingerprint
    assert f"words[slot=letter] {expected.fingerprint}: train 48, val 12" in capsys.readouterr().out


def test_compare(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workers load the same file, and an interrupted comparison goes on with it alone."""
    monkeypatch.chdir(tmp_path)
    command = ["compare", str(words), *CHOSEN, "--rows=[joint]", "--epochs=1", "--seeds=1"]
    assert main([*command, "--workers=1"]) == 0
    folder = tmp_path / "results" / "words-slot-letter"
    assert (folder / "table.md").read_text().startswith("words[slot=letter] ")
    (result,) = folder.glob("runs/*/result.json")
    before = result.stat().st_mtime_ns
    assert main([*command, "--workers=1"]) == 0
    assert result.stat().st_mtime_ns == before
    capsys.readouterr()
    others = [*command, "--out", str(folder)]
    others[others.index("--channels=lips=3")] = "--channels=lips=3,audio=1"
    assert main(others) == 2
    assert "a comparison with channels" in capsys.readouterr().err
    with np.load(words) as read:
        arrays = dict(read)
    np.savez_compressed(words, **arrays)  # another file of the same data
    assert main([*command, "--workers=1"]) == 0
    assert result.stat().st_mtime_ns == before
    capsys.readouterr()
    arrays["audio_train"][1, 0, 0] += 1  # of one sample, which is in use
    np.savez(words, **arrays)
    assert main(command) == 2
    assert "a comparison with fingerprint" in capsys.readouterr().err


def test_a_source_with_options_in_python(words: Path, tmp_path: Path) -> None:
    source = data.Source(str(words), {"where": {"slot": 0}, "channels": {"lips": 3}})
    made = Comparison(
        source,
        [Entry("joint", "joint")],
        tmp_path / "out",
        [0],
        Settings(epochs=1),
        ("lips", "audio"),
    )
    assert made.modalities == ("lips", "audio")
    assert made.splits.card.name == "words[slot=colour]"
    with pytest.raises(SetupError, match="expected two or more, found lips alone"):
        Comparison(source, [Entry("joint", "joint")], tmp_path / "out", [0], None, ("lips",))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--filter=slot", "--filter: expected COLUMN=VALUE, or COLUMN=A|B,OTHER=C, none twice"),
        ("--filter=slot=", "found 'slot='"),
        ("--filter=slot=0,slot=1", "none twice, found 'slot=0,slot=1'"),
        ("--filter=slit=0", "--filter: unknown column 'slit': did you mean 'slot'?"),
        ("--channels=lips=last", "--channels: expected MODALITY=AXIS, or MODALITY=none,OTHER=AXIS"),
        ("--channels=lip=3", "channels: unknown modality 'lip': did you mean 'lips'?"),
        ("--validation=much", "--validation: expected a number"),
        ("--groups=speaker", "groups: unknown column 'speaker'"),
        ("--target=label", "the target of the train split as label_train"),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_what_is_refused(
    words: Path, command: str, option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(words), option]) == 2
    assert said in capsys.readouterr().err


def test_embedded_data_takes_no_options_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "watch", "--filter=slot=3"]) == 2
    assert "watch: --filter: for files alone" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "compare"])
def test_the_help_says_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "the path of a .npz or .parquet file or of a folder" in " ".join(shown.split())
    for option in ("--filter", "--groups", "--validation", "--channels", "--target"):
        assert option in shown
    assert max(map(len, shown.splitlines())) <= 80
