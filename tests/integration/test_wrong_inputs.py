"""A new user's session of wrong inputs: each is answered in three lines that name the mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equimodal.cli import main


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are nearly right."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(60, 4)).astype("f4"), rng.normal(size=(60, 3)).astype("f4")
    y = np.arange(60) % 3

    def save(name: str, **arrays: object) -> None:
        np.savez(folder / name, **arrays)  # type: ignore[arg-type]

    save("one_class.npz", a_train=x, b_train=z, y_train=0 * y, a_test=x, b_test=z, y_test=0 * y)
    save("no_test.npz", a_train=x, b_train=z, y_train=y)
    save("one_modality.npz", a_train=x, y_train=y, a_test=x, y_test=y)
    save("lengths.npz", a_train=x, b_train=z[:50], y_train=y, a_test=x, b_test=z, y_test=y)
    save("nan.npz", a_train=x * np.nan, b_train=z, y_train=y, a_test=x, b_test=z, y_test=y)
    save("other_name.npz", a_train=x, b_train=z, c_train=y, a_test=x, b_test=z, c_test=y)
    save("constant.npz", a_train=0 * x, b_train=z, y_train=y, a_test=x, b_test=z, y_test=y)
    (folder / "text.npz").write_text("not an archive")
    (folder / "a_file").write_text("")
    (folder / "empty").mkdir()
    (folder / "wrong.yaml").write_text("epoch: 3")
    return folder


WRONG = {
    "an unknown command": ("trian watch", "did you mean 'train'"),
    "an unknown data set": ("train wacht", "watch"),
    "nothing to train on": ("train", "dataset"),
    "a misspelt option": ("train watch --epoch 3", "--epochs"),
    "a word for a number": ("train watch --epochs many", "--epochs"),
    "no epochs": ("train watch --epochs 0", "epochs"),
    "a negative rate": ("train watch --lr -1", "lr"),
    "an unknown method": ("train watch --method ogmge", "ogm-ge"),
    "an option of another method": ("train watch --method arl --method.alpha 1", "gamma"),
    "a value out of range": ("train watch --method.alpha -1", "alpha"),
    "an unknown encoder": ("train watch --encoder resnet", "resnet18"),
    "an unknown modality": ("train watch --modalities [accelerometer,gyro]", "gyroscope"),
    "one modality": ("train watch --modalities [gyroscope]", "two or more"),
    "a folder that is a file": ("train watch --out {files}/a_file", "is a file, expected a folder"),
    "resuming nothing": ("train watch --resume", "--out"),
    "a wrong file of options": ("train --config {files}/wrong.yaml", "did you mean 'epochs'"),
    "no archive": ("train {files}/text.npz", "text.npz"),
    "no file": ("train {files}/none.npz", "none.npz"),
    "no test split": ("train {files}/no_test.npz", "test"),
    "one class": ("train {files}/one_class.npz", "class"),
    "a single array": ("train {files}/one_modality.npz", "two or more"),
    "arrays of unequal length": ("train {files}/lengths.npz", "60"),
    "values that are no numbers": ("train {files}/nan.npz", "a"),
    "classes under another name": ("train {files}/other_name.npz", "--target"),
    "a constant modality": ("train {files}/constant.npz --epochs 1", "leave a out of --modalities"),
    "no seeds": ("compare watch --seeds 0", "--seeds: expected 1 or more"),
    "an unknown row": ("compare watch --rows [jiont]", "joint"),
    "rows and all": ("compare watch --full --methods [mla]", "not both"),
    "a rate of zero": ("compare watch --lr [0]", "--lr"),
    "nothing to report on": ("report {files}/empty", "expected the folder"),
    "a report that is no page": ("report {files}/empty --out page.pdf", ".html"),
    "nothing to diagnose": ("diagnose {files}/empty", "run.json"),
    "a function that is not there": ("diagnose nowhere:build", "nowhere"),
    "nothing to answer with": ("predict {files}/none", "expected the folder"),
    "a shell that is none": ("completion cmd", "bash"),
    "an unknown method's card": ("methods mmparto", "mmpareto"),
    "a data set to prepare first": ("train crema-d", "prepare"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_input_is_answered_with_its_mend(
    what: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    typed, mend = WRONG[what]
    capsys.readouterr()
    assert main(typed.format(files=files).split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert mend in err
    assert 1 <= err.count("\n") <= 3
    assert all(len(line) <= 400 for line in err.splitlines())
    assert not any(tmp_path.iterdir()), "nothing is left behind"


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 25
