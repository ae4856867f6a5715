"""Tests that pictures which are opened and saved through Pillow say whether they are partly invented."""

from __future__ import annotations

import pytest

from image_helpers import saved
from pillow_helpers import opened, options, sprd
from source_helpers import COMPOSITE, source_type, stated
from sprdiff import register_sprdiff_opener

__all__ = ["options"]  # a fixture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_opened_and_saved_says_that_it_is_partly_invented(kind: str) -> None:
    assert source_type(saved(opened(sprd()), kind)) == COMPOSITE  # the first save decodes


def test_the_source_is_in_info_once_the_picture_is_loaded() -> None:
    image = opened(sprd())
    assert "xmp" not in image.info  # the weights may choose realism 0, and are not looked at yet
    image.load()
    assert stated(image.info["xmp"]) == COMPOSITE
    grey = image.convert("L")
    assert source_type(saved(grey, "JPEG", xmp=grey.info["xmp"])) == COMPOSITE


@pytest.mark.parametrize(("realism", "wanted"), [(0, None), (0.1, COMPOSITE)])
def test_the_source_follows_the_option(realism: float, wanted: str | None, options: None) -> None:
    register_sprdiff_opener(realism=realism)
    assert source_type(saved(opened(sprd()), "PNG")) == wanted


def test_the_source_of_a_thumbnail() -> None:
    for size, wanted in ((16, None), (60, COMPOSITE)):  # the smaller one is the coarse picture
        image = opened(sprd())
        image.thumbnail((size, size))
        assert source_type(saved(image, "PNG")) == wanted
