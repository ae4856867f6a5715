"""Turns a photograph into a file of about a thousand bytes and back: ``make demo`` runs this.

    python scripts/demo.py [PHOTO] [--bpp 0.02] [--out demo] [--baseline avif]

Without a PHOTO it takes ``china.jpg`` out of the installed package scikit-learn (which is not imported).
Writes the file, the decoded picture, and original | coarse | decoded side by side as ``demo.png``. With a
baseline (any codec of ``sprdiff eval``; extra: eval), the picture in its best file of at most as many bytes
takes the place of the coarse one. The README's picture was made so, with ``--baseline avif``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from sprdiff import Codec
from sprdiff.common.files import write_atomic
from sprdiff.imageio.open import open_rgb
from sprdiff.imageio.save import save_image
from sprdiff.imageio.xmp import with_source

PACKAGE, PHOTO = "scikit-learn", "sklearn/datasets/images/china.jpg"
MARGIN, CAPTION, FONT = 8, 40, 14


def shipped_photo() -> Path:
    """Return the path of the photograph in the installed package."""
    for file in importlib.metadata.files(PACKAGE) or ():
        if file.as_posix() == PHOTO:
            return Path(str(file.locate()))
    raise SystemExit(f"{PACKAGE} has no {PHOTO}: name a photograph on the command line")


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio in dB of two uint8 pictures."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def side_by_side(panels: list[tuple[str, NDArray[np.uint8]]]) -> Image.Image:
    """Draw the panels in a row, each over its caption of up to two lines."""
    height, width = panels[0][1].shape[:2]
    sheet = Image.new(
        "RGB", (len(panels) * (width + MARGIN) + MARGIN, height + CAPTION + 2 * MARGIN), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for index, (caption, pixels) in enumerate(panels):
        left = MARGIN + index * (width + MARGIN)
        sheet.paste(Image.fromarray(pixels), (left, MARGIN))
        draw.multiline_text(
            (left, height + MARGIN + 4), caption, fill="black", font=ImageFont.load_default(FONT)
        )
    return sheet


def timed_decode(codec: Codec, data: bytes, realism: float | None = None) -> tuple[NDArray[np.uint8], float]:
    """Decode a file once; return (uint8 [H, W, 3], seconds)."""
    start = time.perf_counter()
    image = codec.decode(data, realism=realism)
    return open_rgb(image).pixels, time.perf_counter() - start


def best_of(name: str, pixels: NDArray[np.uint8], budget: int) -> tuple[str, NDArray[np.uint8]]:
    """Return caption and decoded picture of a codec's best file of at most `budget` bytes."""
    from sprdiff.evaluate.codecs.registry import parse_codecs
    from sprdiff.evaluate.run.search import best_at

    found = best_at(parse_codecs([name])[0], pixels, budget)
    if found is None:
        raise SystemExit(f"{name} makes no file of at most {budget} bytes of this picture")
    return f"{name.upper()}, {len(found.data)} bytes", found.decoded


def main() -> None:
    """Encode, decode, write the sheet and print the figures."""
    parser = argparse.ArgumentParser(description="A photograph to about a thousand bytes and back.")
    parser.add_argument("photo", nargs="?", type=Path, help="default: a photograph from scikit-learn")
    parser.add_argument("--bpp", type=float, default=0.02, help="bits per pixel")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results")
    parser.add_argument("--baseline", metavar="CODEC", help="show the best file of another codec, too")
    options = parser.parse_args()
    picture = open_rgb(options.photo or shipped_photo())
    height, width = picture.pixels.shape[:2]

    codec = Codec()
    start = time.perf_counter()
    data = codec.encode(picture, bpp=options.bpp)
    seconds = time.perf_counter() - start
    coarse, coarse_seconds = timed_decode(codec, data, realism=0)
    decoded, decoded_seconds = timed_decode(codec, data)
    bpp = len(data) * 8 / (height * width)

    table = Table()
    for heading in ("", "PSNR dB", "seconds"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("encode", "", f"{seconds:.2f}")
    table.add_row(
        "decode, coarse (realism 0)", f"{psnr(picture.pixels, coarse):.2f}", f"{coarse_seconds:.2f}"
    )
    table.add_row("decode", f"{psnr(picture.pixels, decoded):.2f}", f"{decoded_seconds:.2f}")

    options.out.mkdir(parents=True, exist_ok=True)
    beside = (f"coarse (realism 0), {len(data)} bytes", coarse)
    if options.baseline:
        beside = best_of(options.baseline, picture.pixels, len(data))
    panels = [
        (f"original\n{height * width * 3:,} bytes of pixels", picture.pixels),
        (f"{beside[0]}\n{psnr(picture.pixels, beside[1]):.2f} dB", beside[1]),
        (f"decoded, {len(data)} bytes\n{psnr(picture.pixels, decoded):.2f} dB", decoded),
    ]
    write_atomic(options.out / "demo.sprd", data, force=True)
    for name, image in (("decoded", Image.fromarray(decoded)), ("demo", side_by_side(panels))):
        save_image(options.out / f"{name}.png", with_source(image, realism=1), force=True)
    console = Console()
    console.print(f"{width} x {height} pixels in {len(data)} bytes = {bpp:.4f} bits per pixel")
    console.print(table)
    console.print(f"see {options.out / 'demo.png'}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
