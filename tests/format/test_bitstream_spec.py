"""Tests that docs/bitstream.md is the format: a decoder written from it alone reads what the package
writes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spec_decoder
from bitstream_helpers import (
    GOLDEN,
    GOLDEN_WEIGHTS,
    Passes,
    load_golden_weights,
    make_entropy_arrays,
    make_latents,
    sha256_of,
    to_lists,
)
from sprdiff.errors import SprdiffError
from sprdiff.format.container import ParsedFile, parse_file, verify
from sprdiff.format.entropy import EntropyModel, Exact
from sprdiff.format.hash import canonical_hash

EXPECTED = json.loads((GOLDEN / "golden.json").read_text())
FILES = {name: (GOLDEN / f"{name}.sprd").read_bytes() for name in EXPECTED["files"]}
HASHES = {name: bytes.fromhex(digest) for name, digest in EXPECTED["hashes"].items()}
WEIGHTS = {name: load_golden_weights(name) for name in HASHES}
DOCUMENT = (Path(__file__).parents[2] / "docs" / "bitstream.md").read_text(encoding="utf-8")


def hash_for(name: str) -> bytes:
    """Return H of the weights that a golden file was made with."""
    return HASHES[EXPECTED["files"][name]["weights"]]


def digests(exact: Exact | spec_decoder.Exact) -> dict[str, str]:
    y_hat, mu, h = exact if isinstance(exact, tuple) else (exact.y_hat, exact.mu, exact.h)
    return {
        "y_hat": sha256_of(np.array(y_hat)),
        "mu": sha256_of(np.array(mu)),
        "h": sha256_of(np.array(h), "<i2"),
    }


def read(name: str) -> tuple[ParsedFile, EntropyModel, Exact]:
    parsed = parse_file(FILES[name])
    verify(parsed, FILES[name], hash_for(name), parsed.header.preset_id)
    model = EntropyModel(WEIGHTS[EXPECTED["files"][name]["weights"]])
    return (
        parsed,
        model,
        model.decode(parsed.stream, parsed.header.latent_size(model.stride), parsed.header.level),
    )


@pytest.mark.parametrize("name", FILES)
def test_the_package_reads_the_golden_files(name: str) -> None:
    expected = EXPECTED["files"][name]
    parsed, _, exact = read(name)
    assert {key: getattr(parsed.header, key) for key in expected["header"]} == expected["header"]
    assert digests(exact) == expected["sha256"]


@pytest.mark.parametrize("name", FILES)
def test_the_decoder_written_from_the_document_reads_the_same(name: str) -> None:
    weights = to_lists(WEIGHTS[EXPECTED["files"][name]["weights"]])
    fields, exact = spec_decoder.decode_file(FILES[name], weights, hash_for(name))
    assert digests(exact) == EXPECTED["files"][name]["sha256"]
    parsed, model, _ = read(name)
    header = parsed.header
    assert (fields["width"], fields["height"], fields["grey"]) == (header.width, header.height, header.grey)
    assert spec_decoder.grid_of(fields, weights) == header.latent_size(model.stride)


def test_the_golden_weights_are_as_various_as_the_format() -> None:
    models = {name: EntropyModel(arrays) for name, arrays in WEIGHTS.items()}
    assert {model.stride for model in models.values()} == {8, 16, 32, 64}
    assert {model.ratio for model in models.values()} == {1, 2, 3, 4}
    assert {int(arrays["passes"].max()) + 1 for arrays in WEIGHTS.values()} == {2, 3, 4, 6}
    assert WEIGHTS["four_passes"]["order"][:4].tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]], "group by group"
    for name, sizes in GOLDEN_WEIGHTS.items():
        made = make_entropy_arrays(**sizes)
        assert set(made) == set(WEIGHTS[name])
        assert all(
            np.array_equal(made[key], WEIGHTS[name][key]) for key in ("stride", "groups", "passes", "order")
        )


def test_an_empty_stream_holds_the_first_symbol_of_every_table() -> None:
    parsed, model, exact = read("empty")
    assert parsed.stream == b""
    residual = exact.y_hat - exact.mu
    assert {int(q) for q in np.unique(residual // 256)} <= {-int(radius) for radius in model.tables.radius}


@pytest.mark.parametrize("name", ["empty", "zeros_left_out"])
def test_the_encoder_writes_streams_that_end_early(name: str) -> None:
    parsed, model, exact = read(name)
    y = exact.y_hat / 256 / (WEIGHTS["checkerboard"]["gain.y"][parsed.header.level][:, None, None] / 65536)
    coder_z = z_of(parsed, model)
    coded = model.encode(y.astype(np.float32), coder_z, parsed.header.level)
    assert np.array_equal(coded.y_hat, exact.y_hat)
    assert coded.stream == parsed.stream and not coded.stream.endswith(b"\0")


def z_of(parsed: ParsedFile, model: EntropyModel) -> np.ndarray:
    """Return the unscaled ẑ of a file, by the decoder of the document."""
    weights, level = to_lists(WEIGHTS["checkerboard"]), parsed.header.level
    mean, index = weights["z.mean"][level], weights["z.index"][level]
    rows, columns = model.z_grid(parsed.header.latent_size(model.stride))
    coder = spec_decoder.RangeDecoder(parsed.stream)
    symbols = spec_decoder.read_block(coder, spec_decoder.tables_of(weights), [index] * (rows * columns))
    z_hat = 256 * np.array(symbols) + np.array(mean)
    z = z_hat / 256 / (WEIGHTS["checkerboard"]["gain.z"][level] / 65536)
    found: np.ndarray = z.T.reshape(-1, rows, columns).astype(np.float32)
    return found


def test_zeros_at_the_end_of_a_stream_change_nothing() -> None:
    short, long = read("zeros_left_out"), read("zeros_kept")
    assert long[0].stream == short[0].stream + bytes(9)
    assert digests(short[2]) == digests(long[2])


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Passes, list[tuple[int, int]], tuple[int, ...]]:
    """Draw any passes, groups and order that the format allows and that are small."""
    count = draw(st.integers(2, 4))
    numbers = draw(
        st.permutations(
            [
                *range(count),
                *draw(st.lists(st.integers(0, count - 1), min_size=4 - count, max_size=4 - count)),
            ]
        )
    )
    groups = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    pairs = [(number, group) for number in range(count) for group in range(len(groups))]
    return ((numbers[0], numbers[1]), (numbers[2], numbers[3])), draw(st.permutations(pairs)), groups


@settings(max_examples=60)
@given(schedules(), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(0, 1000))
def test_any_order_decodes_to_what_the_document_says(
    schedule: tuple[Passes, list[tuple[int, int]], tuple[int, ...]], shape: tuple[int, int], seed: int
) -> None:
    passes, order, groups = schedule
    arrays = make_entropy_arrays(
        seed, sum(groups), 2, groups, 4, 6, 6, passes=passes, order=order, ratio=1 + seed % 3
    )
    model = EntropyModel(arrays)
    coded = model.encode(*make_latents(arrays, seed, shape), 100)
    exact = model.decode(coded.stream, shape, 100)
    assert digests(exact) == digests(coded)
    assert digests(spec_decoder.decode_latents(coded.stream, shape, 100, to_lists(arrays))) == digests(exact)


@pytest.mark.parametrize("stride", [8, 16, 32, 64])
def test_the_grid_follows_from_the_stride_of_the_weights(stride: int) -> None:
    header = replace(parse_file(FILES["one_pixel"]).header, width=641, height=64, scale=0)
    assert header.latent_size(stride) == (64 // stride, -(-641 // stride))
    fields = {"width": 641, "height": 64, "scale": 0}
    assert spec_decoder.grid_of(fields, {"stride": [stride]}) == header.latent_size(stride)


def test_the_hash_of_the_document_is_the_hash_of_the_package() -> None:
    decoder = {"coarse.head.weight": np.arange(6, dtype=np.float16).reshape(2, 3) / np.float16(8)}
    for arrays in (*WEIGHTS.values(), decoder):
        listed = [(name, a.dtype.str, a.shape, a.ravel().tolist()) for name, a in arrays.items()]
        assert spec_decoder.weights_hash(listed) == canonical_hash(arrays)
    assert {name: canonical_hash(arrays) for name, arrays in WEIGHTS.items()} == HASHES


@pytest.mark.parametrize("name", FILES)
def test_every_damaged_bit_of_a_golden_file_is_found(name: str) -> None:
    for bit in range(8 * len(FILES[name])):
        data = bytearray(FILES[name])
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SprdiffError):
            verify(parse_file(bytes(data)), bytes(data), hash_for(name))


def example() -> list[tuple[bytes, str]]:
    """Return (bytes, comment) of each line of the document's hex block."""
    block = re.search(r"```hex\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block
    lines = [line.partition("#") for line in block[1].splitlines()]
    return [(bytes.fromhex(data), comment.strip()) for data, _, comment in lines]


def test_the_worked_example_is_the_golden_file_field_by_field() -> None:
    lines = example()
    assert b"".join(data for data, _ in lines) == FILES["worked_example"]
    fields = spec_decoder.read_header(FILES["worked_example"])
    assert [comment for _, comment in lines[:9]] == [
        "magic",
        f"version {fields['version']}, not grey, scale code {fields['scale']} (factor 1)",
        f"preset {fields['preset']} (tiny)",
        "tag",
        f"level {fields['level']}",
        f"width {fields['width']}",
        f"height {fields['height']}",
        "check",
        "stream",
    ]
    assert lines[3][0] == fields["tag"] == HASHES["checkerboard"][:2]
    assert int.from_bytes(lines[7][0], "big") == fields["check"]
    assert b"".join(data for data, _ in lines[8:]) == fields["stream"]


def test_the_numbers_of_the_worked_example() -> None:
    text = re.sub(r"\s+", " ", DOCUMENT[DOCUMENT.index("## 8.") :])
    digest = HASHES["checkerboard"]
    assert f"hash is `{digest.hex()}`" in text
    weights = to_lists(WEIGHTS["checkerboard"])
    fields, exact = spec_decoder.decode_file(FILES["worked_example"], weights, digest)
    coder = spec_decoder.RangeDecoder(fields["stream"])
    index = weights["z.index"][fields["level"]]
    counts = spec_decoder.tables_of(weights)[max(index)]
    scale = coder.width // 2**24
    first = f"d = `0x{coder.offset:016x}`; the first symbol is of z, channel {index.index(max(index))}, "
    first += f"with table {max(index)} (R = {len(counts) // 2 - 1}): "
    first += f"t = `0x{scale:x}`, u = {coder.offset // scale}, "
    symbol = coder.symbol(counts)
    assert first + f"index {symbol}, so q = {symbol - len(counts) // 2 + 1}" in text
    assert f"`{'; '.join(' '.join(map(str, row)) for row in exact.y[0])}`" in text
    assert EXPECTED["files"]["worked_example"]["sha256"]["y_hat"] in text
