"""Tests that libraries which open images through Pillow open `.sprd` files once the plug-in is there, and
that nothing leaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sprdiff
import sprdiff.pillow
from conftest import photo
from pillow_helpers import sprd


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x.sprd").write_bytes(sprd())
    return tmp_path / "x.sprd"


def test_imageio(path: Path) -> None:
    iio = pytest.importorskip("imageio.v3")
    wanted = np.asarray(sprdiff.decode(sprd()))
    np.testing.assert_array_equal(iio.imread(path), wanted)
    np.testing.assert_array_equal(iio.imread(sprd(), extension=".sprd"), wanted)
    assert iio.improps(path).shape == wanted.shape
    assert iio.immeta(path)["sprdiff"]["quality"] == sprdiff.info(sprd()).quality
    iio.imwrite(path, photo(64, 96), extension=".sprd", max_bytes=150)
    assert path.read_bytes() == sprdiff.encode(photo(64, 96), max_bytes=150)


def test_matplotlib(path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    np.testing.assert_array_equal(image.imread(path), np.asarray(sprdiff.decode(sprd())))


def test_a_pytorch_data_loader(tmp_path: Path) -> None:
    data = pytest.importorskip("torch.utils.data")

    class Folder(data.Dataset):  # type: ignore[name-defined]
        """A data set of a folder's pictures in whatever format they have, as PyTorch's image folders are."""

        def __init__(self, folder: Path) -> None:
            known = Image.registered_extensions()
            self.paths = sorted(path for path in folder.iterdir() if path.suffix in known)

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> NDArray[np.uint8]:
            with Image.open(self.paths[index]) as image:
                return np.array(image.convert("RGB"))

    Image.fromarray(photo(64, 96)).save(tmp_path / "a.png")
    (tmp_path / "b.sprd").write_bytes(sprd())
    (batch,) = data.DataLoader(Folder(tmp_path), batch_size=2)
    np.testing.assert_array_equal(batch[0], photo(64, 96))
    np.testing.assert_array_equal(batch[1], np.asarray(sprdiff.decode(sprd())))


# ---- leaks

MEASURE = """
import gc, os, sys, sprdiff.pillow
from PIL import Image
sprdiff.register_sprdiff_opener(threads=1)
kept = []
def work():
    {work}
def held():
    gc.collect()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))
for _ in range({warm_up}):
    work()
memory, files = held()
for _ in range({times}):
    work()
memory_after, files_after = held()
print(memory_after - memory, files_after - files)
"""
MEGABYTE = 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")


def growth(work: str, warm_up: int, times: int) -> tuple[int, int]:
    """Return how many (bytes of resident memory, open files) a process has more after doing something many
    times.

    A process of its own: this one has room in its heap for leaks of some megabytes.
    """
    code = MEASURE.format(work=work, warm_up=warm_up, times=times)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    memory, files = map(int, done.stdout.split())
    return memory, files


@needs_proc
def test_ten_thousand_opened_headers_leak_nothing(path: Path) -> None:
    memory, files = growth(f"with Image.open({str(path)!r}) as image: image.size", 1000, 10_000)
    assert memory < MEGABYTE and files == 0


@needs_proc
def test_five_hundred_loads_leak_nothing(path: Path) -> None:
    memory, files = growth(f"Image.open({str(path)!r}).load()", 50, 500)
    assert memory < 4 * MEGABYTE and files == 0


@needs_proc
def test_the_measure_of_leaks_sees_a_file_and_the_pixels_of_a_small_picture(path: Path) -> None:
    memory, files = growth(f"kept.append((os.urandom(96 * 64 * 3), open({str(path)!r})))", 5, 500)
    assert memory > 8 * MEGABYTE and files == 500
