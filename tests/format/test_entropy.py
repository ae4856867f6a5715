"""Tests of the exact coding of latents: what goes in comes out, and any arithmetic gives the same
integers."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spec_decoder
from bitstream_helpers import group_by_group, make_entropy_arrays, make_latents, make_tiny_arrays, to_lists
from sprdiff.errors import BitstreamError, WeightsError
from sprdiff.format import intnet, native, pure
from sprdiff.format.constants import SYMBOL_LIMIT
from sprdiff.format.entropy import EntropyModel
from sprdiff.format.hash import canonical_hash
from sprdiff.format.rangecoder import SymbolDecoder, SymbolEncoder
from sprdiff.format.schedule import Schedule
from sprdiff.format.tables import Tables, make_gaussian_tables, sigma_ladder

ARRAYS = make_entropy_arrays(1)
MODEL = EntropyModel(ARRAYS)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
levels = st.integers(0, 255)
bounded = settings(derandomize=True, deadline=None, max_examples=40)


def extreme_arrays(seed: int) -> dict[str, Any]:
    """Return weights and biases over their whole range, so that all clips are reached at both ends."""
    arrays = make_entropy_arrays(seed)
    rng = np.random.default_rng(seed)
    for name, array in arrays.items():
        if name.endswith(".weight"):
            arrays[name] = rng.choice([-32768, -4000, 0, 1, 4000, 32767], array.shape).astype(np.int16)
        elif name.endswith(".bias"):
            arrays[name] = rng.integers(-(2**40), 2**40, array.shape)
    arrays["gain.y"][:] = rng.integers(1, 2**32, arrays["gain.y"].shape, dtype=np.uint32)
    return arrays


@bounded
@given(shapes, levels, st.integers(0, 1000), st.sampled_from([0.0, 0.3, 2.0, 50.0]))
def test_round_trip(shape: tuple[int, int], level: int, seed: int, spread: float) -> None:
    y, z = make_latents(ARRAYS, seed, shape, spread)
    coded = MODEL.encode(y, z, level)
    exact = MODEL.decode(coded.stream, shape, level)
    y_hat = exact.y_hat
    assert (exact.mu == coded.mu).all() and (exact.h == coded.h).all()
    assert y_hat.dtype == np.int32
    assert y_hat.shape == y.shape
    assert (y_hat == coded.y_hat).all()
    assert np.abs(MODEL.dequantise(y_hat, level) - y).max() <= (65536 / ARRAYS["gain.y"][level].min()) * 0.51


def test_round_trip_at_every_level() -> None:
    y, z = make_latents(ARRAYS, 5, (2, 3))
    for level in range(256):
        coded = MODEL.encode(y, z, level)
        assert (MODEL.decode(coded.stream, (2, 3), level).y_hat == coded.y_hat).all()


def test_higher_levels_cost_more() -> None:
    y, z = make_latents(ARRAYS, 5, (8, 8))
    sizes = [len(MODEL.encode(y, z, level).stream) for level in range(0, 256, 51)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [make_entropy_arrays, extreme_arrays])
@pytest.mark.parametrize(("shape", "level"), [((1, 1), 0), ((3, 4), 77), ((5, 2), 255)])
def test_float_products_equal_integer_arithmetic(
    make: Any, seed: int, shape: tuple[int, int], level: int
) -> None:
    arrays = make(seed)
    y, z = make_latents(arrays, seed, shape, 30.0)
    coded = EntropyModel(arrays).encode(y, z, level)
    assert spec_decoder.decode_latents(coded.stream, shape, level, to_lists(arrays)).y == coded.y_hat.tolist()


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_strips_of_the_computation_do_not_show(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    y, z = make_latents(ARRAYS, 3, (9, 10))
    whole = MODEL.encode(y, z, 90)
    monkeypatch.setattr(intnet, "CHUNK", chunk)
    strips = MODEL.encode(y, z, 90)
    assert strips.stream == whole.stream
    assert (MODEL.decode(whole.stream, (9, 10), 90).y_hat == whole.y_hat).all()


def test_the_size_of_tiny() -> None:
    arrays = make_tiny_arrays(0)
    model = EntropyModel(arrays)
    y, z = make_latents(arrays, 0, (5, 7))
    coded = model.encode(y, z, 128)
    assert (model.y_channels, model.z_channels) == (96, 32)
    assert (model.decode(coded.stream, (5, 7), 128).y_hat == coded.y_hat).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_hostile_values_are_clamped(value: float) -> None:
    y, z = make_latents(ARRAYS, 4, (3, 3))
    y[::2, 1], z[1] = value, value
    coded = MODEL.encode(y, z, 255)
    assert (MODEL.decode(coded.stream, (3, 3), 255).y_hat == coded.y_hat).all()
    if np.isnan(value):
        assert (coded.y_hat[::2, 1] == coded.mu[::2, 1]).all()
    else:
        assert (np.abs(coded.y_hat[::2, 1]) >= (SYMBOL_LIMIT - 128) << 8).all()


def test_escapes_of_every_size() -> None:
    tables = Tables(*make_gaussian_tables([0.1, 0.4]))
    sizes = [*range(12), *(2**k + d for k in range(4, 15) for d in (-1, 0, 1)), 32766, 32767]
    wanted = np.array([[s, -s] for s in sizes], np.int32)
    index = np.tile(np.array([0, 1], np.uint8), (len(sizes), 1))
    encoder = SymbolEncoder(tables)
    zeros = np.zeros(wanted.shape, np.int32)
    assert (encoder.code(index, zeros, wanted.astype(np.float64)) == wanted).all()
    stream = encoder.finish()
    assert len(stream) <= encoder.bits / 8 + 1
    assert (SymbolDecoder(tables, stream).code(index, zeros, None) == wanted).all()


def test_streams_with_carries_and_of_any_length_are_sealed_right() -> None:
    radius, counts = np.array([1, 1], np.int32), np.array([1, 2**24 - 3, 1, 1, 3, 2, 2**24 - 6, 1], np.uint32)
    tables, rng = Tables(radius, counts), np.random.default_rng(0)
    for n in range(1500):
        size = int(rng.integers(1, 30))
        index, zeros = rng.integers(0, 2, size).astype(np.uint8), np.zeros(size, np.int32)
        q = np.where(rng.random(size) < 0.3, rng.integers(-3, 4, size), n % 3 - 1)
        encoder = SymbolEncoder(tables)
        encoder.code(index, zeros, q.astype(np.float64))
        stream = encoder.finish()
        assert len(stream) <= encoder.bits / 8 + 1.01
        assert (SymbolDecoder(tables, stream).code(index, zeros, None) == q).all()
        block = [[int(t)] for t in index]
        coder = spec_decoder.RangeDecoder(stream)
        assert (
            spec_decoder.read_block(coder, spec_decoder.tables_of(lists(tables)), block)
            == q[:, None].tolist()
        )


def lists(tables: Tables) -> dict[str, Any]:
    return {"tables.radius": tables.radius.tolist(), "tables.counts": tables.counts.tolist()}


@pytest.mark.parametrize("module", [native, pure])
@pytest.mark.parametrize("payload", [[0] * 16, [1, *[0] * 15, 1], [0, *[0] * 14, *[1] * 15]])
def test_an_escape_beyond_the_limit_is_refused(payload: list[int], module: ModuleType) -> None:
    tables = Tables(*make_gaussian_tables([0.1]))
    encoder = SymbolEncoder(tables, pure)
    encoder._coder.encode(
        np.array([2 * int(tables.radius[0]) + 1], np.int32), tables.model(0, pure.cumulative)
    )
    encoder._coder.encode(np.array(payload, np.int32), pure.cumulative(np.full(2, 2**23, np.uint32)))
    decoder = SymbolDecoder(tables, encoder.finish(), module)
    with pytest.raises(BitstreamError, match="beyond the limit"):
        decoder.code(np.zeros(1, np.uint8), np.zeros(1, np.int32), None)


@bounded
@given(shapes, levels, st.integers(0, 1000), st.sampled_from([0.05, 1.0, 100.0]))
def test_the_stream_is_as_short_as_its_tables_say(
    shape: tuple[int, int], level: int, seed: int, spread: float
) -> None:
    coded = MODEL.encode(*make_latents(ARRAYS, seed, shape, spread), level)
    size = len(coded.stream)
    assert size <= coded.bits / 8 * 1.0005 + 1  # promised: 1.01 * bits / 8 + 8
    assert size >= coded.bits / 8 - 2
    assert not coded.stream.endswith(b"\0")


def test_a_stream_cut_anywhere_decodes_or_is_refused() -> None:
    coded = MODEL.encode(*make_latents(ARRAYS, 8, (4, 4), 60.0), 255)
    for length in range(len(coded.stream)):
        decodes_safely(coded.stream[:length], (4, 4), 255)


@bounded
@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda b: b"\xff" * 9 + b)), shapes, levels
)
def test_hostile_streams_decode_or_are_refused(stream: bytes, shape: tuple[int, int], level: int) -> None:
    decodes_safely(stream, shape, level)


def test_many_hostile_streams() -> None:
    rng = np.random.default_rng(0)
    refused = sum(not decodes_safely(rng.bytes(2000), (12, 12), 128) for _ in range(100))
    assert not decodes_safely(b"\xff" * 100, (2, 2), 0)
    assert refused < 100


def test_damaged_streams_decode_or_are_refused() -> None:
    coded = MODEL.encode(*make_latents(ARRAYS, 8, (3, 3)), 200)
    for bit in range(8 * len(coded.stream)):
        flipped = bytearray(coded.stream)
        flipped[bit // 8] ^= 1 << bit % 8
        decodes_safely(bytes(flipped), (3, 3), 200)


def decodes_safely(stream: bytes, shape: tuple[int, int], level: int) -> bool:
    """Whether the stream decodes; anything but a result in range or a BitstreamError fails the test."""
    try:
        y_hat = MODEL.decode(stream, shape, level).y_hat
    except BitstreamError:
        return False
    assert y_hat.shape == (MODEL.y_channels, *shape)
    assert np.abs(y_hat).max() <= intnet.LATENT_BOUND
    return True


def test_wrong_calls_are_refused() -> None:
    y, z = make_latents(ARRAYS, 0, (3, 3))
    for bad in ((y[:5], z, 0), (y, z[:, :1], 0), (y, z, 256), (y, z, -1)):
        with pytest.raises(ValueError, match=r"latents|level"):
            MODEL.encode(*bad)
    with pytest.raises(ValueError, match="no positions"):
        MODEL.decode(b"", (0, 3), 0)


def wrong(name: str, array: Any) -> dict[str, Any]:
    return {**ARRAYS, name: array}


BAD_WEIGHTS = {
    "gain of zero": wrong("gain.y", ARRAYS["gain.y"] * 0),
    "gain of another dtype": wrong("gain.z", ARRAYS["gain.z"].astype(np.int64)),
    "another number of levels": wrong("z.mean", ARRAYS["z.mean"][:255]),
    "z.mean too large": wrong("z.mean", ARRAYS["z.mean"] + 2**18),
    "z.index without table": wrong("z.index", ARRAYS["z.index"] + np.uint8(200)),
    "groups of another sum": wrong("groups", np.array([4, 9], np.int32)),
    "a group of zero": wrong("groups", np.array([4, 0, 8], np.int32)),
    "groups that overflow": wrong("groups", np.full(3, 2**31 - 1, np.int32)),
    "no groups": wrong("groups", np.zeros(0, np.int32)),
    "a stride that there is not": wrong("stride", np.array([24], np.int32)),
    "a stride of another dtype": wrong("stride", np.array([32])),
    "two strides": wrong("stride", np.array([32, 32], np.int32)),
    "one pass": wrong("passes", np.zeros((2, 2), np.int32)),
    "a pass left out": wrong("passes", np.array([[0, 2], [2, 0]], np.int32)),
    "a negative pass": wrong("passes", np.array([[0, -1], [-1, 0]], np.int32)),
    "passes of another shape": wrong("passes", np.array([[0, 1, 0], [1, 0, 1]], np.int32)),
    "passes without their steps": wrong("passes", np.array([[0, 1], [2, 3]], np.int32)),
    "a step left out": wrong("order", ARRAYS["order"][:-1]),
    "a step twice": wrong("order", ARRAYS["order"][[0, 1, 2, 2]]),
    "a step too many": wrong("order", ARRAYS["order"][[0, 1, 2, 3, 3]]),
    "a group that there is not": wrong("order", ARRAYS["order"] + np.array([0, 1], np.int32)),
    "steps in another order than their networks": wrong("order", ARRAYS["order"][::-1].copy()),
    "an order of triples": wrong("order", np.zeros((4, 3), np.int32)),
    "seventeen groups": make_entropy_arrays(0, 17, groups=(1,) * 17),
    "more than 1024 channels": make_entropy_arrays(0, 1025, groups=(1, 1024), hidden=2),
    "more than 1024 channels of z": make_entropy_arrays(0, z_channels=1025),
    "a layer of another width": wrong("context.1.0.weight", ARRAYS["context.1.0.weight"][:, :-1]),
    "a bias of another length": wrong("context.0.1.bias", ARRAYS["context.0.1.bias"][:-1]),
    "outputs for another group": wrong("context.3.2.weight", ARRAYS["context.3.2.weight"][:-1]),
    "hyper outputs not of four blocks": {
        **wrong("hyper.1.weight", ARRAYS["hyper.1.weight"][:-1]),
        "hyper.1.bias": ARRAYS["hyper.1.bias"][:-1],
    },
    "a bias of 2^53": wrong("hyper.0.bias", ARRAYS["hyper.0.bias"] + 2**53),
    "the least int64": wrong("hyper.0.bias", np.full_like(ARRAYS["hyper.0.bias"], -(2**63))),
    "a weight of floats": wrong("hyper.0.weight", ARRAYS["hyper.0.weight"].astype(np.float32)),
    "counts of another sum": wrong("tables.counts", ARRAYS["tables.counts"] + np.uint32(1)),
}


@pytest.mark.parametrize("arrays", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_wrong_weights_are_refused(arrays: dict[str, Any]) -> None:
    with pytest.raises(WeightsError) as caught:
        EntropyModel(arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_a_missing_array_is_named(name: str) -> None:
    arrays = {key: array for key, array in ARRAYS.items() if key != name}
    with pytest.raises(WeightsError, match=name):
        EntropyModel(arrays)


def test_the_hash_depends_on_contents_only() -> None:
    base = canonical_hash(ARRAYS)
    shuffled = {key: np.asfortranarray(ARRAYS[key]) for key in reversed(ARRAYS)}
    big_endian = {key: array.astype(array.dtype.newbyteorder(">")) for key, array in ARRAYS.items()}
    assert canonical_hash(shuffled) == canonical_hash(big_endian) == base
    assert canonical_hash(wrong("groups", ARRAYS["groups"].astype(np.int64))) != base
    assert canonical_hash(wrong("stride", np.array([16], np.int32))) != base
    with pytest.raises(WeightsError, match="x holds"):
        canonical_hash({"x": np.array(["a"])})


def test_what_is_known_exactly_beside_the_latent() -> None:
    y, z = make_latents(ARRAYS, 11, (5, 6))
    coded = MODEL.encode(y, z, 140)
    features = ARRAYS["context.0.0.weight"].shape[1] - 9
    assert coded.mu.dtype == np.int32 and coded.mu.shape == (12, 5, 6)
    assert coded.h.dtype == np.int16 and coded.h.shape == (features, 5, 6)
    assert ((coded.y_hat - coded.mu) % 256 == 0).all() and (coded.y_hat != coded.mu).any()
    assert coded.h.min() >= 0 and coded.h.max() > 0
    scaled = MODEL.dequantise(coded.mu, 140) * (ARRAYS["gain.y"][140] / 65536)[:, None, None]
    assert np.allclose(scaled, coded.mu / 256, atol=1e-5)


def test_the_widest_tables_come_first() -> None:
    radius, counts = make_gaussian_tables(sigma_ladder(3, 0.5, 40))
    tables = Tables(radius, counts)
    index = np.array([0, 2, 1, 0, 2], np.uint8)
    q = np.array([0, 31, -2, 1, -44], np.int32)
    encoder = SymbolEncoder(tables)
    encoder.code(index, np.zeros(5, np.int32), q.astype(np.float64))
    coder = spec_decoder.RangeDecoder(encoder.finish())
    order = [(2, 31), (2, -44), (1, -2), (0, 0), (0, 1)]
    listed = spec_decoder.tables_of(lists(tables))
    assert [coder.symbol(listed[t]) - int(radius[t]) for t, _ in order] == [symbol for _, symbol in order]


def test_inputs_that_are_zero_by_definition_are_left_out() -> None:
    """With a checkerboard, group after group, a step multiplies what the four or nine neighbours can hold and
    nothing else."""
    schedule = Schedule(ARRAYS)
    same, other = (0, 2, 4, 6, 8), (1, 3, 5, 7)
    assert schedule.steps[0].known == () and schedule.steps[0].depth == 0
    assert schedule.steps[1].known == tuple((offset, 0, 4) for offset in same)
    assert {run[0] for run in schedule.steps[2].known} == set(other) and schedule.steps[2].depth == 12
    assert schedule.steps[3].known == tuple((offset, 0, 4 if offset in same else 12) for offset in range(9))
    four = Schedule(make_entropy_arrays(0, passes=((0, 1), (2, 3)), order=group_by_group(4, 2)))
    assert [len(step.known) for step in four.steps[:4]] == [
        0,
        2,
        6,
        8,
    ]  # left and right; all but these; all but itself
    assert four.steps[4].depth == 12 - 8 and {run[1:] for run in four.steps[4].known} == {(0, 4)}
