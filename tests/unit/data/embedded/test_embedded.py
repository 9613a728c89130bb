"""The embedded data sets: counts, splits, standardisation, windows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equimodal import data
from equimodal.data import Splits
from equimodal.data.embedded import container, mfeat, watch
from equimodal.data.embedded.decimals import numbers
from equimodal.data.embedded.windows import cut, window_starts
from equimodal.data.scaling import standardised
from equimodal.data.splits import TEST, TRAIN, VAL, partition
from equimodal.errors import SetupError

WIDTHS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
COUNTS = {"watch": (2191, 1002, 1484), "mfeat": (1200, 300, 500)}


@pytest.fixture(scope="module", params=sorted(COUNTS))
def splits(request: pytest.FixtureRequest) -> Splits:
    return data.load(request.param)


@pytest.fixture(scope="module")
def exercises() -> Splits:
    return data.load("watch")


@pytest.fixture(scope="module")
def digits() -> Splits:
    return data.load("mfeat")


def parts(splits: Splits) -> list[data.Arrays]:
    return [splits.train, splits.val, splits.test]


def values(tensor: torch.Tensor | None) -> list[int]:
    assert tensor is not None
    return sorted(set(tensor.tolist()))


def test_the_names_are_listed() -> None:
    assert data.available() == tuple(sorted([*COUNTS, "synthetic"]))


def test_counts_shapes_and_types(splits: Splits) -> None:
    assert tuple(map(len, parts(splits))) == COUNTS[splits.card.name]
    for arrays in parts(splits):
        assert arrays.modalities == splits.modalities
        assert arrays.target.dtype == torch.int64
        assert values(arrays.target) == list(range(len(splits.classes)))
        for name, feature in arrays.features.items():
            shape = (3, 100) if splits.card.name == "watch" else (WIDTHS[name],)
            assert feature.shape == (len(arrays), *shape)
            assert feature.dtype == torch.float32
            assert feature.is_contiguous()
            assert feature.isfinite().all()


def test_names(exercises: Splits, digits: Splits) -> None:
    assert exercises.modalities == ("accelerometer", "gyroscope")
    assert exercises.classes == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert digits.modalities == tuple(WIDTHS)
    assert digits.classes == tuple("0123456789")


def test_every_sample_is_in_one_split(splits: Splits) -> None:
    ids = torch.cat([arrays.ids for arrays in parts(splits)])
    assert len(values(ids)) == len(ids) == sum(COUNTS[splits.card.name])


def test_no_subject_is_in_two_splits(exercises: Splits) -> None:
    found = [values(arrays.groups) for arrays in parts(exercises)]
    assert found == [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]


def test_no_training_subject_exercised_beside_a_test_subject(exercises: Splits) -> None:
    partner = {1: 2, 3: 4, 5: 6, 7: 10, 8: 9}
    train, test = set(values(exercises.train.groups)), set(values(exercises.test.groups))
    assert not any({a, b} & train and {a, b} & test for a, b in partner.items())


def test_the_exercises_are_nearly_balanced(exercises: Splits) -> None:
    for arrays in parts(exercises):
        share = arrays.target.bincount() / len(arrays)
        assert share.min() > 0.09
        assert share.max() < 0.19


def test_the_digits_are_balanced(digits: Splits) -> None:
    for arrays, count in zip(parts(digits), (120, 30, 50), strict=True):
        assert arrays.target.bincount().tolist() == [count] * 10
        assert arrays.groups is None


def test_identical_digits_are_in_one_split(digits: Splits) -> None:
    split = {
        tuple(row): number
        for number, arrays in enumerate(parts(digits))
        for row in torch.cat(list(arrays.features.values()), dim=1).tolist()
    }
    assert len(split) == 2000 - 6
    for number, arrays in enumerate(parts(digits)):
        for row in torch.cat(list(arrays.features.values()), dim=1).tolist():
            assert split[tuple(row)] == number


def test_the_training_split_is_standardised_and_no_other(splits: Splits) -> None:
    for name, feature in splits.train.features.items():
        axes = [0, *range(2, feature.ndim)]
        var, mean = torch.var_mean(feature.double(), dim=axes, correction=0)
        assert mean.abs().max() < 1e-6
        assert (var - 1).abs().max() < 1e-5
        for other in (splits.val, splits.test):
            assert other.features[name].double().mean(dim=axes).abs().max() > 1e-3


def test_other_splits_do_not_move_the_training_split() -> None:
    feature, target = torch.randn(12, 3, 5), torch.arange(12) % 2
    split = torch.tensor([TRAIN, VAL, TEST, TRAIN, TRAIN, TEST] * 2)
    card = data.load("watch").card

    def train(feature: torch.Tensor) -> torch.Tensor:
        made = partition({"a": feature}, target, split, classes=("0", "1"), card=card)
        return made.train.features["a"]

    changed = torch.where((split == TRAIN)[:, None, None], feature, feature * 100 + 7)
    assert torch.equal(train(feature), train(changed))


@pytest.mark.parametrize("constant", [0.0, 5.0, 1e8 + 0.1])
def test_a_constant_column_is_centred_only(constant: float) -> None:
    feature = torch.full((50, 2), constant, dtype=torch.float64)
    feature[:, 1] = torch.arange(50)
    feature[-1, 0] += 1
    found = standardised(feature, torch.arange(50) < 49)
    assert found[:49, 0].abs().max() < 1e-6
    assert found[-1, 0].item() == pytest.approx(1, abs=1e-6)


def test_windows_are_those_of_a_slow_loop(exercises: Splits) -> None:
    stored = container.read("watch")
    signal = numbers(stored["steps"].cumsum(1), stored["places"])
    windows: dict[int, tuple[list[torch.Tensor], list[int]]] = {s: ([], []) for s in range(1, 11)}
    begin = 0
    for length, subject, target in zip(
        stored["lengths"].tolist(),
        stored["subject"].tolist(),
        stored["target"].tolist(),
        strict=True,
    ):
        recording = signal[:, begin : begin + length]
        begin += length
        start = 0
        while start + 100 <= length:
            windows[subject][0].append(recording[:, start : start + 100])
            windows[subject][1].append(target)
            start += 50
    assert begin == signal.shape[1]
    train = torch.stack([w for subject in (1, 2, 3, 4, 5) for w in windows[subject][0]])
    std, mean = torch.std_mean(train, dim=(0, 2), correction=0, keepdim=True)
    for arrays in parts(exercises):
        assert arrays.groups is not None
        for subject in values(arrays.groups):
            member = arrays.groups == subject
            expected = ((torch.stack(windows[subject][0]) - mean) / std).float()
            found = torch.cat([f[member] for f in arrays.features.values()], dim=1)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
            assert arrays.target[member].tolist() == windows[subject][1]


def test_short_recordings_give_no_window() -> None:
    starts, recording = window_starts(torch.tensor([3, 0, 4, 9, 1]), length=4, step=3)
    assert starts.tolist() == [3, 7, 10]
    assert recording.tolist() == [2, 3, 3]
    signal = torch.arange(34).view(2, 17)
    assert cut(signal, starts, 4)[1].tolist() == [[7, 8, 9, 10], [24, 25, 26, 27]]


def test_no_recording_gives_no_window() -> None:
    starts, recording = window_starts(torch.tensor([2, 3]), length=4, step=1)
    assert starts.tolist() == recording.tolist() == []
    assert cut(torch.zeros(2, 5), starts, 4).shape == (0, 2, 4)


def test_modalities_are_selected_in_the_order_given(digits: Splits) -> None:
    chosen = data.load("mfeat", modalities=["pix", "mor", "fou"])
    assert chosen.modalities == ("pix", "mor", "fou")
    for few, all_of_them in zip(parts(chosen), parts(digits), strict=True):
        assert torch.equal(few.target, all_of_them.target)
        for name in chosen.modalities:
            assert torch.equal(few.features[name], all_of_them.features[name])
    assert [part.shape for part in chosen.val[0]] == [(240,), (6,), (76,), ()]


def test_one_modality(exercises: Splits) -> None:
    chosen = data.load("watch", modalities=("gyroscope",))
    assert torch.equal(chosen.test.features["gyroscope"], exercises.test.features["gyroscope"])
    assert chosen.modalities == ("gyroscope",)


def test_unknown_names_are_refused_with_what_was_meant() -> None:
    with pytest.raises(SetupError, match="unknown data set 'wach': did you mean 'watch'"):
        data.load("wach")
    with pytest.raises(SetupError, match="unknown modality 'giroscope': did you mean 'gyroscope'"):
        data.load("watch", modalities=("giroscope",))


@pytest.mark.parametrize("modalities", [(), ("pix", "pix")])
def test_no_or_repeated_modalities_are_refused(modalities: tuple[str, ...]) -> None:
    with pytest.raises(SetupError, match="expected at least one name, none twice, found"):
        data.load("mfeat", modalities=modalities)


def test_a_lone_string_is_refused() -> None:
    with pytest.raises(SetupError, match=r"expected several names, found one: use \('pix',\)"):
        data.load("mfeat", modalities="pix")


def test_fingerprints_are_pinned(exercises: Splits, digits: Splits) -> None:
    # Results are published with these: if one changes, the task has changed.
    assert exercises.fingerprint == "a31dd66957df"
    assert digits.fingerprint == "c65005e25379"


def test_the_fingerprint_does_not_depend_on_the_modalities(digits: Splits) -> None:
    assert data.load("mfeat", modalities=("mor",)).fingerprint == digits.fingerprint


def test_the_fingerprint_tells_members_and_labels(digits: Splits) -> None:
    swapped = Splits(digits.train, digits.test, digits.val, digits.classes, digits.card)
    target = digits.val.target.flip(0)
    relabelled = data.Arrays(digits.val.features, target, ids=digits.val.ids)
    relabelled_splits = Splits(digits.train, relabelled, digits.test, digits.classes, digits.card)
    assert len({digits.fingerprint, swapped.fingerprint, relabelled_splits.fingerprint}) == 3


def test_the_card_is_readable_on_a_terminal(splits: Splits) -> None:
    lines = str(splits.card).splitlines()
    assert max(map(len, lines)) < 80
    for label in ("source", "licence", "citation", "changes"):
        assert any(line.startswith(f"  {label}") for line in lines)


def test_the_card_states_the_counts(splits: Splits) -> None:
    for arrays in parts(splits):
        assert f"{len(arrays):,}" in splits.card.splits


def test_licences_are_beside_the_data() -> None:
    folder = Path(container.__file__).parent
    text = (folder / "LICENSES.md").read_text()
    for notice in ("David M. Burns", "1802.01489", "CC BY 4.0", "10.24432/C5HC70", "THE COPYRIGHT"):
        assert notice in text
    for file in folder.glob("*.pack"):
        assert file.name in text


def test_constants_agree_with_the_packed_files() -> None:
    assert set(mfeat.VIEWS) == set(WIDTHS)
    subjects = values(container.read("watch")["subject"])
    assert set(watch.VAL_SUBJECTS + watch.TEST_SUBJECTS) < set(subjects)


WITHOUT_NUMPY = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "pandas"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from equimodal import data
for name in data.available():
    for *features, target in data.load(name).val.loader(64, shuffle=True):
        pass
print(len(target), sorted({"numpy", "pandas"} & set(sys.modules)))
"""


def test_loading_needs_neither_numpy_nor_pandas() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMPY], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(1002 % 64), "[]"]


def imports(node: ast.AST) -> set[str]:
    """What is imported with a module: not within functions, and not for types alone."""
    if isinstance(node, ast.FunctionDef) or "TYPE_CHECKING" in ast.dump(
        getattr(node, "test", node)
    ):
        return set()
    names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
    if isinstance(node, ast.ImportFrom):
        names = {node.module or ""}
    return names.union(*map(imports, ast.iter_child_nodes(node)))


def test_the_package_imports_torch_and_the_standard_library_only() -> None:
    """Readers of files need more, once they are called; torch needs typing_extensions itself."""
    allowed = (sys.stdlib_module_names | {"torch", "typing_extensions", "equimodal"}) - {"pickle"}
    for file in Path(container.__file__).parent.glob("*.py"):
        found = set().union(*map(imports, ast.parse(file.read_text()).body))
        assert {name.partition(".")[0] for name in found} <= allowed, file
