"""The originals of a comparison: all images of a folder, checked before any work starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...common.files import describe, read_bytes
from ...errors import ImageError
from ...imageio.open import open_rgb
from ..metrics.distortion import MIN_SIDE
from ..results import ImageInfo

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


def find_photos(
    folder: Path, *, limit: int | None = None, known: Sequence[ImageInfo] = ()
) -> list[ImageInfo]:
    """Return the images of a folder, without its subfolders, sorted by name; all of them can be opened.

    Args:
        folder: the originals; other files in it are ignored.
        limit: return only the first so many.
        known: images of an earlier run; a file that has not changed is not opened again.

    Raises:
        ImageError: there is no folder or no image, an image cannot be read or is too small for MS-SSIM, or
            two names differ in their extension only.
    """
    names = _names(folder)[:limit]
    if not names:
        raise ImageError(f"there are no images in {folder} (looked for {' '.join(SUFFIXES)})")
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(Path(name).stem, name)
        if other != name:
            raise ImageError(
                f"{other} and {name} in {folder} differ in their extension only; results need other names"
            )
    return list(_check(folder, names, known))


def _names(folder: Path) -> list[str]:
    try:
        entries = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise ImageError(f"{folder} cannot be read: {describe(error)}") from error
    # Files whose names begin with a dot are made by systems (._photo.jpg); they are no photographs.
    return sorted(path.name for path in entries if path.is_file() and not path.name.startswith("."))


def _check(folder: Path, names: Sequence[str], known: Sequence[ImageInfo]) -> Iterator[ImageInfo]:
    before = {(info.name, info.sha256): info for info in known}
    for name in names:
        data = read_bytes(folder / name, ImageError)
        digest = hashlib.sha256(data).hexdigest()
        del data
        yield before.get((name, digest)) or _open(folder / name, digest)


def _open(path: Path, digest: str) -> ImageInfo:
    height, width = open_rgb(path).pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{path} is too small: {width}x{height}, MS-SSIM needs {MIN_SIDE} pixels on each side"
        )
    return ImageInfo(path.name, width, height, digest)
