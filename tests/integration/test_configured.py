"""Options from a file, and the script that completes them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from equimodal.cli import COMMANDS, completion, main
from equimodal.cli.parser import Parser
from equimodal.methods import OGMGE, available

TRAIN = ["watch", "--method", "arl", "--method.gamma", "3", "--epochs", "2", "--refit"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", *TRAIN],
        ["train", "mfeat", "--modalities", "[pix, mor]", "--out", "some where", "--clip", "1"],
        ["train", "watch", "--method.noise", "ElementNoise", "--method.window", "[0, 3]"],
        ["compare", "watch", "--lr", "[0.1, 0.2]", "--methods", "[mla, ogm]", "--full"],
        ["compare", "watch", "--lr", "search", "--alphas", "[0.5]"],
    ],
)
def test_what_is_printed_is_taken_to_the_same_options(
    arguments: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = printed(capsys, *arguments, "--print-config")
    file.write_text(first)
    assert printed(capsys, arguments[0], "--config", str(file), "--print-config") == first
    held = yaml.safe_load(first)
    assert held["dataset"] == arguments[1]


def test_typed_options_outrank_those_of_the_file(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(printed(capsys, "train", *TRAIN, "--print-config"))
    typed = ["train", "mfeat", f"--config={file}", "--epochs", "9", "--print-config"]
    held = yaml.safe_load(printed(capsys, *typed))
    assert (held["dataset"], held["epochs"], held["refit"]) == ("mfeat", 9, True)
    assert (held["method"]["name"], held["method"]["gamma"]) == ("arl", 3.0)
    held = yaml.safe_load(printed(capsys, *typed, "--method", "ogm"))
    assert held["method"]["name"] == "ogm"
    assert "gamma" not in held["method"], "options of another method fall away"


def test_a_file_trains(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    made: dict[str, Any] = {"dataset": "watch", "method": "joint", "epochs": 1, "batch_size": 512}
    file.write_text(yaml.safe_dump({**made, "out": str(out), "lr": 0.05}))
    said = printed(capsys, "train", "--config", str(file))
    assert "watch" in said
    held = json.loads((out / "result.json").read_text())
    assert held["settings"]["batch_size"] == 512
    assert held["settings"]["lr"] == 0.05


def test_nothing_typed_prints_all_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    held = yaml.safe_load(printed(capsys, "train", "--print-config"))
    assert held["dataset"] is None
    assert held["method"]["name"] == "ogm-ge"
    assert held["batch-size"] == 64
    assert "--config FILE" in printed(capsys, "train", "--help")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", r"run.yaml: unknown entry 'epoch': did you mean 'epochs'?"),
        ("method: {name: arl, gama: 3}", r"unknown option of arl 'gama': did you mean 'gamma'?"),
        ("method: {gamma: 3}", "run.yaml: method: expected its name, or a mapping with 'name'"),
        ("method: ogmm", "unknown method 'ogmm': did you mean 'ogm'?"),
        ("refit: 3", "run.yaml: refit: expected true or false, found 3"),
        ("epochs: many", "epochs"),
        ("- epochs", "run.yaml: expected lines of 'option: value', found a list"),
        ("", "run.yaml: expected lines of 'option: value', found nothing"),
        ("epochs: 3\n  lr: [", "run.yaml, line 2: not YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_a_line(
    text: str, words: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    assert words in refused(capsys, "train", "watch", "--config", str(file))


def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = tmp_path / "none.yaml"
    assert f"cannot read {none}: No such file" in refused(
        capsys, "train", "watch", "--config", str(none)
    )
    assert "--config: expected a file, found none" in refused(capsys, "train", "--config")
    twice = ["train", "--config", "a.yaml", "--config=b.yaml"]
    assert "--config: expected one file, found two" in refused(capsys, *twice)


def test_commands_without_it_do_not_know_it() -> None:
    parser = Parser("other", "does something else")
    parser.add_method(OGMGE)
    with pytest.raises(ValueError, match="unknown option '--config'"):
        parser.read(["--config", "a.yaml"])


# ------------------------------------------------------------------ completion


def completed(script: Path, *words: str) -> list[str]:
    given = " ".join(f"'{word}'" for word in ("equimodal", *words))
    lines = [
        f"source '{script}'",
        f"COMP_WORDS=({given})",
        f"COMP_CWORD={len(words)}",
        "_equimodal",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    found = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_bash_completes_commands_options_and_methods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(printed(capsys, "completion", "bash"))
    assert completed(script, "comp") == ["compare", "completion"]
    assert completed(script, "train", "watch", "--ep") == ["--epochs"]
    assert completed(script, "compare", "watch", "--see") == ["--seeds"]
    assert completed(script, "train", "--method", "ogm") == ["ogm", "ogm-ge"]
    assert completed(script, "methods", "mmp") == ["mmpareto"]
    assert completed(script, "train", "wat") == [], "a file, by the shell's own completion"


def test_every_command_has_its_options() -> None:
    found = completion.options()
    assert list(found) == list(COMMANDS)
    assert {"--config", "--print-config", "--method", "--batch-size"} <= {*found["train"]}
    assert {"--seeds", "--engine"} <= {*found["compare"]}
    assert all("--help" in words for words in found.values())


def test_the_scripts_of_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert "bashcompinit" in printed(capsys, "completion", "zsh").splitlines()[0]
    fish = printed(capsys, "completion", "fish")
    assert "-n '__fish_seen_subcommand_from train' -l epochs" in fish
    assert all(f"-a {command} -d" in fish for command in COMMANDS)
    assert " ".join(available()) in fish


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "completion: expected one of bash, zsh, fish, found nothing"),
        (["bahs"], "unknown shell 'bahs': did you mean 'bash'?"),
    ],
)
def test_another_shell_is_refused(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "completion", *given)
