"""The command: what it refuses and how, its help, its output, and missing extras."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from equimodal.cli import main
from equimodal.cli.methods import table
from equimodal.cli.parser import Parser
from equimodal.methods import available
from equimodal.methods.supplied import Recipe

THREE = "--modalities=[pix,mor,fou]"
QUICK = ["--epochs=2", "--batch-size=400"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must say in one line what is wrong, and return that."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("equimodal: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert "<class" not in err
    return err.removeprefix("equimodal: ").strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "unknown command 'trian': did you mean 'train'?"),
        ("train", "missing: dataset; --help says what it may be"),
        ("train wach", "unknown data set 'wach': did you mean 'watch'?"),
        ("train mfeat watch", "unrecognized arguments: watch"),
        ("train mfeat --metod ogm", "unknown option '--metod': did you mean '--method'?"),
        ("train mfeat --metod.alpha 1", "unknown option '--metod': did you mean '--method'?"),
        ("train mfeat --bach-size 3", "unknown option '--bach-size': did you mean '--batch-size'?"),
        ("compare mfeat --method ogm", "unknown option '--method'"),
        ("compare mfeat --method.alpha 1", "unknown option '--method'"),
        ("compare mfeat --seed 1", "unknown option '--seed': did you mean '--seeds'?"),
        ("train mfeat --method ogmge", "unknown method 'ogmge': did you mean 'ogm-ge'?"),
        ("train mfeat --method=ogmge", "unknown method 'ogmge': did you mean 'ogm-ge'?"),
        ("train mfeat --method os.nope", "--method: cannot import os.nope"),
        ("train mfeat --method os.path", "expected a subclass of equimodal.Method, found os.path"),
        ("train mfeat --method.alfa 1", "unknown option of ogm-ge 'alfa': did you mean 'alpha'?"),
        ("train mfeat --method joint --method.alpha 1", "--method.alpha: joint takes no options"),
        ("train mfeat --method ge --method.alpha 1", "unknown option of ge 'alpha'"),
        ("train mfeat --method ogm --method.alpha -1", "expected a number of 0 or more, found -1"),
        ("train mfeat --method.alpha nan", "--method.alpha: expected a number, found nan"),
        ("train mfeat --method.alpha much", "--method.alpha: expected a number, found much"),
        ("train mfeat --method.window 3", "expected a pair such as [0, 50] or null, found 3"),
        ("train mfeat --method.space up", "--method.space: expected gradient or update, found up"),
        ("train mfeat --method.coefficient No", "expected Continuous, Thresholded or TwoSided or"),
        ("train mfeat --method unimodal", "--method.modality: missing"),
        ("train mfeat --method unimodal --method.modality x", "unknown modality 'x'"),
        ("train mfeat --epochs 2.5", "--epochs: expected a whole number or null, found 2.5"),
        ("train mfeat --epochs 0", "epochs: expected 1 or more, found 0"),
        ("train mfeat --lr nan", "--lr: expected a number or null, found nan"),
        ("train mfeat --lr -1", "lr: expected a number of 0 or more, found -1"),
        ("train mfeat --optimizer adm", "--optimizer: expected sgd or adamw, found adm"),
        ("train mfeat --fusion flim", "--fusion: expected concat, sum, late-average, film or"),
        ("train mfeat --modalities pix", "--modalities: expected two or more, found pix alone"),
        ("train mfeat --modalities=pix,mro", "unknown modality 'mro': did you mean 'mor'?"),
        ("train mfeat --modalities [pix,mro]", "unknown modality 'mro': did you mean 'mor'?"),
        ("train mfeat --modalities [pix]", "--modalities: expected two or more, found pix alone"),
        ("train mfeat --out", "--out: expected one argument"),
        ("train mfeat --resume", "--resume: expected --out with the folder of the run"),
        ("compare mfeat --seeds 0", "--seeds: expected 1 or more, found 0"),
        ("compare mfeat --seeds two", "--seeds: expected a whole number, found two"),
        ("compare mfeat --workers 0", "--workers: expected 1 or more, found 0"),
        ("compare mfeat --workers -2", "--workers: expected 1 or more, found -2"),
        ("compare mfeat --rows []", "--rows: expected one or more, none twice, found none"),
        ("compare mfeat --rows [join]", "--rows: unknown row 'join': did you mean 'joint'?"),
        ("compare mfeat --rows [ge,ge]", "--rows: expected one or more, none twice, found ge, ge"),
        ("compare mfeat --alphas []", "--alphas: expected one or more, none twice, found none"),
        ("compare mfeat --alphas [0.1,0.1]", "none twice, found 0.1, 0.1"),
        ("compare mfeat --alphas [-0.1]", "--alphas: expected numbers of 0 or more, found -0.1"),
        ("compare mfeat --alphas [.nan]", "--alphas: expected "),
        ("compare mfeat --alphas 0.1,a", "--alphas: expected a list such as [0.1, 0.3], found a"),
        ("compare mfeat --modalities [pix]", "--modalities: expected two or more"),
        ("compare mfeat --modalities [pix,pix]", "--modalities: expected two or more, none twice"),
        ("compare mfeat --modalities pix,x", "unknown modality 'x'"),
        ("methods nope", "unknown method 'nope'"),
        ("methods joint ogm", "methods: expected one name at most, found joint ogm"),
        ("methods --all", "unknown option '--all'"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = arguments.split()
    if len(given) > 1 and given[0] != "methods" and given[-1] not in ("--out", "--resume"):
        given += ["--out", "there/results"]
    assert message in refused(capsys, *given)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder_for_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for command in ("train", "compare"):
        for out in (file, file / "below"):
            message = refused(capsys, command, "mfeat", "--out", str(out))
            assert message == f"--out: {file} is a file, expected a folder"
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", sorted(available()))
def test_a_method_by_command_has_its_own_defaults(name: str) -> None:
    """And not those of the default method, where the two call an option the same."""
    kind = available()[name]
    required = {"unimodal": ["--method.modality=pix"], "mslr": ["--method.factors.pix=0.3"]}
    arguments: dict[str, dict[str, Any]] = {
        "unimodal": {"modality": "pix"}, "mslr": {"factors": {"pix": 0.3}},
    }  # fmt: skip
    parser = Parser("train", "")
    parser.add_method(available()["ogm-ge"])
    read = parser.read([f"--method={name}", *required.get(name, [])])
    assert read is not None
    if isinstance(read.method, Recipe):
        expected = inspect.signature(kind).parameters
        assert read.method.kind is kind
        assert all(value == expected[n].default for n, value in read.method.options.items())
        return
    given = arguments.get(name, {})
    shown = [re.sub(" at 0x[0-9a-f]+", "", m.extra_repr()) for m in (read.method, kind(**given))]
    assert shown[0] == shown[1]


def test_train_from_start_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    command = ["train", "mfeat", THREE, "--method", "ogm-ge", "--method.alpha", "0.3", *QUICK]
    assert main([*command, "--out", out]) == 0
    first, log = capsys.readouterr()
    assert "OGMGE, best of 2 epochs" in first
    assert "mor, read alone" in first
    assert "alpha=0.3" in (tmp_path / "run" / "result.json").read_text()
    assert [line.partition(", validation accuracy")[0] for line in log.splitlines()] == [
        "epoch 1 of 2", "epoch 2 of 2",
    ]  # fmt: skip
    assert "holds a run already: go on with it (--resume)" in refused(
        capsys, *command, "--out", out
    )
    assert main([*command, "--out", out, "--resume"]) == 0
    assert capsys.readouterr().out == first
    other = ["train", "mfeat", THREE, "--method", "ogm", *QUICK, "--out", out, "--resume"]
    assert "holds a run with method OGMGE" in refused(capsys, *other)
    assert "holds a run, not a comparison" in refused(capsys, "compare", "mfeat", "--out", out)


@pytest.mark.parametrize("command", ["train", "compare", "methods", ""])
def test_help_fits_into_80_columns_and_is_complete(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith("usage: equimodal")
    for unwanted in ("null", "<class", "typing", "Literal", "type:", "CLASS_PATH", "_"):
        assert unwanted not in out
    expected = {
        "train": "--method NAME,--method.OPTION VALUE,--modalities,--fusion,--out,--resume,--epochs,"
        "--batch-size,--optimizer,--lr,--momentum,--weight-decay,--lr-step,--precision,--clip,"
        "--accumulate,--seed N,--help,[ogm-ge],[0.0],[0]",
        "compare": "--out,--seeds,--alphas,--rows,--modalities,--workers,--epochs,--accumulate,"
        "[0.1, 0.3, 0.8],[results/DATA],[what suits the data]",
        "methods": "NAME",
        "": "train,compare,methods",
    }[command]
    for option in expected.replace("[0.1, 0.3, 0.8]", "[0.1; 0.3; 0.8]").split(","):
        assert option.replace(";", ",") in out


def test_methods_fit_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name, kind in available().items():
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert kind.capabilities.accumulation.removeprefix("per ") in line
        assert main(["methods", name]) == 0
        card = capsys.readouterr().out
        assert max(map(len, card.splitlines())) <= 80
        assert "\\" not in card  # equations are signs, not LaTeX
        assert f"{name}: equimodal.{kind.__name__}" in card
        assert ": see `" not in card


def test_long_sources_are_wrapped_in_the_table_of_methods() -> None:
    long = type("Long", (available()["ogm"],), {"source": "Somebody and others, a venue, " * 4})
    lines = table({"a-method-with-a-long-name": long}).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[4].startswith(" " * 40)


def test_a_method_says_all_about_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "ogm-ge"]) == 0
    card = " ".join(capsys.readouterr().out.split())
    for said in (
        "needs scores", "accumulation exact", "Peng et al., CVPR 2022",
        "--method.alpha how strongly the leader is throttled, at least 0.", "[0.3]",
        "--method.space", "The noise then has the standard deviation of the update.",
    ):  # fmt: skip
        assert said in card
    assert main(["methods", "joint"]) == 0
    assert "no options" in capsys.readouterr().out
    assert main(["methods", "unimodal"]) == 0
    assert "must be given" in capsys.readouterr().out


def test_without_arguments_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: equimodal COMMAND" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("equimodal 0.")


@pytest.mark.parametrize(
    ("arguments", "library", "extra"),
    [
        (["train", "mfeat"], "lightning", "train"),
        (["train", "mfeat"], "jsonargparse", "train"),
        (["train", "mfeat"], "yaml", "train"),
        (["predict", "run", "--out", "answers.parquet"], "pyarrow", "data"),
        (["compare", "mfeat"], "scipy", "compare"),
        (["compare", "mfeat"], "rich", "train"),
        (["compare", "mfeat"], "matplotlib", "report"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(
    arguments: list[str], library: str, extra: str, tmp_path: Path
) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"from equimodal.cli import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("equimodal: this part of equimodal needs ")
    assert library in done.stderr
    assert f"pip install 'equimodal[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_methods_need_no_extra() -> None:
    code = (
        "import sys\n"
        "for name in ('lightning', 'jsonargparse', 'rich', 'ray', 'matplotlib', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from equimodal.cli import main; sys.exit(main(['methods', 'ogm']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "equimodal", "methods"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (0, b"")


def test_train_goes_on_after_an_interruption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real signal to the whole group, as a terminal sends it."""
    command = ["train", "mfeat", THREE, "--method=ogm-ge", "--epochs=40", "--batch-size=100"]
    assert main([*command, "--out", str(tmp_path / "straight")]) == 0
    straight, _ = capsys.readouterr()
    out = str(tmp_path / "broken")
    process = subprocess.Popen(
        [sys.executable, "-m", "equimodal", *command, "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("epoch 1 of 40")
    process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    again = shlex.join(["equimodal", *command, "--out", out, "--resume"])
    assert errors.splitlines()[-1] == f"equimodal: interrupted: go on with: {again}"
    assert "Traceback" not in errors
    assert not (tmp_path / "broken" / "result.json").exists()
    assert not list(tmp_path.rglob("*partial*"))
    assert main([*command, "--out", out, "--resume"]) == 0
    resumed, log = capsys.readouterr()
    assert resumed.replace("broken", "straight") == straight
    assert "epoch 1 of" not in log
    assert "epoch 40 of 40" in log
    assert "\x1b" not in resumed + log


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.8])
def test_an_interruption_is_quiet_while_the_command_is_still_imported(seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "equimodal", "train", "watch", "--epochs=900"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    for line in process.stderr:  # ours is the first module of the package
        said.append(line)
        if "equimodal.commanded" in line:
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "Traceback" not in rest
    process.stderr.close()


def test_a_program_that_imports_the_package_hears_interruptions_as_ever() -> None:
    code = "import signal, equimodal; print(signal.getsignal(signal.SIGINT).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "default_int_handler"
