"""docs/bitstream.md is the format: a decoder written from it alone reads what the package writes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spec_decoder
from bitstream_helpers import GOLDEN, load_golden_weights, make_entropy_arrays, sha256_of, to_lists
from sprdiff.errors import SprdiffError
from sprdiff.format.container import parse_file, verify
from sprdiff.format.entropy import EntropyModel
from sprdiff.format.hash import canonical_hash

EXPECTED = json.loads((GOLDEN / "golden.json").read_text())
FILES = {name: (GOLDEN / f"{name}.sprd").read_bytes() for name in EXPECTED["files"]}
ENTROPY, DECODER = load_golden_weights()
HASH = bytes.fromhex(EXPECTED["hash"])
DOCUMENT = (Path(__file__).parents[2] / "docs" / "bitstream.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_the_package_reads_the_golden_files(name: str) -> None:
    data, expected = FILES[name], EXPECTED["files"][name]
    parsed = parse_file(data)
    verify(parsed, data, HASH, 1)
    header = parsed.header
    assert {key: getattr(header, key) for key in expected if key != "y_hat_sha256"} | {
        "y_hat_sha256": expected["y_hat_sha256"]
    } == expected
    y_hat = EntropyModel.from_arrays(ENTROPY).decode(parsed.stream, header.latent_size, header.level)
    assert sha256_of(y_hat) == expected["y_hat_sha256"]


@pytest.mark.parametrize("name", FILES)
def test_the_decoder_written_from_the_document_reads_the_same(name: str) -> None:
    fields, y_hat = spec_decoder.decode_file(FILES[name], to_lists(ENTROPY), HASH)
    assert sha256_of(np.array(y_hat)) == EXPECTED["files"][name]["y_hat_sha256"]
    header = parse_file(FILES[name]).header
    assert (fields["width"], fields["height"], fields["grey"]) == (header.width, header.height, header.grey)
    assert spec_decoder.grid_of(fields) == header.latent_size


@pytest.mark.parametrize("ratio", [1, 3, 4])
def test_other_ratios_of_the_hyper_latent_follow_from_the_weights(ratio: int) -> None:
    arrays = make_entropy_arrays(ratio, ratio=ratio)
    model, shape = EntropyModel.from_arrays(arrays), (5, 7)
    assert model.ratio == ratio
    assert model.z_grid(shape) == (-(-shape[0] // ratio), -(-shape[1] // ratio))
    rng = np.random.default_rng(0)
    y = rng.normal(0, 3, (model.y_channels, *shape)).astype(np.float32)
    z = rng.normal(0, 3, (model.z_channels, *model.z_grid(shape))).astype(np.float32)
    coded = model.encode(y, z, 100)
    assert np.array_equal(model.decode(coded.stream, shape, 100), coded.y_hat)
    assert np.array_equal(spec_decoder.decode_latents(coded.stream, shape, 100, to_lists(arrays)), coded.y_hat)


def test_the_grid_of_the_sd_preset_is_coarser() -> None:
    header = replace(parse_file(next(iter(FILES.values()))).header, preset_id=2, width=641, height=64, scale=0)
    assert header.latent_size == (1, 11)
    assert replace(header, preset_id=1).latent_size == (2, 21)
    fields = {"preset": 2, "width": 641, "height": 64, "scale": 0}
    assert spec_decoder.grid_of(fields) == header.latent_size


def test_the_hash_of_the_document_is_the_hash_of_the_package() -> None:
    parts = [
        [(name, a.dtype.str, a.shape, a.ravel().tolist()) for name, a in arrays.items()]
        for arrays in (ENTROPY, DECODER)
    ]
    assert spec_decoder.weights_hash(*parts) == canonical_hash(ENTROPY, DECODER) == HASH


@pytest.mark.parametrize("name", FILES)
def test_every_damaged_bit_of_a_golden_file_is_found(name: str) -> None:
    for bit in range(8 * len(FILES[name])):
        data = bytearray(FILES[name])
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SprdiffError):
            verify(parse_file(bytes(data)), bytes(data), HASH)


def example() -> list[tuple[bytes, str]]:
    """(bytes, comment) of each line of the document's hex block."""
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
    assert lines[3][0] == fields["tag"] == HASH[:2]
    assert int.from_bytes(lines[7][0], "big") == fields["check"]
    assert b"".join(data for data, _ in lines[8:]) == fields["stream"]


def test_the_numbers_of_the_worked_example() -> None:
    text = re.sub(r"\s+", " ", DOCUMENT[DOCUMENT.index("## 8.") :])
    assert f"hash is `{HASH.hex()}`" in text
    weights = to_lists(ENTROPY)
    fields, y_hat = spec_decoder.decode_file(FILES["worked_example"], weights, HASH)
    coder = spec_decoder.RangeDecoder(fields["stream"])
    index = weights["z.index"][fields["level"]]
    counts = spec_decoder.tables_of(weights)[min(index)]
    scale = coder.width // 2**24
    first = f"d = `0x{coder.offset:016x}`; the first symbol is of z, channel {index.index(min(index))}, "
    first += f"with table {min(index)} (R = {len(counts) // 2 - 1}): "
    first += f"t = `0x{scale:x}`, u = {coder.offset // scale}, "
    symbol = coder.symbol(counts)
    assert first + f"index {symbol}, so q = {symbol - len(counts) // 2 + 1}" in text
    assert f"`{'; '.join(' '.join(map(str, row)) for row in y_hat[0])}`" in text
    assert EXPECTED["files"]["worked_example"]["y_hat_sha256"] in text
