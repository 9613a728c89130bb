"""The data set class: one sample, several samples, batches, epochs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Subset, default_collate

from equimodal.data import Arrays
from equimodal.errors import SetupError

SIZE = 23


@pytest.fixture
def arrays() -> Arrays:
    generator = torch.Generator().manual_seed(0)
    return Arrays(
        {
            "audio": torch.randn(SIZE, 3, 5, generator=generator),
            "visual": torch.randn(SIZE, 4, generator=generator),
        },
        torch.randint(6, (SIZE,), generator=generator),
    )


def same(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def test_a_sample_is_a_tuple_of_tensors(arrays: Arrays) -> None:
    audio, visual, target = arrays[5]
    assert isinstance(arrays[5], tuple)
    assert torch.equal(audio, arrays.features["audio"][5])
    assert torch.equal(visual, arrays.features["visual"][5])
    assert target.shape == ()
    assert target.dtype == torch.int64
    assert target == arrays.target[5]


def test_iteration_ends(arrays: Arrays) -> None:
    assert len([arrays[i] for i in range(len(arrays))]) == SIZE
    with pytest.raises(IndexError):
        arrays[SIZE]


def test_several_samples_are_a_sequence_of_samples(arrays: Arrays) -> None:
    rows = arrays.__getitems__([4, 0, 4])
    assert len(rows) == len(list(rows)) == 3
    for found, index in zip(rows, [4, 0, 4], strict=True):
        assert same(found, arrays[index])
    assert same(rows[-1], arrays[4])
    assert len(rows[1:]) == 2
    assert same(rows[1:][0], arrays[0])


def test_default_collation_gives_what_stacking_gives(arrays: Arrays) -> None:
    picked = [7, 3, 11]
    expected = tuple(
        torch.stack(part) for part in zip(*(arrays[index] for index in picked), strict=True)
    )
    assert same(tuple(default_collate(arrays.__getitems__(picked))), expected)  # type: ignore[arg-type]
    assert same(arrays.collate(arrays.__getitems__(picked)), expected)
    assert same(arrays.collate([arrays[index] for index in picked]), expected)


def test_a_batch_does_not_share_memory_with_the_data(arrays: Arrays) -> None:
    before = arrays.features["visual"].clone()
    for _, visual, _ in arrays.loader(4):
        visual.zero_()
    assert torch.equal(arrays.features["visual"], before)


@pytest.mark.parametrize("size", [1, 8, SIZE, 100])
def test_a_loader_gives_every_sample_in_order(arrays: Arrays, size: int) -> None:
    loader = arrays.loader(size)
    batches = list(loader)
    assert len(loader) == len(batches) == -(-SIZE // size)
    expected = (*arrays.features.values(), arrays.target)
    assert same(tuple(torch.cat(part) for part in zip(*batches, strict=True)), expected)


def test_torch_s_own_loader_gives_the_same(arrays: Arrays) -> None:
    for ours, theirs in zip(arrays.loader(8), DataLoader(arrays, batch_size=8), strict=True):
        assert same(ours, tuple(theirs))


def test_a_subset_is_loaded_too(arrays: Arrays) -> None:
    (batch,) = DataLoader(Subset(arrays, [9, 2]), batch_size=2, collate_fn=Arrays.collate)
    assert same(batch, arrays.collate([arrays[9], arrays[2]]))


@pytest.mark.parametrize("ours", [True, False])
def test_workers_give_the_same(arrays: Arrays, ours: bool) -> None:
    # Started afresh, because a forked worker is a warning (an error here) from Python 3.12 on.
    loader = DataLoader(
        arrays,
        batch_size=8,
        num_workers=1,
        multiprocessing_context="spawn",
        collate_fn=Arrays.collate if ours else default_collate,
    )
    for found, expected in zip(loader, arrays.loader(8), strict=True):
        assert same(tuple(found), expected)


def epochs(arrays: Arrays, seed: int) -> list[list[int]]:
    whole = Arrays(arrays.features, torch.arange(len(arrays)))
    loader = whole.loader(5, shuffle=True, seed=seed)
    return [[index for *_, target in loader for index in target.tolist()] for _ in range(2)]


def test_the_seed_decides_the_orders(arrays: Arrays) -> None:
    first, second = epochs(arrays, seed=3)
    assert sorted(first) == sorted(second) == list(range(SIZE))
    assert first != second
    assert [first, second] == epochs(arrays, seed=3)
    assert first != epochs(arrays, seed=4)[0]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_leaves_the_global_generator_alone(arrays: Arrays, shuffle: bool) -> None:
    before = torch.get_rng_state()
    list(arrays.loader(5, shuffle=shuffle))
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_of_different_lengths_are_refused() -> None:
    target = torch.arange(3)
    with pytest.raises(SetupError, match=r"features\['a'\]: expected 3 samples, found shape \(2,"):
        Arrays({"a": torch.zeros(2, 4)}, target)
    with pytest.raises(SetupError, match="groups: expected 3 samples"):
        Arrays({"a": torch.zeros(3, 4)}, target, groups=torch.zeros(4))
    with pytest.raises(SetupError, match="ids: expected 3 samples"):
        Arrays({"a": torch.zeros(3, 4)}, target, ids=torch.tensor(3))


def test_a_target_of_another_kind_is_refused() -> None:
    with pytest.raises(SetupError, match=r"target: expected int64 of shape \(N,\), found torch.fl"):
        Arrays({"a": torch.zeros(3, 4)}, torch.zeros(3))


def test_no_modality_is_refused() -> None:
    with pytest.raises(SetupError, match="at least one modality"):
        Arrays({}, torch.arange(3))
