"""Quality at a rate on a folder of images, through real files: encode to bytes, decode from those bytes.

    python benchmarks/kodak.py FOLDER --bpp 0.0138,0.0203,0.028 --realism 0,1 --features squeezenet.h5

Rates count whole files, header and all. Prints a Markdown table of means over the images; ``--rows`` adds
one line per image, ``--json`` writes everything, ``--save`` keeps the files and the decoded pictures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sprdiff import Codec
from sprdiff.bitstream.container import SCALES, parse_file
from sprdiff.errors import SprdiffError
from sprdiff.evaluate.features import MIN_CROPS, FeatureNetwork, frechet_distance
from sprdiff.evaluate.metrics import ms_ssim, psnr
from sprdiff.image import open_rgb

T = TypeVar("T")

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
RATES = (0.0138, 0.0203, 0.028)
# Column of a table: heading, name of the figure, digits after the point.
FIGURES = (
    ("PSNR", "psnr", 2),
    ("MS-SSIM", "ms_ssim", 4),
    ("feature distance", "feature_distance", 3),
)
SETTING = (("setting", "setting", 0), ("realism", "realism", 2), ("bpp", "bpp", 4))
TIMES = (("encode s", "encode_s", 2), ("decode s", "decode_s", 2))
MEANS = (*SETTING, *FIGURES, ("Fréchet", "frechet", 0), *TIMES)
FILE = (("bytes", "size", 0), ("level", "level", 0), ("scale", "scale", 1))
SINGLE = (("image", "image", 0), *SETTING, *FILE, *FIGURES)


@dataclass(frozen=True)
class Setting:
    """What one file is made with: a target in bits per pixel, or a quality 0-100."""

    kind: str
    value: float

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"

    def encode(self, codec: Codec, image: Image.Image) -> bytes:
        if self.kind == "bpp":
            return codec.encode(image, bpp=self.value)
        return codec.encode(image, quality=self.value)


@dataclass(frozen=True)
class Row:
    """One image at one setting and realism. Sizes in bytes, times in seconds, PSNR in dB."""

    image: str
    setting: str
    realism: float
    size: int
    bpp: float
    level: int
    scale: float
    psnr: float
    ms_ssim: float
    feature_distance: float | None
    encode_s: float
    decode_s: float


class Patches:
    """Features of the crops of the originals, and of what each (setting, realism) made of them."""

    def __init__(self, network: FeatureNetwork) -> None:
        self.network = network
        self._originals: list[NDArray[np.float32]] = []
        self._decoded: dict[tuple[str, float], list[NDArray[np.float32]]] = {}

    def add_original(self, pixels: NDArray[np.uint8]) -> None:
        self._originals.append(self.network.patch_features(pixels))

    def add(self, row: Row, pixels: NDArray[np.uint8]) -> None:
        self._decoded.setdefault((row.setting, row.realism), []).append(self.network.patch_features(pixels))

    @property
    def crops(self) -> int:
        return sum(len(part) for part in self._originals)

    def frechet(self, key: tuple[str, float]) -> float | None:
        """Fréchet distance of the decoded crops to the originals; None where they are too few for it."""
        if self.crops < MIN_CROPS:
            return None
        return frechet_distance(np.concatenate(self._originals), np.concatenate(self._decoded[key]))


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Result and wall time in seconds."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def measure_image(
    codec: Codec, path: Path, settings: Sequence[Setting], realisms: Sequence[float], patches: Patches | None
) -> Iterator[tuple[Row, bytes, Image.Image]]:
    """Encode and decode one image at all settings: a row, the file and the decoded picture each time."""
    pixels = open_rgb(path).pixels
    image = Image.fromarray(pixels)
    if patches:
        patches.add_original(pixels)
    for setting in settings:
        data, encode_s = timed(partial(setting.encode, codec, image))
        header = parse_file(data).header
        for realism in realisms:
            decoded, decode_s = timed(partial(codec.decode, data, realism=realism))
            result = np.asarray(decoded.convert("RGB"))
            row = Row(
                image=path.name, setting=str(setting), realism=realism, size=len(data),
                bpp=8.0 * len(data) / (image.width * image.height),
                level=header.level, scale=float(SCALES[header.scale]),
                psnr=psnr(pixels, result), ms_ssim=ms_ssim(pixels, result),
                feature_distance=patches.network.feature_distance(pixels, result) if patches else None,
                encode_s=encode_s, decode_s=decode_s,
            )  # fmt: skip
            if patches:
                patches.add(row, result)
            yield row, data, decoded


def summarise(rows: Sequence[Row], patches: Patches | None) -> list[dict[str, Any]]:
    """Means over the images, one entry per (setting, realism), in order of first appearance."""
    summary = []
    for key in dict.fromkeys((row.setting, row.realism) for row in rows):
        group = [row for row in rows if (row.setting, row.realism) == key]
        entry: dict[str, Any] = {"setting": key[0], "realism": key[1]}
        for name in ("bpp", "psnr", "ms_ssim", "feature_distance", "encode_s", "decode_s"):
            values = [getattr(row, name) for row in group]
            entry[name] = None if None in values else statistics.fmean(values)
        entry["frechet"] = patches.frechet(key) if patches else None
        summary.append(entry)
    return summary


def table(columns: Sequence[tuple[str, str, int]], entries: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of the named figures of each entry; a missing figure is a dash."""
    lines = [[heading for heading, _, _ in columns], ["---"] * len(columns)]
    lines += [[cell(entry[name], digits) for _, name, digits in columns] for entry in entries]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: float | str | None, digits: int) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.{digits}f}"


def save(folder: Path, row: Row, data: bytes, decoded: Image.Image) -> None:
    """Write ``NAME_SETTING.sprd`` and ``NAME_SETTING_rREALISM.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{Path(row.image).stem}_{row.setting.replace(' ', '')}"
    (folder / f"{name}.sprd").write_bytes(data)
    decoded.save(folder / f"{name}_r{row.realism:g}.png")


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images (Kodak: kodim01.png … kodim24.png)")
    parser.add_argument("--bpp", type=numbers, help="targets in bits per pixel (default 0.0138,0.0203,0.028)")
    parser.add_argument("--quality", type=numbers, help="qualities 0-100, instead of or beside targets")
    parser.add_argument("--realism", type=numbers, default=[0.0, 1.0], help="realism 0-1 (default 0,1)")
    parser.add_argument("--weights", type=Path, help="weights folder (default: the shipped ones)")
    parser.add_argument("--features", type=Path, help="SqueezeNet weights, for the feature figures")
    parser.add_argument("--threads", type=int, help="threads of the codec")
    parser.add_argument("--limit", type=int, help="first N images only")
    parser.add_argument("--rows", action="store_true", help="print one line per image too")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep files and decoded pictures here")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write means and rows here")
    return parser.parse_args(argv)


def find_images(folder: Path, limit: int | None) -> list[Path]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)[:limit]
    if not paths:
        raise SprdiffError(f"no images in {folder}")
    return paths


def run(options: argparse.Namespace) -> None:
    paths = find_images(options.folder, options.limit)
    settings = [Setting("bpp", value) for value in options.bpp or (() if options.quality else RATES)]
    settings += [Setting("quality", value) for value in options.quality or ()]
    patches = Patches(FeatureNetwork.load(options.features)) if options.features else None
    codec = Codec(weights=options.weights, threads=options.threads)
    # The first call loads the networks; it must not count as encoding or decoding.
    codec.decode(settings[0].encode(codec, Image.fromarray(open_rgb(paths[0]).pixels)))
    rows: list[Row] = []
    for path in paths:
        for row, data, decoded in measure_image(codec, path, settings, options.realism, patches):
            rows.append(row)
            if options.save:
                save(options.save, row, data, decoded)
        print(f"{path.name} done ({len(rows)} results)", file=sys.stderr)
    summary = summarise(rows, patches)
    crops = patches.crops if patches else 0
    single = [asdict(row) for row in rows]
    note = f"; {crops} crops in each set of the Fréchet distance" if crops else ""
    print(f"{len(paths)} images, whole files, means{note}\n")
    print(table(MEANS, summary))
    if options.rows:
        print("\n" + table(SINGLE, single))
    if options.json:
        content = {"images": len(paths), "crops": crops, "means": summary, "rows": single}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        run(parse_arguments(argv))
    except SprdiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
