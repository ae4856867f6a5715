"""Folders of results for the tests of the report, in the schema of `sprdiff.evaluate.results`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace
from PIL import Image

from conftest import photo
from sprdiff.common.structs import to_json
from sprdiff.evaluate.results import (
    ROWS,
    CodecInfo,
    ImageInfo,
    MetricInfo,
    Row,
    Run,
    SetRow,
    Skipped,
    member,
    write_run,
    write_sets,
)
from sprdiff.evaluate.targets import Target

RATES = (0.01, 0.02, 0.03, 0.04)
CODECS = ("sprdiff-tiny", "vvc", "jpeg")
WIDTH, HEIGHT = 192, 128
PSNR = MetricInfo("psnr", "PSNR", "dB", "up", "10 log10(255^2 / MSE)", "image", None)
MS_SSIM = MetricInfo("ms_ssim", "MS-SSIM", "", "up", "Wang et al. 2003", "image", None)
LPIPS = MetricInfo("lpips_alex", "LPIPS (Alex)", "", "down", "Zhang et al. 2018", "image", "alex.pth")
FRECHET = MetricInfo("frechet", "Fréchet distance", "", "down", "SqueezeNet 1.1", "set", None)
METRICS = (PSNR, MS_SSIM, LPIPS, FRECHET)

BASE = {"sprdiff-tiny": 22.0, "vvc": 22.5, "jpeg": 20.0}

Figure = Callable[[str, int, float], Mapping[str, float | None]]


def figures(codec: str, index: int, rate: float) -> dict[str, float | None]:
    """Return figures that rise with the rate, differ between images far more than between codecs, and are no
    ties.

    vvc leads in PSNR by 0.5 dB, sprdiff-tiny in the others; jpeg is last.
    """
    place = CODECS.index(codec) if codec in CODECS else 1
    noise = 0.01 * ((index * 7 + place * 3) % 5)
    return {
        "psnr": BASE.get(codec, 21.0) + 50 * rate + 2.0 * index + noise,
        "ms_ssim": 0.6 - 0.03 * place + 5 * rate + 0.02 * index + 0.001 * noise,
        "lpips_alex": 0.4 + 0.03 * place - 2 * rate + 0.01 * index + 0.001 * noise,
    }


def row(codec: str, image: str, rate: float, metrics: Mapping[str, float | None]) -> Row:
    size = int(rate * WIDTH * HEIGHT / 8)
    return Row(
        codec=codec,
        image=image,
        target_bpp=rate,
        status="ok",
        message="",
        bytes=size,
        bpp=size * 8 / (WIDTH * HEIGHT),
        width=WIDTH,
        height=HEIGHT,
        setting={"quality": 10 + int(1000 * rate), "factor": 2},
        version="1.0",
        metrics=dict(metrics),
        encode_s=0.25,
        decode_s=0.0125,
        peak_mb=100.0,
    )


def lost(found: Row, message: str = "its smallest file has 900 bytes") -> Row:
    """Return the same row at a rate that the codec has not reached."""
    return replace(
        found,
        status="unreached",
        message=message,
        setting={},
        metrics={},
        encode_s=None,
        decode_s=None,
        peak_mb=None,
    )


def make_run(
    folder: Path,
    *,
    images: Sequence[str] = ("a.png", "b.png", "c.png", "d.png"),
    codecs: Sequence[str] = CODECS,
    rates: Sequence[float] = RATES,
    metrics: Sequence[MetricInfo] = METRICS,
    figure: Figure = figures,
    change: Callable[[Row], Row | None] = lambda found: found,
    command: str = "sprdiff eval FOLDER -o DIR",
    version: str = "1.0",
    skipped: Sequence[Skipped] = (Skipped("fid", "96 patches: FID needs at least 5,000"),),
) -> Path:
    """Write run.json, rows.jsonl and sets.jsonl; `change` alters a row, or drops it by returning None."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {image: hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest() for image in images}
    run = Run(
        format=1,
        sprdiff="0.1.0",
        python="3.11.2",
        platform="Linux",
        cpu="a processor",
        folder=str(folder / "originals"),
        images=[ImageInfo(image, WIDTH, HEIGHT, digests[image]) for image in images],
        rates=list(rates),
        codecs=[CodecInfo(codec, version) for codec in codecs],
        skipped_codecs=[],
        metrics=list(metrics),
        skipped_metrics=list(skipped),
        commands=[command],
    )
    units = [(codec, i, image, rate) for codec in codecs for i, image in enumerate(images) for rate in rates]
    rows = [change(row(codec, image, rate, figure(codec, i, rate))) for codec, i, image, rate in units]
    write_run(folder, run)
    (folder / ROWS).write_bytes(b"".join(to_json(found) for found in rows if found is not None))
    sets = [
        SetRow(codec, rate, len(images), {"frechet": 96}, {"frechet": 3000.0 + 500 * place - 1e4 * rate}, {})
        for place, codec in enumerate(codecs)
        for rate in rates
    ]
    write_sets(folder, sets if FRECHET in metrics else [])
    return folder


def keep_pictures(folder: Path, images: Sequence[str], codecs: Sequence[str], rates: Sequence[float]) -> None:
    """Write made-up originals, recorded in run.json, and decoded pictures as --keep leaves them."""
    from sprdiff.evaluate.results import read_run

    originals = folder / "originals"
    originals.mkdir(exist_ok=True)
    run, infos = read_run(folder), []
    for index, info in enumerate(run.images):
        if info.name in images:
            path = originals / info.name
            Image.fromarray(photo(HEIGHT, WIDTH, seed=index)).save(path)
            infos.append(replace(info, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
            for place, codec in enumerate(codecs):
                for rate in rates:
                    target = member(folder, "images", codec, Target(rate), info.name, ".png")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(photo(HEIGHT, WIDTH, seed=100 * (place + 1) + index)).save(target)
        else:
            infos.append(info)
    write_run(folder, replace(run, images=infos))
