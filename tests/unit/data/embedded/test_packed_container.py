"""The packed format: what goes in comes out, and nothing that was damaged does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equimodal.data.embedded import container
from equimodal.data.embedded.container import PackError, pack, unpack
from equimodal.data.embedded.decimals import numbers

shapes = st.sampled_from([(), (1,), (5,), (2, 3), (3, 1, 2)])
PACKED = pack({"steps": torch.arange(-500, 500), "target": torch.arange(7)}, {"wheel": "x"})


@st.composite
def integers(draw: st.DrawFn) -> Tensor:
    shape = draw(shapes)
    size = torch.Size(shape).numel()
    bits = draw(st.integers(0, 61))
    value = st.integers(-(2**bits), 2**bits)
    return torch.tensor(draw(st.lists(value, min_size=size, max_size=size))).view(shape)


@given(st.dictionaries(st.text(max_size=5), integers(), min_size=1, max_size=3))
def test_what_is_packed_is_unpacked(arrays: dict[str, Tensor]) -> None:
    found, about = unpack(pack(arrays, {"wheel": "a.whl"}))
    assert about == {"wheel": "a.whl"}
    assert list(found) == list(arrays)
    for name, tensor in arrays.items():
        assert found[name].dtype == torch.int64
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_any_integer_type_may_be_packed(dtype: torch.dtype) -> None:
    tensor = torch.arange(100).to(dtype)
    assert torch.equal(unpack(pack({"a": tensor}, {}))[0]["a"], tensor.long())


def test_packing_what_was_unpacked_gives_the_same_bytes() -> None:
    assert pack(*unpack(PACKED)) == PACKED


def test_only_integers_are_packed() -> None:
    with pytest.raises(TypeError, match=r"arrays\['a'\]: expected integers, found torch.float32"):
        pack({"a": torch.zeros(2)}, {})


def test_nothing_is_not_packed() -> None:
    with pytest.raises(ValueError, match=r"arrays\['a'\]: expected at least one value"):
        pack({"a": torch.zeros(0, dtype=torch.int64)}, {})


@pytest.mark.parametrize("kept", [100, len(PACKED) // 2, len(PACKED) - 1])
def test_a_file_that_is_cut_short_is_refused(kept: int) -> None:
    with pytest.raises(PackError, match=r"x\.pack: cut short or altered.*install equimodal again"):
        unpack(PACKED[:kept], "x.pack")


@pytest.mark.parametrize("place", [30, 90, 150, -50, -1])
def test_a_file_with_one_altered_byte_is_refused(place: int) -> None:
    altered = bytearray(PACKED)
    altered[place] ^= 1
    with pytest.raises(PackError, match="cut short or altered"):
        unpack(bytes(altered))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>\n", b"equimodal-pack 1"])
def test_another_kind_of_file_is_refused(content: bytes) -> None:
    with pytest.raises(PackError, match="expected a file that begins with 'equimodal-pack'"):
        unpack(content)


def test_another_version_is_refused() -> None:
    rest = b"whatever comes then"
    content = f"equimodal-pack 2 {hashlib.sha256(rest).hexdigest()}\n".encode() + rest
    with pytest.raises(PackError, match="expected version 1 of the packed format, found 2"):
        unpack(content)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(PackError, match=r"absent\.pack: No such file.*install equimodal again"):
        container.read("absent")


def test_a_damaged_embedded_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = (Path(container.__file__).parent / "mfeat.pack").read_bytes()
    (tmp_path / "mfeat.pack").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(
        "equimodal.data.embedded.container.resources.files", lambda package: tmp_path
    )
    with pytest.raises(PackError, match=r"mfeat\.pack: cut short or altered"):
        container.read("mfeat")


@given(st.integers(-(10**15), 10**15), st.integers(0, 22))
def test_a_decimal_is_the_number_that_python_reads(digits: int, places: int) -> None:
    found = numbers(torch.tensor([digits]), torch.tensor(places)).item()
    assert found == float(f"{digits}e-{places}")
