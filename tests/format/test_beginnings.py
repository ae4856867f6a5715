"""Tests of the beginning of a stream: what is certain in it is decoded, and the rest is at its means."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spec_decoder
from bitstream_helpers import (
    GOLDEN,
    group_by_group,
    load_golden_weights,
    make_entropy_arrays,
    make_latents,
    sha256_of,
    to_lists,
)
from sprdiff.errors import BitstreamError
from sprdiff.format.container import parse_file
from sprdiff.format.entropy import EntropyModel, Exact

KINDS: dict[str, dict[str, Any]] = {
    "checkerboard": {"seed": 1},
    "four passes": {"seed": 2, "y_channels": 6, "groups": (1, 2, 3), "passes": ((0, 2), (3, 1)),
                    "order": group_by_group(4, 3)},
}  # fmt: skip
ARRAYS = {name: make_entropy_arrays(**kind) for name, kind in KINDS.items()}
MODELS = {name: EntropyModel(arrays) for name, arrays in ARRAYS.items()}


def same(exact: Exact, plain: spec_decoder.Exact) -> bool:
    return (exact.y_hat.tolist(), exact.mu.tolist(), exact.h.tolist()) == tuple(plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [0.5, 40.0])  # 40: many symbols escape
def test_every_beginning_decodes_to_what_the_document_says(kind: str, spread: float) -> None:
    model, weights = MODELS[kind], to_lists(ARRAYS[kind])
    coded = model.encode(*make_latents(ARRAYS[kind], 9, (2, 3), spread), 150)
    before = -1
    for length in range(len(coded.stream)):
        found = model.decode_beginning(coded.stream[:length], (2, 3), 150)
        assert same(found, spec_decoder.decode_beginning(coded.stream[:length], (2, 3), 150, weights))
        assert before <= found.known <= found.symbols
        before = found.known
    assert found.symbols == 6 * model.y_channels + 2 * model.z_channels
    assert before >= found.symbols - 12, "all but the last few symbols are known before the last byte"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 255), st.sampled_from([0.3, 3.0, 60.0]))
def test_what_is_certain_is_what_the_whole_stream_says(
    seed: int, part: float, level: int, spread: float
) -> None:
    """The known symbols come first in the order of the stream, and they are those of the whole stream."""
    model = MODELS["checkerboard"]
    coded = model.encode(*make_latents(ARRAYS["checkerboard"], seed, (3, 4), spread), level)
    found = model.decode_beginning(coded.stream[: int(part * len(coded.stream))], (3, 4), level)
    if found.known >= model.z_channels * 4:
        assert (found.h == coded.h).all()
    wrong = (found.y_hat != found.mu) & (found.y_hat != coded.y_hat)
    assert not wrong.any(), "a value is its mean or the true one"
    agree = int((found.y_hat == coded.y_hat).sum())
    assert agree >= found.known - model.z_channels * 4


def test_any_other_end_gives_the_same_known_symbols() -> None:
    """Streams with one beginning agree in everything that is called certain of the beginning."""
    model, rng = MODELS["checkerboard"], np.random.default_rng(0)
    whole = model.encode(*make_latents(ARRAYS["checkerboard"], 5, (3, 3)), 180).stream
    cut = whole[: len(whole) // 2]
    found = model.decode_beginning(cut, (3, 3), 180)
    known = (found.y_hat != found.mu) | False
    assert 0 < found.known < found.symbols
    tried = 0
    for _ in range(50):
        try:
            other = model.decode(cut + rng.bytes(30), (3, 3), 180)
        except BitstreamError:  # such a stream is none
            continue
        tried += 1
        assert (other.h == found.h).all() and (other.y_hat[known] == found.y_hat[known]).all()
    assert tried > 20


def test_nothing_at_all_is_the_means() -> None:
    found = MODELS["checkerboard"].decode_beginning(b"", (3, 3), 10)
    assert found.known == 0 and (found.y_hat == found.mu).all()


def test_a_whole_stream_is_known_but_for_its_last_symbols() -> None:
    """Only the check of the file can say that nothing follows."""
    model = MODELS["checkerboard"]
    coded = model.encode(*make_latents(ARRAYS["checkerboard"], 5, (3, 3)), 180)
    found = model.decode_beginning(coded.stream, (3, 3), 180)
    assert found.symbols - 12 <= found.known <= found.symbols
    more = model.decode_beginning(coded.stream + bytes(9), (3, 3), 180)
    assert more.known == more.symbols and (more.y_hat == coded.y_hat).all()


def test_a_beginning_that_no_stream_has_is_refused() -> None:
    with pytest.raises(BitstreamError, match="no symbol has"):
        MODELS["checkerboard"].decode_beginning(b"\xff" * 12, (2, 2), 0)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_hostile_beginnings_decode_or_are_refused(stream: bytes) -> None:
    try:
        found = MODELS["checkerboard"].decode_beginning(stream, (4, 4), 128)
    except BitstreamError:
        return
    assert 0 <= found.known <= found.symbols


BEGINNINGS = json.loads((GOLDEN / "beginnings.json").read_text())
WHOLE = json.loads((GOLDEN / "golden.json").read_text())["files"]


@pytest.mark.parametrize("name", BEGINNINGS)
def test_golden_beginnings_say_what_was_recorded(name: str) -> None:
    model = EntropyModel(load_golden_weights(WHOLE[name]["weights"]))
    parsed = parse_file((GOLDEN / f"{name}.sprd").read_bytes())
    for length, expected in BEGINNINGS[name].items():
        shape, level = parsed.header.latent_size(model.stride), parsed.header.level
        found = model.decode_beginning(parsed.stream[: int(length)], shape, level)
        assert (found.known, found.symbols, sha256_of(found.y_hat)) == tuple(expected.values())
