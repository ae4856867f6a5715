"""Tests of names of outputs, entries of lists, ranges of shards, and refused settings."""

from __future__ import annotations

import pytest

from sprdiff.batch.names import inside, is_safe, targets
from sprdiff.batch.recode import Decode, Encode
from sprdiff.common.remote import expand
from sprdiff.errors import ImageError, OutputError


def test_names_of_outputs() -> None:
    assert targets(["a.jpg", "b.jpg"], ".sprd") == {"a.jpg": "a.sprd", "b.jpg": "b.sprd"}
    assert targets(["a.jpg", "A.png"], ".sprd") == {"a.jpg": "a.jpg.sprd", "A.png": "A.png.sprd"}
    several = targets(["a.jpg", "a.png", "a.jpg.png"], ".sprd")
    assert several == {"a.jpg": "a.jpg.sprd", "a.png": "a.png.sprd", "a.jpg.png": "a.jpg.png.sprd"}
    assert targets(["a.jpg"], ".sprd", others=["a.sprd"]) == {"a.jpg": "a.jpg.sprd"}
    assert targets(["a/x.jpg", "b/x.jpg"], ".sprd") == {"a/x.jpg": "a/x.sprd", "b/x.jpg": "b/x.sprd"}


def test_safe_names() -> None:
    assert all(map(is_safe, ["a", "a/b..c", "..a/b", "...", "a b"]))
    assert not any(map(is_safe, ["", "/a", "../a", "a/../../b", "a\\..\\b", "\\a", "C:/a", "c:a"]))


def test_where_entries_of_a_list_go() -> None:
    assert inside("https://host:80/a/../b.jpg") == "host_80/a/b.jpg"
    assert inside("/root/../../x.jpg") == "root/x.jpg"
    assert inside("s3://bucket//k.jpg") == "bucket/k.jpg"


def test_ranges() -> None:
    assert expand("x-{08..11}.tar") == ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]
    assert expand("{0..1}/{0..1}") == ["0/0", "0/1", "1/0", "1/1"]
    assert expand("plain") == ["plain"] and expand("{2..1}") == []


@pytest.mark.parametrize("wrong", [{"quality": 101}, {"quality": 1, "bpp": 1}, {"bpp": 0}, {"scale": "5"}])
def test_wrong_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Encode(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ImageError):
        Encode(background="nocolour")
    with pytest.raises(OutputError):
        Decode(to="xyz")
