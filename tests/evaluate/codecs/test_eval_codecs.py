"""Tests of the codecs under comparison: their names, files and back, and what they refuse."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from conftest import photo, with_dials
from sprdiff.codec import Codec
from sprdiff.errors import TargetError, WeightsError
from sprdiff.evaluate.codecs import ffmpeg as codecs_ffmpeg
from sprdiff.evaluate.codecs import pillow as codecs_pillow
from sprdiff.evaluate.codecs.base import BudgetCodec, CodecError, ImageCodec, MissingCodec, UnknownCodec
from sprdiff.evaluate.codecs.external import External
from sprdiff.evaluate.codecs.registry import CLASSICAL
from sprdiff.evaluate.codecs.registry import parse_codecs as parse
from sprdiff.evaluate.metrics.distortion import psnr
from sprdiff.format.container import parse_file
from sprdiff.runtime.weights import default_folder

START = {
    "jpeg": b"\xff\xd8\xff",
    "webp": b"RIFF",
    "avif": b"\0\0\0",
    "jxl": b"\xff\x0a",  # a bare codestream, as of JPEG 2000
    "jpeg2000": b"\xff\x4f\xff\x51",
    "heic": b"\0\0\0",
    "vvc": b"\0\0\0\1\0\x79",  # a parameter set comes first, no delimiter
}


@pytest.fixture(params=CLASSICAL)
def codec(request: pytest.FixtureRequest) -> ImageCodec:
    """Return each codec without networks that can run here."""
    (found,) = parse([request.param])
    absent = found.missing()
    if absent is not None:
        pytest.skip(str(absent))
    return found


def smooth(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Make a picture without noise, [height, width, 3], which fine codecs come close to."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, 128 + 0 * x], -1).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (61, 83)])
def test_a_picture_comes_back(codec: ImageCodec, size: tuple[int, int]) -> None:
    pixels = smooth(*size)
    setting = {"quality": codec.qualities[-len(codec.qualities) // 8], "factor": 1}
    data = codec.encode_at(pixels, setting)
    decoded = codec.decode_at(data, setting, size)
    assert decoded.shape == pixels.shape and decoded.dtype == np.uint8
    # Colours swapped, or taken for another range or matrix, would end far below this.
    assert psnr(pixels, decoded) > 30


def test_files_are_bare_and_the_same_each_time(codec: ImageCodec) -> None:
    pixels, quality = photo(64, 96), codec.qualities[len(codec.qualities) // 2]
    data = codec.encode(pixels, quality)
    assert data.startswith(START[codec.name])
    assert codec.encode(pixels, quality) == data


def test_qualities_are_ordered_from_small_to_large(codec: ImageCodec) -> None:
    qualities = list(codec.qualities)
    assert len(set(qualities)) == len(qualities)
    pixels = photo(96, 128)
    sizes = [len(codec.encode(pixels, qualities[i * (len(qualities) - 1) // 4])) for i in range(5)]
    assert sizes == sorted(sizes) and sizes[-1] > 5 * sizes[0]


def test_small_files_can_be_made(codec: ImageCodec) -> None:
    assert len(codec.encode(photo(64, 96), codec.qualities[0])) < 500


def test_versions_name_the_library(codec: ImageCodec) -> None:
    assert any(character.isdigit() for character in codec.version())


@pytest.mark.parametrize("data", [b"", b"no picture at all" * 9, bytes(1000)])
def test_other_bytes_are_refused(codec: ImageCodec, data: bytes) -> None:
    with pytest.raises(CodecError, match=codec.name):
        codec.decode(data)


def test_a_file_of_another_format_is_refused() -> None:
    jpeg, webp = parse(["jpeg", "webp"])
    with pytest.raises(CodecError, match="webp cannot be decoded"):
        webp.decode(jpeg.encode(photo(64, 64), 50))


def test_a_picture_beyond_the_format() -> None:
    (webp,) = parse(["webp"])
    with pytest.raises(CodecError, match="webp cannot encode"):
        webp.encode(np.zeros((1, 20000, 3), np.uint8), 50)


def test_options_change_the_file() -> None:
    pixels = photo(96, 96)
    plain, other = parse(["jpeg", "jpeg@subsampling=4:4:4"])
    assert (plain.name, other.name) == ("jpeg", "jpeg@subsampling=4:4:4")
    assert len(other.encode(pixels, 50)) > len(plain.encode(pixels, 50))


def test_jpeg_is_baseline_or_progressive_whichever_is_smaller() -> None:
    (jpeg,) = parse(["jpeg"])
    small, large = jpeg.encode(photo(32, 32), 20), jpeg.encode(photo(512, 512), 95)
    assert b"\xff\xc0" in small and b"\xff\xc2" in large


def test_names() -> None:
    own = External("mine", "a {input} {output} {quality}", "b {input} {output}", (1, 2))
    specs = ["vvc", "sprdiff-tiny@coarse", "mine", "vvc", "avif@speed=6@tune=psnr"]
    assert [codec.name for codec in parse(specs, external=[own])] == [
        "vvc",
        "sprdiff-tiny@coarse",
        "mine",
        "avif@speed=6@tune=psnr",
    ]
    assert parse(["avif@speed=6@tune=psnr"]) == [codecs_pillow.Avif("avif@speed=6@tune=psnr", 6, "psnr")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bpg", r"there is no codec 'bpg'; there are sprdiff-tiny, .*jpeg, .*vvc, mine$"),
        ("", "there is no codec ''"),
        ("sprdiff", "there is no codec 'sprdiff'"),
        ("sprdiff-huge", "there is no codec 'sprdiff-huge'"),
        ("avif@fast=1", "there is no option 'fast'; options: speed, tune, subsampling"),
        ("avif@speed=11", "speed must be one of 0, 1, .*10, not '11'"),
        ("avif@speed", "speed must be one of"),
        ("jpeg2000@x=1", "options: none"),
        ("vvc@name=x", "no option 'name'"),
        ("sprdiff-tiny@realism=2", "@realism=2 is none of @coarse"),
        ("sprdiff-tiny@realism=nan", "is none of"),
        ("sprdiff-tiny@effort=10", "is none of .*@effort=0…9"),
        ("sprdiff-tiny@steps=0", "@steps=0 is none of .*@steps=1…1000, @seed=N"),
        ("sprdiff-tiny@steps=1001", "is none of"),
        ("sprdiff-tiny@steps=8.0", "is none of"),
        ("sprdiff-tiny@seed=-1", "is none of"),
        ("sprdiff-tiny@seed=18446744073709551616", "is none of"),
        ("sprdiff-tiny@seed=²", "is none of"),
        ("sprdiff-tiny@effort=-1", "is none of"),
        ("sprdiff-tiny@weights=", "is none of"),
    ],
)
def test_wrong_names(spec: str, message: str) -> None:
    own = External("mine", "a {input} {output} {quality}", "b {input} {output}", (1, 2))
    with pytest.raises(UnknownCodec, match=message):
        parse([spec], external=[own])


@pytest.mark.parametrize("name", ["jpeg", "sprdiff-mine", "a@b"])
def test_names_that_are_taken(name: str) -> None:
    with pytest.raises(UnknownCodec, match=f"cannot be called {name}"):
        parse([], external=[External(name, "a {input} {output} {quality}", "b {input} {output}", (1,))])


def test_absent_libraries_are_told_with_what_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    codecs_ffmpeg._ffmpeg.cache_clear()
    codecs_ffmpeg._ffmpeg_version.cache_clear()
    codecs_pillow._pillow_heif.cache_clear()
    for codec in parse(["heic", "vvc", "jxl"]):
        error = codec.missing()
        assert isinstance(error, MissingCodec)
        assert str(error).startswith(codec.name) and "pip install 'sprdiff[eval]'" in str(error)


def test_an_absent_feature_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda _: False)
    (avif,) = parse(["avif"])
    assert "avif" in str(avif.missing())


def test_an_ffmpeg_without_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\necho 'ffmpeg version 1'; echo \"Unknown encoder 'libvvenc'\" >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(codecs_ffmpeg, "_ffmpeg", lambda _: str(program))
    codecs_ffmpeg._ffmpeg_version.cache_clear()
    codecs_ffmpeg._encoder_version.cache_clear()
    (vvc,) = parse(["vvc"])
    assert "has no libvvenc" in str(vvc.missing())
    with pytest.raises(CodecError, match="vvc: ffmpeg failed: Unknown encoder"):
        vvc.encode(photo(64, 64), 30)
    codecs_ffmpeg._ffmpeg_version.cache_clear()


def test_sprdiff_fills_a_budget_and_can_make_the_same_file_again() -> None:
    fine, coarse = parse(["sprdiff-tiny", "sprdiff-tiny@coarse"])
    assert isinstance(fine, BudgetCodec) and isinstance(coarse, BudgetCodec)
    pixels = photo(200, 264)
    data, setting = fine.encode_to(pixels, 300)
    assert 200 < len(data) <= 300
    default, _ = Codec().manifest.dials(parse_file(data).header.level, None, None)
    assert setting["realism"] == default > 0 and coarse.encode_to(pixels, 300)[1]["realism"] == 0
    assert fine.encode_at(pixels, setting) == data
    sharp, blurred = (codec.decode_at(data, setting, (200, 264)) for codec in (fine, coarse))
    assert sharp.shape == blurred.shape == pixels.shape
    assert not np.array_equal(sharp, blurred)


def test_steps_and_seed_reach_the_decoder_and_are_told() -> None:
    names = [
        "sprdiff-tiny",
        "sprdiff-tiny@seed=1",
        "sprdiff-tiny@steps=2",
        "sprdiff-tiny@realism=0.5@steps=2@seed=1",
    ]
    codecs = parse(names)
    pixels = photo(96, 128)
    plain = codecs[0]
    assert isinstance(plain, BudgetCodec)
    data, _ = plain.encode_to(pixels, 150)
    pictures = [codec.decode(data) for codec in codecs]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(pictures, 2))
    reader = Codec()
    assert np.array_equal(pictures[0], np.asarray(reader.decode(data))), (
        "the default dials are the decoder's own"
    )
    assert np.array_equal(pictures[3], np.asarray(reader.decode(data, realism=0.5, steps=2, seed=1)))
    told, steps = [codec.version() for codec in codecs], f", steps {reader.manifest.steps}"
    assert told[0].endswith(steps) and reader.manifest.steps != 2
    assert told[1:3] == [told[0] + ", seed 1", told[0].removesuffix(steps) + ", steps 2"]
    assert told[3].endswith(", realism 0.5, steps 2, seed 1")
    last = codecs[3]
    assert isinstance(last, BudgetCodec)
    setting = last.encode_to(pixels, 150)[1]
    assert (setting["realism"], setting["steps"], setting["seed"]) == (0.5, 2, 1)


def test_without_dials_the_codec_takes_those_of_its_manifest(tmp_path: Path) -> None:
    table = [0.25 if level < 128 else 0.75 for level in range(256)]
    ramp, other, flat = (
        with_dials(default_folder(), tmp_path / name, steps=3, realism=realism)
        for name, realism in {"ramp": table, "other": table[::-1], "flat": 0.5}.items()
    )
    codec, turned = parse([f"sprdiff-tiny@weights={ramp}", f"sprdiff-tiny@realism=1@steps=1@weights={ramp}"])
    assert isinstance(codec, BudgetCodec) and isinstance(turned, BudgetCodec)
    pixels, reader = photo(96, 128), Codec(threads=1)
    for quality, realism in {20.0: 0.25, 80.0: 0.75}.items():
        data = reader.encode(pixels, quality=quality)
        wanted = np.asarray(reader.decode(data, realism=realism, steps=3))
        assert np.array_equal(codec.decode(data), wanted)
        assert np.array_equal(turned.decode(data), np.asarray(reader.decode(data, realism=1.0, steps=1)))
        setting = codec.encode_to(pixels, len(data))[1]
        level = setting["level"]
        assert isinstance(level, int) and (setting["realism"], setting["steps"]) == (table[level], 3)
    specs = [f"sprdiff-tiny@weights={folder}" for folder in (ramp, other, flat)]
    versions = [found.version() for found in parse(specs)]
    assert len(set(versions)) == 3 and versions[2].endswith(", realism 0.5, steps 3")
    assert "realism by level (" in versions[0]


def test_sprdiff_with_effort() -> None:
    plain, refined = parse(["sprdiff-tiny@coarse", "sprdiff-tiny@coarse@effort=1"])
    assert isinstance(plain, BudgetCodec) and isinstance(refined, BudgetCodec)
    pixels = photo(96, 128)
    data, setting = refined.encode_to(pixels, 150)
    assert len(data) <= 150 and data != plain.encode_to(pixels, 150)[0]
    assert setting["effort"] == 1 and refined.encode_at(pixels, setting) == data
    before, steps = plain.version().split(", steps ")
    assert refined.version() == f"{before}, effort 1, steps {steps}"


def test_effort_without_torch_is_named_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plain, refined = parse(["sprdiff-tiny", "sprdiff-tiny@effort=3"])
    error = refined.missing()
    assert plain.missing() is None and isinstance(error, MissingCodec)
    assert "pip install 'sprdiff[train]'" in str(error)


def test_sprdiff_refuses() -> None:
    (codec,) = parse(["sprdiff-tiny@realism=0.5"])
    assert isinstance(codec, BudgetCodec)
    pixels = photo(96, 128)
    with pytest.raises(TargetError):
        codec.encode_to(pixels, 5)
    with pytest.raises(CodecError, match=r"sprdiff-tiny@realism=0\.5"):
        codec.decode(b"no file")
    data = codec.encode(pixels, 3)
    with pytest.raises(CodecError, match="of another size"):
        codec.decode_at(data, {}, (96, 127))


def test_sprdiff_names_its_weights(tmp_path: Path) -> None:
    tiny, half, other = parse(
        ["sprdiff-tiny", "sprdiff-tiny@realism=0.5", f"sprdiff-tiny@weights={tmp_path}"]
    )
    assert "weights" in tiny.version() and tiny.version() != half.version()
    assert tiny.missing() is None
    with pytest.raises(WeightsError):
        other.version()
    with pytest.raises(UnknownCodec, match="give sprdiff-sd@weights=DIR"):
        parse(["sprdiff-sd"])[0].missing()


def test_vvc_spends_nothing_on_pictures_that_do_not_follow() -> None:
    (vvc,) = parse(["vvc"])
    if (absent := vvc.missing()) is not None:
        pytest.skip(str(absent))
    assert len(vvc.encode(np.full((64, 96, 3), 90, np.uint8), 50)) < 100
