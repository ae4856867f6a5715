"""Tests of the Pillow plug-in: `.sprd` files are opened, previewed and checked like any other image file."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, UnidentifiedImageError

import sprdiff
import sprdiff.pillow
from pillow_helpers import HEADER, SIZE, empty, opened, options, sprd
from sprdiff import PluginError, register_sprdiff_opener
from sprdiff.errors import BitstreamError, ModelMismatchError
from sprdiff.runtime.weights import default_folder, read_manifest

__all__ = ["options"]  # a fixture
WORKED_EXAMPLE = Path(__file__).parents[1] / "data" / "bitstream" / "worked_example.sprd"
"""A sound file of weights that are not the shipped ones."""
DEFAULT = read_manifest(default_folder()).realism[sprdiff.info(sprd()).level]


def damaged(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def fresh(code: str) -> str:
    """Return what code writes in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_what_is_registered() -> None:
    assert Image.registered_extensions()[".sprd"] == "SPRDIFF"
    assert Image.MIME["SPRDIFF"] == "image/x-sprdiff"
    assert "SPRDIFF" in Image.OPEN and "SPRDIFF" in Image.SAVE
    register_sprdiff_opener()
    assert Image.ID.count("SPRDIFF") == 1


@pytest.mark.parametrize(
    "how", ["import sprdiff.pillow", "import sprdiff; sprdiff.register_sprdiff_opener()"]
)
def test_opening_loads_no_network_runtime(how: str) -> None:
    code = f"""{how}
import sys
from PIL import Image
with Image.open({str(WORKED_EXAMPLE)!r}) as image:
    print(image.format, *({{"numpy", "onnxruntime", "torch", "constriction"}} & set(sys.modules)))"""
    assert fresh(code).split() == ["SPRDIFF"]


def test_open_reads_the_header_alone() -> None:
    image = opened(sprd()[:HEADER])
    about = sprdiff.info(sprd())
    assert (image.size, image.mode, image.format) == (SIZE, "RGB", "SPRDIFF")
    assert image.get_format_mimetype() == "image/x-sprdiff"
    assert image.info["sprdiff"] == {
        "model": about.model,
        "quality": about.quality,
        "level": about.level,
        "scale": 1.0,
        "realism": None,  # what the weights say, which are not looked at yet
    }
    image = opened(sprd())
    image.load()
    assert image.info["sprdiff"]["realism"] == DEFAULT


def test_load_gives_the_decoded_picture(tmp_path: Path) -> None:
    path = tmp_path / "no extension"
    path.write_bytes(sprd())
    wanted = sprdiff.decode(sprd())
    for source in (path, str(path), io.BytesIO(sprd())):
        with Image.open(source, formats=["SPRDIFF"]) as image:
            assert image.tobytes() == wanted.tobytes()
    with path.open("rb") as stream:
        image = Image.open(stream)
        image.load()
        assert not stream.closed
    assert Image.open(path).convert("L").size == SIZE  # no ResourceWarning: load() closed the file


def test_a_grey_file_has_mode_l() -> None:
    image = opened(sprd(grey=True))
    assert image.mode == "L"
    assert image.tobytes() == sprdiff.decode(sprd(grey=True)).tobytes()


def test_a_picture_of_one_pixel() -> None:
    image = opened(sprd(1, 1))
    image.load()
    assert image.size == (1, 1)


def test_realism_is_an_option(options: None) -> None:
    register_sprdiff_opener(realism=0.25, threads=1)
    image = opened(sprd())
    assert image.info["sprdiff"]["realism"] == 0.25
    register_sprdiff_opener()  # changes nothing for files that are open
    assert image.tobytes() == sprdiff.decode(sprd(), realism=0.25).tobytes()


@pytest.mark.parametrize(
    "wrong", [{"realism": 1.1}, {"realism": float("nan")}, {"threads": 0}, {"max_pixels": 0}], ids=str
)
def test_options_out_of_range(wrong: dict[str, float], options: None) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        register_sprdiff_opener(**wrong)  # type: ignore[arg-type]


def test_copies_and_pickles_hold_the_pixels() -> None:
    image = opened(sprd())
    again = pickle.loads(pickle.dumps(image))  # noqa: S301
    assert again.tobytes() == image.tobytes() == image.copy().tobytes() == copy.deepcopy(image).tobytes()
    assert again.info == image.info and again.size == SIZE


# ---- previews


@pytest.mark.parametrize(
    ("asked", "size"),
    [((48, 32), (48, 32)), ((32, 32), (48, 32)), ((31, 1), (32, 22)), ((1, 1), (2, 1)), ((0, 0), (2, 1))],
)
def test_draft_is_coarse_and_at_least_as_large_as_asked(
    asked: tuple[int, int], size: tuple[int, int]
) -> None:
    image = opened(sprd())
    assert image.draft(None, asked) == ("RGB", (0, 0, *size))
    assert image.size == size and image.info["sprdiff"]["realism"] == 0
    wanted = sprdiff.decode(sprd(), realism=0).resize(size, Image.Resampling.LANCZOS)
    assert image.tobytes() == wanted.tobytes()


def test_draft_changes_nothing_above_half_the_size_twice_or_after_load() -> None:
    image = opened(sprd())
    assert image.draft(None, (49, 32)) is None
    assert image.draft("L", None) is None
    assert image.draft("L", (48, 32)) == ("RGB", (0, 0, 48, 32))
    assert image.draft(None, (10, 10)) is None
    image.load()
    assert image.draft(None, (10, 10)) is None
    assert image.size == (48, 32)


@pytest.mark.parametrize("scale", [1, 1.5, 3, 8])
def test_thumbnail_of_every_coded_scale(scale: float) -> None:
    """The coarse picture is not enlarged to its full size on the way, and the result must be the same
    picture."""
    data = sprdiff.encode(sprdiff.decode(sprd(240, 320, 60)), quality=60, scale=scale)
    image = opened(data)
    image.thumbnail((60, 60))
    assert image.size == (60, 45) and image.info["sprdiff"]["realism"] == 0
    wanted = sprdiff.decode(data, realism=0).resize((60, 45), Image.Resampling.LANCZOS)
    difference = np.asarray(image, np.float64) - np.asarray(wanted, np.float64)
    assert np.sqrt(np.mean(difference**2)) < 1  # to the decoded picture it is 3 to 8


def test_thumbnail_above_half_the_size_is_of_the_decoded_picture() -> None:
    image, wanted = opened(sprd()), sprdiff.decode(sprd())
    image.thumbnail((60, 60))
    wanted.thumbnail((60, 60))
    assert image.tobytes() == wanted.tobytes()
    assert image.info["sprdiff"]["realism"] == DEFAULT


def test_a_grey_thumbnail_stays_grey() -> None:
    image = opened(sprd(grey=True))
    image.thumbnail((20, 20))
    assert (image.mode, image.size) == ("L", (20, 13))


# ---- files that are not as they should be


@pytest.mark.parametrize("length", range(HEADER))
def test_a_file_that_ends_in_its_header_is_not_identified(length: int) -> None:
    with pytest.raises(UnidentifiedImageError):
        opened(sprd()[:length])


@pytest.mark.parametrize("name", ["truncated", "damaged", "longer", "nothing left"])
def test_a_damaged_file_opens_but_does_not_load(name: str, tmp_path: Path) -> None:
    whole = sprd()
    data = {
        "truncated": whole[:-1],
        "damaged": damaged(whole, len(whole) - 1),
        "longer": whole + b"?",
        "nothing left": whole[:HEADER],
    }[name]
    path = tmp_path / "x.sprd"
    path.write_bytes(data)
    with Image.open(path) as image:
        for _ in range(2):
            with pytest.raises(OSError, match="damaged or truncated") as caught:
                image.load()
            assert isinstance(caught.value, PluginError) and isinstance(
                caught.value.__cause__, BitstreamError
            )
    with Image.open(path) as image, pytest.raises(OSError, match="damaged or truncated"):
        image.verify()
    with Image.open(path) as image, pytest.raises(OSError, match="damaged or truncated"):
        image.thumbnail((20, 20))


def test_no_damaged_byte_passes() -> None:
    """Whatever is damaged, the errors are those that programs expect from Pillow."""
    for place in range(len(sprd())):
        with pytest.raises((OSError, Image.DecompressionBombError)):
            opened(damaged(sprd(), place)).verify()


def test_truncated_files_load_black_when_pillow_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    image = opened(sprd()[:-1])
    assert image.size == SIZE and image.getextrema() == ((0, 0),) * 3
    assert "xmp" not in image.info  # nothing was decoded
    with Image.open(WORKED_EXAMPLE) as image, pytest.raises(PluginError):  # other weights are no damage
        image.load()


def test_verify_runs_no_network() -> None:
    code = f"""
import sys, io, sprdiff.pillow
from PIL import Image
Image.open(io.BytesIO({sprd()!r})).verify()
print(*({{"onnxruntime", "torch"}} & set(sys.modules)))"""
    assert fresh(code).split() == []


def test_files_of_other_weights() -> None:
    for step in ("load", "verify"):
        with Image.open(WORKED_EXAMPLE) as image, pytest.raises(OSError, match="weights") as caught:
            getattr(image, step)()
        assert isinstance(caught.value.__cause__, ModelMismatchError)


def test_weights_that_are_not_there(options: None, tmp_path: Path) -> None:
    register_sprdiff_opener(weights=tmp_path)
    with pytest.raises(OSError, match=r"manifest\.json"):
        opened(sprd()).load()


def test_a_closed_image() -> None:
    with opened(sprd()) as image:
        pass
    with pytest.raises(ValueError, match="closed"):
        image.load()


def test_a_file_that_changes_under_the_image() -> None:
    stream = io.BytesIO(sprd())
    image = Image.open(stream)
    stream.seek(0)
    stream.write(sprd(40, 40))
    stream.truncate()
    with pytest.raises(OSError, match="changed"):
        image.load()


def test_limit_on_pixels(options: None) -> None:
    limits = Image.MAX_IMAGE_PIXELS
    assert opened(empty(8192, 8192)).size == (8192, 8192)
    with pytest.raises(Image.DecompressionBombError, match="8193 x 8192"):
        opened(empty(8193, 8192))
    register_sprdiff_opener(max_pixels=8193 * 8192)
    assert opened(empty(8193, 8192)).size == (8193, 8192)
    register_sprdiff_opener(max_pixels=6143)
    with pytest.raises(Image.DecompressionBombError, match="96 x 64"):
        opened(sprd())
    assert limits == Image.MAX_IMAGE_PIXELS


def test_the_incremental_parser() -> None:
    """Web frameworks feed uploads to it and ask for the size as soon as it is known."""
    with ImageFile.Parser() as parser:
        for start in range(0, len(sprd()), 7):
            parser.feed(sprd()[start : start + 7])
            if start == 14:
                assert parser.image is not None and parser.image.size == SIZE
        assert parser.close().tobytes() == sprdiff.decode(sprd()).tobytes()


def test_many_threads_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    files = [sprd(quality=quality) for quality in (10, 30, 50, 70)]
    wanted = [sprdiff.decode(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: opened(files[number % 4]).tobytes(), range(32)))
    assert found == wanted * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_decodes_after_its_parent_did() -> None:
    """Workers of data loaders do this; leaving the process would hang on threads that were not forked."""
    code = f"""
import io, multiprocessing, warnings, sprdiff, sprdiff.pillow
from PIL import Image
warnings.simplefilter("ignore")  # newer Pythons warn of every fork beside threads
data = {sprd()!r}
def load(times):
    if times == 0:
        sprdiff.register_sprdiff_opener(threads=1)
    return Image.open(io.BytesIO(data)).tobytes()
sprdiff.register_sprdiff_opener(threads=2)
wanted = load(1)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map_async(load, range(4)).get(60) == [wanted] * 4)"""
    assert fresh(code) == "True\n"


def test_no_warning_of_pillow_about_the_file() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(sprd()).load()
