"""Tests that the range coder in plain Python equals constriction's to the bit, and takes its place where it
is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exact_case
from sprdiff.errors import BitstreamError
from sprdiff.format import native, pure, rangecoder
from sprdiff.format.rangecoder import SymbolDecoder, SymbolEncoder
from sprdiff.format.tables import Tables, make_gaussian_tables

EXTREME = Tables(np.array([1, 1], np.int32), np.array([1, 2**24 - 3, 1, 1, 3, 2, 2**24 - 6, 1], np.uint32))
"""Tables that cause carries, and symbols that take no room."""


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=1, max_size=60), st.booleans())
def test_both_coders_write_the_same_bytes_and_read_them(pairs: list[tuple[int, int]], extreme: bool) -> None:
    tables = EXTREME if extreme else Tables(*make_gaussian_tables([0.2, 1.0]))
    index, q = np.array([t for t, _ in pairs], np.uint8), np.array([s for _, s in pairs], np.int32)
    zeros, streams = np.zeros(q.shape, np.int32), []
    for module in (native, pure):
        encoder = SymbolEncoder(tables, module)
        encoder.code(index, zeros, q.astype(np.float64))
        streams.append(encoder.finish())
        for reader in (native, pure):
            assert (SymbolDecoder(tables, streams[-1], reader).code(index, zeros, None) == q).all()
    assert streams[0] == streams[1]


def test_a_carry_runs_through_many_words() -> None:
    counts = np.array([2**24 - 1, 1], np.uint32)
    symbols = np.array([1] * 40 + [0] * 3 + [1] * 40, np.int32)
    streams = []
    for module in (native, pure):
        encoder = module.RangeEncoder()
        encoder.encode(symbols, module.RangeEncoder.model(counts))
        streams.append(encoder.finish())
    assert streams[0] == streams[1] and len(streams[0]) > 200
    decoder = pure.RangeDecoder(streams[1])
    assert (decoder.decode(pure.cumulative(counts), symbols.size) == symbols).all()


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda b: b"\xff" * 9 + b)))
def test_both_decoders_read_or_refuse_any_bytes_alike(stream: bytes) -> None:
    index = np.arange(120) % 2
    found = []
    for module in (native, pure):
        try:
            found.append(
                SymbolDecoder(EXTREME, stream, module)
                .code(index.astype(np.uint8), np.zeros(120, np.int32), None)
                .tolist()
            )
        except BitstreamError as error:
            found.append([str(error)])
    assert found[0] == found[1]


def test_constriction_is_chosen_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rangecoder.fastest() is native
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert rangecoder.fastest.__wrapped__() is pure


def test_without_constriction_files_are_the_same() -> None:
    """A fresh interpreter that cannot import constriction decodes the golden files and encodes random
    latents."""
    block = "import sys, json; sys.modules['constriction'] = None"
    block += "; import exact_case; from exact_case import rangecoder"
    show = "print(json.dumps([rangecoder.fastest().__name__, exact_case.results()]))"
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", f"{block}; {show}"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert json.loads(done.stdout) == ["sprdiff.format.pure", exact_case.results()]
