"""Files below a source folder: all of them, in order, and none outside."""

from __future__ import annotations

import os

import pytest

from equimodal import SetupError
from equimodal.data.layouts.paths import Stems, found, inside, is_file
from support.trees import tree

MP4 = r".+\.mp4"
LONG = "ü" * 120 + ".mp4"  # 244 bytes, near the limit of 255


@pytest.mark.parametrize("seed", range(3))
def test_files_are_found_in_the_order_of_their_paths(tmp_path, seed):
    names = ["b.mp4", "a/z.mp4", "a/deep/er/x.MP4", "B/日本 語.mp4", f"c/{LONG}"]
    tree(tmp_path, [*names, "a/x.txt", "a/._z.mp4", ".git/x.mp4", "__MACOSX/b.mp4"], seed)
    assert found(tmp_path, MP4) == sorted(names)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(SetupError, match="none: no such folder"):
        found(tmp_path / "none", MP4)


def test_links_inside_are_files_and_links_out_are_refused(tmp_path):
    source = tree(tmp_path / "source", ["videos/a.mp4", "videos/deep/b.mp4"])
    tree(tmp_path / "other", ["c.mp4"])
    (source / "again.mp4").symlink_to("videos/a.mp4")
    (source / "broken.mp4").symlink_to("videos/none.mp4")
    (source / "loop").symlink_to(".")
    (source / "same").symlink_to("videos")
    (source / "readme.txt").symlink_to("../other/c.mp4")
    assert found(source, MP4) == ["again.mp4", "videos/a.mp4", "videos/deep/b.mp4"]
    (tmp_path / "linked").symlink_to("source")
    assert found(tmp_path / "linked", MP4) == found(source, MP4)
    (source / "out.mp4").symlink_to("../other/c.mp4")
    with pytest.raises(
        SetupError, match=r"out.mp4 is a link out of the source folder, to .*other/c.mp4"
    ):
        found(source, MP4)
    (source / "out.mp4").unlink()
    (source / "more").symlink_to(tmp_path / "other")
    with pytest.raises(SetupError, match="more is a link out of the source folder"):
        found(source, MP4)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"\xff.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    with pytest.raises(SetupError, match=r"expected names of files in UTF-8, found b'\\xff.mp4'"):
        found(tmp_path, MP4)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.mp4", "a/../../x.mp4", "a\\..\\x.mp4", "C:\\x.mp4", "a\0.mp4"]
)
def test_paths_of_a_list_that_lead_out_are_refused(tmp_path, path):
    with pytest.raises(SetupError, match=r"^m.csv, line 3: expected a path below"):
        inside(tmp_path, path, "m.csv, line 3")


def test_paths_of_a_list_over_a_link_that_leads_out_are_refused(tmp_path):
    tree(tmp_path, ["source/a.mp4", "other/b.mp4"])
    (tmp_path / "source" / "link").symlink_to("../other")
    with pytest.raises(SetupError, match=r"m.csv, line 3: link/b.mp4 is a link out of the source"):
        inside(tmp_path / "source", "link/b.mp4", "m.csv, line 3")
    # A folder whose name begins alike is not the same folder.
    tree(tmp_path, ["source2/b.mp4"])
    (tmp_path / "source" / "near.mp4").symlink_to("../source2/b.mp4")
    with pytest.raises(SetupError, match=r"near.mp4 is a link out"):
        inside(tmp_path / "source", "near.mp4", "m.csv, line 3")


def test_paths_of_a_list_are_spelt_in_one_way(tmp_path):
    assert inside(tmp_path, "a//b/./ü c.mp4", "") == "a/b/ü c.mp4"


def test_a_name_that_is_too_long_is_no_file(tmp_path):
    name = "x" * 3000
    assert inside(tmp_path, name, "") == name
    assert not is_file(tmp_path, name)


def test_two_files_of_a_name_are_refused_when_they_are_asked_for():
    stems = Stems(["train/a.mp4", "test/a.mp4", "b.mp4", "c.mp4"])
    assert stems.path("b") == "b.mp4"
    assert stems.path("none") is None
    assert stems.left() == ["train/a.mp4", "test/a.mp4", "c.mp4"]
    with pytest.raises(SetupError, match=r"one file a\.\*, found train/a.mp4 and test/a.mp4"):
        stems.path("a")
