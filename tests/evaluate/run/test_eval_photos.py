"""Tests of the photographs of a run: which files count, and which folders are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from conftest import photo
from eval_helpers import write_photos
from sprdiff.errors import ImageError
from sprdiff.evaluate.run.photos import find_photos


def no_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def no_images(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(path.with_suffix(".txt"))


def not_an_image(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"words")


def cut(folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:2000])


def small(folder: Path) -> None:
    Image.fromarray(photo(160, 300)).save(folder / "b.png")


def same_stem(folder: Path) -> None:
    Image.fromarray(np.zeros((170, 170, 3), np.uint8)).save(folder / "b.jpg")


class TestPhotos:
    def test_names_sizes_and_digests(self, tmp_path: Path) -> None:
        folder = write_photos(tmp_path / "photos", 3, 170, 180)
        (folder / "notes.txt").write_text("not a picture")
        (folder / "._a.png").write_bytes(b"what systems leave behind")
        (folder / "more.png").mkdir()
        photos = find_photos(folder)
        assert [(p.name, p.width, p.height) for p in photos] == [(f"{n}.png", 180, 170) for n in "abc"]
        assert len({p.sha256 for p in photos}) == 3
        assert find_photos(folder, limit=2) == photos[:2]

    def test_known_files_are_not_opened_again(self, tmp_path: Path) -> None:
        folder = write_photos(tmp_path / "photos")
        photos = find_photos(folder)
        # Sizes that the files have not: they can only come from what is known.
        known = [replace(info, width=1) for info in photos]
        assert find_photos(folder, known=known) == known
        Image.fromarray(photo(170, 170, seed=9)).save(folder / "a.png")
        again = find_photos(folder, known=known)
        assert (again[0].width, again[1].width) == (170, 1)

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (no_folder, "photos cannot be read: no such file"),
            (no_images, r"no images in .*photos \(looked for .png"),
            (not_an_image, "b.png"),
            (cut, "b.png"),
            (small, "b.png is too small: 300x160, MS-SSIM needs 161 pixels"),
            (same_stem, "b.jpg and b.png in .* differ in their extension only"),
        ],
    )
    def test_refused(self, tmp_path: Path, spoil: Callable[[Path], None], words: str) -> None:
        folder = write_photos(tmp_path / "photos")
        spoil(folder)
        with pytest.raises(ImageError, match=words):
            find_photos(folder)
