"""Articles on look-alikes: every row trains, tables are marked, killed and resumed alike."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import equimodal as eq
from equimodal import data, reproducing
from equimodal.cli import main
from equimodal.compare import Run
from equimodal.errors import SetupError
from equimodal.reproducing import PAPERS, Paper, Reproduction, Row, Trial
from equimodal.reproducing.load import load
from equimodal.tasks import HOLD, Ended
from equimodal.tasks.lock import held
from equimodal.training import Settings
from support.lookalikes import Here, lookalikes, made

ROOT = Path(__file__).parents[2]
SMALL = Trial(1, {"size": 16, "seconds": 0.2, "frames": 1, "mels": 16, "n_fft": 64, "hop": 200}, 2)
TABLES = [(paper.name, table) for paper in PAPERS.values() for table in paper.tables]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lookalikes(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tasks set how many threads they use, and here they are in this process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each article, so that its tables share what they have in common."""
    return tmp_path_factory.mktemp("results")


def whole(
    paper: Paper, sets: Path, out: Path, tables: dict[str, tuple[Row, ...]], **changes: object
) -> Reproduction:
    names = [row.data for rows in tables.values() for row in rows]
    protocol = changes.get("protocol", "honest")
    places = reproducing.found(names, [str(sets)], protocol)  # type: ignore[arg-type]
    return Reproduction(paper, tables, places, out, [0], trial=SMALL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_every_row_of_every_table_trains(name: str, table: str, sets: Path, results: Path) -> None:
    paper = PAPERS[name]
    rows = paper.rows(table)
    it = whole(paper, sets, results / name, {table: rows})
    assert it.run(engine=Here()) == {}
    assert it.missing() == 0
    it.write()
    text = (it.folder / f"{table}.md").read_text()
    for row in rows:
        line = next(line for line in text.splitlines() if line.startswith(f"| `{row.name}` |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert re.fullmatch(r"\d+\.\d", cells[1]), line
        assert cells[-1] == ("" if row.published is None else f"{row.published.accuracy:.1f}")
        assert row.published is None or row.published.source in text
    assert "TRIAL, not the article's settings: epochs 1, size 16" in text
    if table == reproducing.FIGURE:
        assert (it.folder / "figure-crema-d-concat.svg").stat().st_size


# As many workers as leave each training one thread, and more trainings than those begin with.
CORES = os.cpu_count() or 1
WORKERS, SEEDS = CORES // 2 + 1, 1 + CORES // 4
ALL = 4 * SEEDS
ARGUMENTS = [
    "ogm-ge-cvpr2022",
    "table1",
    "--rows=crema-d/concat",
    f"--seeds={SEEDS}",
    "--epochs=2",
    "--view=size=16,seconds=0.2,n_fft=64,hop=200",
    "--width=2",
    f"--workers={WORKERS}",
]


def begun(sets: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "equimodal", "reproduce", *ARGUMENTS]
    return subprocess.Popen(
        [*command, f"--data={sets}", f"--out={out}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "80"},
    )


def done(out: Path) -> int:
    return len(list(out.glob("*/*/*/runs/*/result.json")))


class Interrupted(Here):
    """Is interrupted after the first task."""

    def ended(self, timeout: float) -> list[Ended]:
        if self.count:
            raise KeyboardInterrupt
        self.count += 1
        return super().ended(timeout)

    count = 0


def test_killed_and_interrupted_it_ends_with_the_same_table(
    sets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, other = tmp_path / "broken", tmp_path / "whole"
    process = begun(sets, out)
    end = time.monotonic() + 120
    while not done(out):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    until_free(out / "honest")
    assert 0 < done(out) < ALL
    again = ["reproduce", *ARGUMENTS, f"--data={sets}", f"--out={out}"]

    monkeypatch.setattr("equimodal.cli.reproduce.engine_from", lambda *_: Interrupted())
    assert main(again) == 130
    assert "interrupted, " in capsys.readouterr().err
    assert "accuracy" in (out / "honest" / "table1.md").read_text()  # what is there is shown
    assert 1 < done(out) <= ALL

    monkeypatch.setattr("equimodal.cli.reproduce.engine_from", lambda *_: Here())
    assert main(again) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"ogm-ge-cvpr2022, table1 (4 rows): {ALL} trainings of {SEEDS} seed")
    assert " of them done, honest protocol" in " ".join(lines[:2])
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    row = next(line for line in lines if line.startswith("crema-d/concat/ogm-ge"))
    assert row.split()[-1] == "61.9"
    assert not any("AVE" in line or "PSP" in line for line in lines[: lines.index("table1")])

    assert main([*again[:-1], f"--out={other}"]) == 0
    for name in ("table1.md", "table1.csv"):
        assert (out / "honest" / name).read_bytes() == (other / "honest" / name).read_bytes()


def until_free(folder: Path) -> None:
    """Wait until no process of the killed one is at a folder."""
    end = time.monotonic() + 30
    while held(folder / HOLD):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_tables_share_their_trainings(sets: Path, results: Path) -> None:
    """Whatever was asked for first: a training that two tables have is done once."""
    paper = PAPERS["ogm-ge-cvpr2022"]
    rows = {t: reproducing.chosen(paper.rows(t), ["crema-d/concat"]) for t in ("table1", "table2")}
    it = whole(paper, sets, results / paper.name, rows)
    assert it.trainings == 4 + 7 - 2
    before = it.finished()
    it.run(engine=Here())
    assert it.missing() == 0
    again = whole(paper, sets, results / paper.name, {"table2": rows["table2"]})
    assert again.missing() == 0
    assert before <= it.finished() == 9


def test_the_published_protocol_is_followed_and_marked(sets: Path, tmp_path: Path) -> None:
    paper = PAPERS["ogm-ge-cvpr2022"]
    lists = made(tmp_path / "data" / "crema-d-published", "crema-d", "lists: test as listed in x")
    rows = reproducing.chosen(paper.rows("table1"), ["crema-d/concat/joint"])
    places = reproducing.found(["crema-d"], [str(sets), str(lists.parent)], "published")
    assert places == {"crema-d": lists}
    it = Reproduction(paper, {"table1": rows}, places, tmp_path / "out", [0], "published", SMALL)
    (comparison,) = it.comparisons.values()
    splits = comparison.splits
    assert len(splits.train) == 9
    assert splits.val.ids == splits.test.ids
    assert splits.train.ids[-3:] == ["val000", "val001", "val002"]
    assert torch.equal(splits.train[7][0], validation(lists)[0])
    assert it.run(engine=Here()) == {}
    it.write()
    (result,) = (r for o in it.outcomes().values() for r in o.results.values())
    assert result.val["accuracy"] == result.test["accuracy"]
    text = (tmp_path / "out" / "published" / "table1.md").read_text()
    assert "**PUBLISHED PROTOCOL: the epoch is the best on the test split" in text
    assert "crema-d (published protocol)" in text
    assert result.data == "crema-d (published protocol)"  # so that figures and pages say it too
    assert "selection: published" not in text
    assert "seeds: published" in text


def validation(folder: Path) -> tuple[torch.Tensor, ...]:
    """The second validation clip as a sample."""
    view = PAPERS["ogm-ge-cvpr2022"].views["crema-d"]
    return data.load(folder, **{**view, **SMALL.view}).val[1]


def test_features_of_both_splits_are_joined(sets: Path) -> None:
    folder = data.Source(str(sets / "ave-features"))
    honest, published = load(folder, "honest"), load(folder, "published")
    assert honest.train.target.shape == (6, 4)
    assert published.train.names == [*range(9)]
    assert torch.equal(published.train.target[6:], honest.val.target)
    assert torch.equal(published.train.features["visual"][6:], honest.val.features["visual"])
    assert published.val is published.test


def test_missing_data_is_named_with_the_commands_that_make_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "ogm-ge-cvpr2022", f"--data={tmp_path}"]) == 2
    said = capsys.readouterr().err
    commands = [shlex.split(line) for line in said.splitlines() if "  equimodal " in line]
    assert {c[2] for c in commands} == {"crema-d", "kinetics-sounds", "vggsound", "ave"}
    assert f"{tmp_path}/ave-features: audio.npy" in said
    # What is named exists: nothing is refused but what is not there.
    for command in commands:
        words = [word.replace("raw/", f"{tmp_path}/raw/") for word in command[1:]]
        if words[0] == "prepare":
            assert main(words) == 2
            refused = capsys.readouterr().err
            assert "raw" in refused or "expected" in refused
            assert "option" not in refused
        else:
            assert main([*words, "--help"]) == 0
            assert words[1] in capsys.readouterr().out


def test_another_split_is_refused_by_the_published_protocol(sets: Path) -> None:
    with pytest.raises(SetupError, match=r"another split than the article: speakers") as refused:
        reproducing.found(["crema-d"], [str(sets)], "published")
    assert "--lists raw/lists" in str(refused.value)
    with pytest.raises(SetupError, match=r"crema-d holds crema-d, not ave"):
        reproducing.found(["ave"], [f"ave={sets}/crema-d"], "honest")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ogm-ge-cvpr2021"], "did you mean 'ogm-ge-cvpr2022'"),
        (["ogm-ge-cvpr2022", "table4"], "unknown table of ogm-ge-cvpr2022 'table4'"),
        (["arl-iccv2025", "--rows=crema-d/concat/arx"], "did you mean 'crema-d/concat/arl'"),
        (["arl-iccv2025", "--seeds=0"], "--seeds: expected 1 or more, found 0"),
        (["arl-iccv2025", "--data=crema=x"], "--data: unknown data set 'crema'"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_is_shared_by_speakers_is_said(sets: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "crema-d", "crema-d", "random: test: 0.1 of the clips")
    paper = PAPERS["arl-iccv2025"]
    rows = {"table1": reproducing.chosen(paper.rows("table1"), ["crema-d"])}
    for folder, count in ((sets, 0), (other.parent, 1)):
        places = reproducing.found(["crema-d"], [str(folder)], "honest")
        it = Reproduction(paper, rows, places, tmp_path / "out", [0])
        assert len([r for r in it.remarks() if "speakers" in r]) == count


def test_documented_rows_and_tables_exist() -> None:
    text = (ROOT / "docs" / "reproducing.md").read_text()
    names = {row.name for paper in PAPERS.values() for t in paper.tables for row in paper.rows(t)}
    told = set(
        re.findall(r"`((?:crema-d|kinetics-sounds|vggsound|ave|ave-features)/[\w./-]+)`", text)
    )
    assert told
    assert told <= names
    for paper in PAPERS.values():
        assert f"`{paper.name}`" in text
        assert all(f"`{table}`" in text for table in paper.tables)
        for row in (row for table in paper.tables for row in paper.rows(table) if row.published):
            assert row.published is not None
            assert f"| `{row.name}` | {row.published.accuracy:.1f} |" in text


def test_settings_are_those_of_the_released_code() -> None:
    ogm = PAPERS["ogm-ge-cvpr2022"]
    assert ogm.settings == Settings(
        epochs=100, batch_size=64, lr=1e-3, weight_decay=1e-4, lr_step=70
    )
    assert ogm.settings.momentum == 0.9
    alphas = {row.data: row.options["alpha"] for row in ogm.rows("table1") if row.label == "ogm-ge"}
    assert (alphas["crema-d"], alphas["vggsound"]) == (0.8, 0.1)
    arl = next(r for r in PAPERS["arl-iccv2025"].rows("table1") if r.name == "ave/concat/arl")
    (method,) = Run("arl", arl.method, dict(arl.options), 0).make()
    assert isinstance(method, eq.ARL)
    assert method.gamma == 5.0
    assert isinstance(method.weights, eq.AsymmetricWeights)
    assert method.weights.temperature == 4.0
