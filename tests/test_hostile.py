"""Tests of what bounds the work on hostile input, one promise of docs/security.md after the other."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import attack_doors as doors
import sprdiff.cli
from batch_helpers import (
    DECODE,
    ENCODE,
    manifest,
    members,
    outputs,
    png,
    run,
    write_samples,
    write_table,
    write_tar,
)
from conftest import photo
from serve_helpers import api, refused
from sprdiff.batch import pages, storage, work
from sprdiff.batch.names import has_controls
from sprdiff.batch.parquet import ParquetTable
from sprdiff.batch.shards import TarShard
from sprdiff.codec import Codec
from sprdiff.common import tar
from sprdiff.errors import BitstreamError, ImageError, LimitError, PluginError, WeightsError
from sprdiff.fileinfo import read_sprd
from sprdiff.format.container import MAX_CHANNELS, MAX_SYMBOLS, STRIDES, Header, pack_file, read_file
from sprdiff.imageio.formats import MOST_FRAMES, RASTER, Bounded
from sprdiff.imageio.open import open_rgb
from sprdiff.interrupt import interruptible
from sprdiff.limits import Deadline, above
from sprdiff.loading import load_runtime, stride_of
from sprdiff.pillow import register_sprdiff_opener
from sprdiff.runtime import graph_check
from sprdiff.runtime.first import NOISE_KERNEL, FirstRuntime
from sprdiff.runtime.onnx_format import read_graph
from sprdiff.runtime.weights import GRAPHS, default_folder

pytest_plugins = ("weights_fixture",)

ROOT = Path(__file__).parents[1]


def attack(name: str) -> bytes:
    return (doors.ATTACKS / name).read_bytes()


# --- pictures: no program, no second file


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a stand-in named gs that notes that it was run."""
    log = tmp_path / "gs.log"
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "gs"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eps.eps", b"is PostScript (EPS), a program that would have to be run: that is not supported"),
        ("iptc_eps.iim", b"is not an image that can be read"),
    ],
)
def test_nothing_runs_ghostscript(name: str, reason: bytes, ghostscript: Path) -> None:
    path = doors.ATTACKS / "picture" / name
    for given in ([str(path), "-o", "out.sprd"], ["-", "-o", "out.sprd"]):
        command = [sys.executable, "-m", "sprdiff", "encode", *given]
        done = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=False)
        assert done.returncode == 1 and reason in done.stderr
        assert done.stderr.count(b"\n") == 1
    with (
        Image.open(path) as image,
        pytest.raises(ImageError, match="which is not opened here: load it first"),
    ):
        open_rgb(image)
    assert not ghostscript.exists()


@pytest.mark.parametrize("name", ["eps.eps", "iptc_eps.iim"])
def test_no_upload_runs_ghostscript(name: str, ghostscript: Path) -> None:
    with api() as service:
        refused(service.post("/encode", (doors.ATTACKS / "picture" / name).read_bytes()), 415, "not")
    assert not ghostscript.exists()


def test_the_stand_in_is_what_pillow_would_run(ghostscript: Path) -> None:
    """Without this the test above could pass for any reason."""
    command = [sys.executable, "-c", "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"]
    subprocess.run([*command, doors.ATTACKS / "picture" / "iptc_eps.iim"], capture_output=True, check=False)
    assert ghostscript.exists()


def test_an_image_that_its_program_has_loaded_is_taken(tmp_path: Path) -> None:
    Image.fromarray(photo(128, 128)).save(tmp_path / "a.icns")
    with Image.open(tmp_path / "a.icns") as image:
        with pytest.raises(ImageError, match="format ICNS"):
            open_rgb(image)
        image.load()
        assert open_rgb(image).pixels.shape == (*image.size, 3)


def test_no_plug_in_that_is_allowed_opens_a_second_file() -> None:
    Image.init()
    modules: dict[str, Any] = {k: inspect.getmodule(Image.OPEN[k][0]) for k in RASTER & set(Image.ID)}
    found = {kind: inspect.getsource(module) for kind, module in modules.items()}
    assert len(found) > 15
    for kind, source in found.items():
        code = re.sub(r"^\s*#.*$", "", source, flags=re.M)
        if kind in ("JPEG", "MPO"):  # load_djpeg, which nothing calls; the factory of MPO, over the same file
            code = code.replace("with Image.open(path) as _im", "").replace(
                "im = JpegImageFile(fp, filename)", ""
            )
        assert not re.search(
            r"\bImage\.open\(|= (\w+\.)?\w+ImageFile\(|subprocess\.\w+\((?!\[\"djpeg)", code
        ), kind


def test_the_list_in_the_docs_is_the_list() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    listed = re.search(r"These formats are opened: ([^.]+)\.", text)
    assert listed is not None and set(re.findall(r"\w+", listed[1])) == RASTER


def test_frames_are_counted_to_an_end() -> None:
    body = struct.pack("<H", 8) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1))
    )
    size = len(body) + 4
    pages = b"".join(body + struct.pack("<I", 8 + (n + 1) * size) for n in range(MOST_FRAMES + 5))
    picture = open_rgb(b"II*\0" + struct.pack("<I", 8) + pages + body + bytes(4))
    assert picture.dropped == (f"at least {MOST_FRAMES - 1} further frames",)
    stream = io.BytesIO()
    Image.new("P", (1, 1)).save(stream, "GIF")
    gif = stream.getvalue()
    frame = gif[gif.index(b",") : -1]
    assert "at least 999" in open_rgb(gif[:-1] + frame * 1200 + b";").dropped[0]
    assert open_rgb(gif[:-1] + frame * 20 + b";").dropped == ("20 further frames",)


def test_a_stream_ends_where_its_picture_must() -> None:
    bounded = Bounded(io.BytesIO(bytes(100)), "the image")
    bounded._left = 40
    assert len(bounded.read(30)) == 30
    with pytest.raises(ImageError, match="more bytes than a picture"):
        bounded.read(30)
    bounded.seek(0)
    with pytest.raises(ImageError, match="more bytes than a picture"):
        bounded.readline()
    bounded.seek(0)
    with pytest.raises(ImageError, match="more bytes than a picture"):
        bounded.read()
    bounded.seek(0)
    bounded.allow(1)
    assert len(bounded.read()) == 100 and bounded.tell() == 100


def test_standard_input_is_looked_at_before_it_is_read_whole() -> None:
    endless = "import sys\nfrom sprdiff.cli import main\nsys.exit(main(sys.argv[1:]))"
    for command in (["encode", "-", "out.sprd"], ["decode", "-", "out.png"], ["info", "-"]):
        with open("/dev/zero", "rb") as zeros:
            done = subprocess.run(
                [sys.executable, "-c", endless, *command],
                stdin=zeros,
                capture_output=True,
                check=False,
                timeout=60,
            )
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1


# --- the limit on pixels bounds the work


@pytest.mark.parametrize(
    ("width", "height", "limit", "refused"),
    [
        (1, 1, 1, False),
        (30, 20, 600, False),
        (30, 20, 599, True),
        (1000, 1000, 10**6, False),
        (64, 64, 4096, False),
        (1, 1_000_000, 10**6, True),
        (1_000_000, 1, 63_999_999, True),
        (1_000_000, 1, 64_000_000, False),
        (65, 64, 4159, True),
    ],
)
def test_thin_sides_count_in_full(width: int, height: int, limit: int, refused: bool) -> None:
    assert above(width, height, limit) is refused


def test_the_padded_grid_is_limited_both_ways() -> None:
    data = attack("sprd/thin.sprd")
    codec = Codec(max_pixels=10**6)
    with pytest.raises(
        BitstreamError, match="1 x 1000000 pixels, which count as 64 x 1000000, above the limit"
    ):
        codec.decode(data)
    with pytest.raises(ImageError, match="which count as 20000 x 64"):
        codec.encode(np.zeros((1, 20_000, 3), np.uint8))
    with pytest.raises(Image.DecompressionBombError, match="which count as"):
        register_sprdiff_opener(max_pixels=10**6)
        try:
            Image.open(io.BytesIO(data))
        finally:
            register_sprdiff_opener()


def test_a_file_is_read_as_far_as_its_header_allows() -> None:
    codec = doors.codec()
    data = codec.encode(photo(40, 50), quality=100)
    assert read_file(io.BytesIO(data)) == data
    header = Header(1, 1, 0, 0, False, 1, b"ab")
    most = header.most_bytes()
    longest = pack_file(header, bytes(most - 12), b"ab" * 16)
    assert len(longest) == most and read_file(io.BytesIO(longest)) == longest

    class Endless(io.BytesIO):
        given = 0

        def read(self, size: int | None = -1) -> bytes:
            part = longest[: size or 0] if not self.given else bytes(size or 0)
            self.given += len(part)
            return part

    stream = Endless()
    with pytest.raises(BitstreamError, match="longer than 14144 bytes"):
        read_file(stream)
    assert stream.given <= most + 1


def test_weights_at_hand_bound_a_file_by_their_stride(tmp_path: Path) -> None:
    header = Header(64, 64, 0, 0, False, 1, b"ab")
    assert [header.most_bytes(stride) for stride in (8, 32, 64)] == [64 + n * 14080 for n in (64, 4, 1)]
    path = tmp_path / "a.sprd"
    path.write_bytes(pack_file(header, bytes(header.most_bytes(32)), b"ab" * 16))
    assert len(read_sprd(path)) > header.most_bytes(32)
    for stride in (stride_of(None), stride_of(default_folder())):
        with pytest.raises(BitstreamError, match=f"longer than {header.most_bytes(32)} bytes"):
            read_sprd(path, stride=stride)
    with pytest.raises(PluginError, match="longer than"), Image.open(path) as image:
        image.load()


def test_the_bound_and_the_weights_agree_on_channels() -> None:
    assert MAX_SYMBOLS == 2 * MAX_CHANNELS and min(STRIDES) == STRIDES[0]


def test_any_symbols_fit_into_the_bound() -> None:
    """These latents are the dearest ones, as far from every table as they may be."""
    runtime = doors.codec().runtime
    entropy = runtime.entropy
    luck = np.random.default_rng(0)
    y = (luck.choice([-1, 1], (entropy.y_channels, 2, 2)) * 1e9).astype(np.float32)
    z = (luck.choice([-1, 1], (entropy.z_channels, 1, 1)) * 1e9).astype(np.float32)
    header = Header(64, 64, 255, 0, False, 1, runtime.weights_hash[:2])
    data = pack_file(header, entropy.encode(y, z, 255).stream, runtime.weights_hash)
    assert len(data) < header.most_bytes(entropy.stride) / 3
    assert doors.codec().decode(data, realism=0).size == (64, 64)


# --- work can be stopped between tiles


class Counter:
    """A check that counts, and stops at a number."""

    def __init__(self, last: int = 10**9) -> None:
        self.calls, self.last = 0, last

    def __call__(self, pixels: int) -> None:
        self.calls += 1
        if self.calls > self.last:
            raise LimitError("enough")


@pytest.fixture(scope="module")
def tiled() -> Codec:
    """Make a codec that cuts a small picture into many tiles."""
    return Codec.from_runtime(load_runtime(threads=1, tile=64))


def within(check: Counter, work: Callable[[], Any]) -> Any:
    with interruptible(check):
        return work()


def test_work_stops_between_tiles(tiled: Codec) -> None:
    picture = photo(192, 256)

    def encode() -> bytes:
        return tiled.encode(picture, quality=20)

    whole = Counter()
    data = within(whole, encode)
    assert whole.calls > 12, "an encoder sees 12 tiles"
    for last in (0, 5, whole.calls - 1):
        with pytest.raises(LimitError, match="enough"):
            within(Counter(last), encode)

    def decode() -> Image.Image:
        return tiled.decode(data, steps=2)

    decoding = Counter()
    image = within(decoding, decode)
    assert decoding.calls > 4 * 12, "four passes over 12 tiles"
    for last in (0, 20, decoding.calls - 1):
        with pytest.raises(LimitError, match="enough"):
            within(Counter(last), decode)
    assert decode().tobytes() == image.tobytes(), "what was stopped leaves nothing behind"


def test_a_deadline() -> None:
    now = [0.0]
    deadline = Deadline(5, lambda: now[0])
    deadline(10**9)
    now[0] = 5.5
    with pytest.raises(LimitError, match="not finished within the limit of 5 seconds"):
        deadline(0)


def test_the_plug_in_and_the_thumbnailer_have_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sprdiff import pillow
    from sprdiff import thumbnailer as pillow_thumbnailer

    path = tmp_path / "a.sprd"
    path.write_bytes(doors.codec().encode(photo(64, 64), quality=20))
    told: list[float] = []

    def over(seconds: float) -> Counter:
        told.append(seconds)
        return Counter(0)

    monkeypatch.setattr(pillow, "Deadline", over)
    try:
        register_sprdiff_opener(max_seconds=7, threads=1)
        with Image.open(path) as image, pytest.raises(PluginError, match="enough"):
            image.load()
        with pytest.raises(PluginError, match="enough"):
            Image.fromarray(photo(64, 64)).save(tmp_path / "b.sprd")
        assert pillow_thumbnailer.main(["-s", "16", str(path), str(tmp_path / "a.png")]) == 1
    finally:
        register_sprdiff_opener()
    assert told == [7, 7, pillow_thumbnailer.SECONDS]
    assert capsys.readouterr().err == f"sprdiff-thumbnailer: error: {path}: enough\n"
    with pytest.raises(ValueError, match="max_seconds"):
        register_sprdiff_opener(max_seconds=0)


# --- weights


FIRST_SIZES = {
    "image": (1, 3, 128, 64), "y_hat": (1, 96, 3, 5), "level": (1,), "z_t": (1, 32, 6, 10), "t": (1,),
    "c_pix": (1, 128, 6, 10), "c_sem": (1, 128, 3, 5), "z0": (1, 32, 6, 10), "x_tilde": (1, 3, 96, 160),
    "noise": (1, 4, 24, 40),
}  # fmt: skip
NANO_SIZES = {
    "image": (1, 3, 128, 64),
    "y_hat": (1, 12, 3, 5),
    "means": (1, 12, 3, 5),
    "features": (1, 8, 3, 5),
    "level": (1,),
    "x_tilde": (1, 3, 96, 160),
    "f16": (1, 16, 6, 10),
    "f32": (1, 16, 3, 5),
    "z_t": (1, 4, 12, 20),
    "time": (1,),
    "stride": (1,),
    "at8": (1, 8, 12, 20),
    "at16": (1, 16, 6, 10),
    "at32": (1, 16, 3, 5),
    "z0": (1, 4, 12, 20),
}


@pytest.fixture(params=[1, 2], ids=["first", "second"])
def generation(request: pytest.FixtureRequest) -> tuple[int, Path]:
    """Return the number and the folder of the shipped networks, and of small ones of the second
    generation."""
    number: int = request.param
    return number, default_folder() if number == 1 else request.getfixturevalue("nano_weights")


def test_shapes_are_those_that_the_runtime_gives(generation: tuple[int, Path]) -> None:
    """Otherwise a graph could be larger than it was taken for."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    number, folder = generation
    sizes = FIRST_SIZES if number == 1 else NANO_SIZES
    for name in GRAPHS[number]:
        data = (folder / f"{name}.onnx").read_bytes()
        model, graph = onnx.load_from_string(data), read_graph(data)
        made: dict[str, tuple[int, ...]] = {}
        rules = graph_check._OPERATORS
        values: dict[str, Any] = {n: graph_check.Value(s) for n, s in graph.weights.items()}
        values |= {n: graph_check.Value(v.shape, v) for n, v in graph.constants.items()}
        values |= {n: graph_check.Value(sizes[n]) for n in graph.inputs}
        for node in graph.nodes:
            found = rules[node.operator](node, [values[n] if n else None for n in node.inputs])
            values.update(zip(node.outputs, found, strict=True))
            made |= {n: values[n].shape for n in node.outputs}
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in made)
        options = onnxruntime.SessionOptions()
        arrays = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(s, np.float32)) for s in graph.weights.values()
        ]
        options.add_external_initializers(list(graph.weights), arrays)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = {n: np.zeros(sizes[n], np.float32) for n in graph.inputs}
        got = dict(zip(made, session.run(list(made), given), strict=True))
        assert {n: v.shape for n, v in got.items()} == made, name


def test_every_operator_of_the_list_is_emitted(nano_weights: Path) -> None:
    paths = [*default_folder().glob("*.onnx"), *nano_weights.glob("*.onnx")]
    emitted = {n.operator for path in paths for n in read_graph(path.read_bytes()).nodes}
    assert emitted == set(graph_check._OPERATORS)


def test_what_folders_of_the_second_generation_hold_is_checked(nano_weights: Path, tmp_path: Path) -> None:
    """The second generation gets the same care as the first: operators, pipes, the preset, values that are
    not numbers."""
    onnx = pytest.importorskip("onnx")
    content = json.loads((nano_weights / "manifest.json").read_text())
    loop = onnx.load_from_string((nano_weights / "flow.onnx").read_bytes())
    loop.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["level"], ["large"]))
    cases: list[tuple[str, bytes | None, str]] = [
        ("flow.onnx", loop.SerializeToString(), "operator ConstantOfShape"),
        ("condition.onnx", None, "No regular file|no regular file"),
        ("manifest.json", json.dumps(content | {"preset_id": 2}).encode(), "preset_id 2"),
        ("manifest.json", json.dumps(content | {"latest": 10**400}).encode(), "not a manifest"),
        (
            "manifest.json",
            json.dumps(content | {"halo": content["halo"] | {"flow": 4096}}).encode(),
            "not a manifest",
        ),
        ("decoder.npz", attack("npz/nan.npz"), "not numbers"),
        ("decoder.npz", attack("npz/bz2.npz"), "packed in a way"),
    ]
    for number, (name, data, message) in enumerate(cases):
        folder = tmp_path / str(number)
        shutil.copytree(nano_weights, folder)
        (folder / name).unlink()
        if data is None:
            os.mkfifo(folder / name)
        else:
            (folder / name).write_bytes(data)
        with pytest.raises(WeightsError, match=message):
            Codec(folder, threads=1).decode(Codec(nano_weights, threads=1).encode(photo(64, 64), quality=20))


def test_torch_takes_no_memory_for_sizes_that_the_weights_do_not_have(
    nano_weights: Path, tmp_path: Path
) -> None:
    from sprdiff.models.first.stored import load_first
    from sprdiff.models.stored import load_folder
    from sprdiff.runtime.weights import read_arrays

    for source, load in ((nano_weights, load_folder), (default_folder(), load_first)):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        content = json.loads((folder / "manifest.json").read_text())
        content["config"]["trunk"] = 8192
        (folder / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match="another shape than the configuration says"):
            load(folder, read_arrays)


def test_a_graph_is_checked_again_at_every_new_size(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = load_runtime(threads=1)
    assert isinstance(runtime, FirstRuntime)
    latent = np.zeros((96, 2, 3), np.float32)
    runtime.synthesise(latent[:, :1, :1], level=0, realism=0)
    monkeypatch.setattr(graph_check, "_BASE", 1000)
    monkeypatch.setattr(graph_check, "MOST_STORED", 5)
    runtime.synthesise(latent[:, :1, :1], level=0, realism=0)
    with pytest.raises(WeightsError, match="more memory or time"):
        runtime.synthesise(latent, level=0, realism=0)


def test_channels_have_a_limit(tmp_path: Path) -> None:
    from sprdiff.format.entropy import EntropyModel
    from sprdiff.runtime.weights import read_arrays

    exact = read_arrays(default_folder() / "entropy.npz")
    wide = exact | {
        "hyper.0.weight": np.zeros((5000, 297), np.int16),
        "hyper.0.bias": np.zeros(5000, np.int64),
    }
    with pytest.raises(WeightsError, match=r"hyper\.0 has 5000 outputs, above the limit of 4096"):
        EntropyModel(wide)
    many = exact | {
        "gain.z": np.ones((256, 1025), np.uint32),
        "z.mean": np.zeros((256, 1025), np.int32),
        "z.index": np.zeros((256, 1025), np.uint8),
    }
    with pytest.raises(WeightsError, match="z has 1025 channels, more than 1024"):
        EntropyModel(many)
    with pytest.raises(WeightsError, match="1024 channels together at most"):
        EntropyModel(exact | {"groups": np.array([1000, 25], np.int32)})


def test_noise_channels_have_a_limit() -> None:
    runtime = load_runtime(threads=1)
    assert isinstance(runtime, FirstRuntime)
    runtime._decoder[NOISE_KERNEL] = np.broadcast_to(np.float16(0), (24, 50_000, 1, 1))
    with pytest.raises(WeightsError, match="of 1 to 64 channels"):
        runtime.synthesise(np.zeros((96, 1, 1), np.float32), level=0)


def test_a_configuration_that_nobody_trained_makes_no_networks() -> None:
    from sprdiff.models.config import TINY, ModelConfig
    from sprdiff.models.first.config import FirstConfig
    from sprdiff.sd.config import SD, SDConfig

    first = (json.loads((default_folder() / "manifest.json").read_text())["config"], FirstConfig)
    second = (json.loads(TINY.to_json()), ModelConfig)
    for config, kind in (first, second, (json.loads(SD.to_json()), SDConfig)):
        kind.from_json(json.dumps(config))
        for name, value in (
            ("fused", 10**6),
            ("analysis_blocks", 10**9),
            ("fused", "9"),
            ("y_channels", -96),
        ):
            with pytest.raises(ValueError, match=r"not whole numbers|do not sum"):
                kind.from_json(json.dumps(config | {name: value}))
    for change in ({"passes": [[0, 10**9], [1, 2]]}, {"sigma_max": 1e400}, {"lambda_range": [0, 1]}):
        with pytest.raises(ValueError, match="stored configuration has"):
            ModelConfig.from_json(json.dumps(second[0] | change))


# --- containers


def test_an_odd_table_fails_alone_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in doors.corpus("parquet"):
        if path.stem in ("doubled", "nested", "zstd", "list"):
            (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    write_table(tmp_path / "in" / "good.parquet", [png(0)])
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {"good.parquet"}
    assert (outcome.totals.pictures, outcome.totals.failed) == (5, 4)


@pytest.mark.parametrize("where", ["pictures", "write"])
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_what_nobody_foresaw_is_one_containers_failure(
    kind: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        if kind == "tar":
            write_samples(tmp_path / "in" / f"{name}.tar", 1)
        else:
            write_table(tmp_path / "in" / f"{name}.parquet", [png(0)])
    owner: Any = TarShard if kind == "tar" else ParquetTable
    sound = getattr(owner, where)

    def odd(self: Any, *given: Any) -> Any:
        if self.path.name.startswith("a."):
            raise KeyError("nobody\nforesaw this")
        return sound(self, *given)

    monkeypatch.setattr(owner, where, odd)
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {f"b.{kind}"}
    assert [error for _, error in outcome.totals.failures] == ["unexpected KeyError: 'nobody\\nforesaw this'"]


def test_what_nobody_foresaw_is_one_pictures_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes(png(ord(name)))
    sound = storage.read

    def odd(address: str, bound: Callable[[bytes], int]) -> bytes:
        if address.endswith("a.png"):
            raise ZeroDivisionError
        return sound(address, bound)

    monkeypatch.setattr(work, "read", odd)
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert "unexpected ZeroDivisionError" in outcome.totals.failures[0][1] and outcome.totals.failed == 1
    assert set(outputs(tmp_path / "out")) == {"b.sprd"}


def test_rights_and_names_of_members_do_no_harm(tmp_path: Path) -> None:
    odd = tarfile.TarInfo("late.txt")
    odd.mode, odd.mtime = 0o6777, -5
    write_tar(
        tmp_path / "in" / "a.tar",
        [odd, ("x.png", png(0)), ("x\x1b[2J.txt", b"a"), ("y" * 2000 + ".txt", b"b"), ("ok é.txt", b"c")],
    )
    run(tmp_path / "in", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "a.tar") as made:
        assert {(m.name, m.mode) for m in made} == {
            ("late.txt", 0o644),
            ("x.sprd", 0o644),
            ("ok é.txt", 0o644),
        }
        assert min(m.mtime for m in made) >= 0
    errors = [row["error"] for row in manifest(tmp_path / "out") if row["error"]]
    assert errors == ["its name holds control characters", "its name is longer than 1024 characters"]
    assert max(len(row["source"]) for row in manifest(tmp_path / "out")) < 1024 + len(str(tmp_path)) + 20


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("a.jpg", False),
        ("ü 名.jpg", False),
        ("a\n", True),
        ("\x9bm", True),
        ("a\u202egpj.exe", True),
        ("a\u2028b", True),
    ],
)
def test_control_characters(name: str, odd: bool) -> None:
    assert has_controls(name) is odd


def test_members_and_names_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{n}.txt", b"") for n in range(10)])
    for name, value in (("MAX_MEMBERS", 9), ("MAX_NAMES", 40)):
        with monkeypatch.context() as patch:
            patch.setattr(tar, name, value)
            with pytest.raises(Exception, match="more than"):
                TarShard(path, ENCODE)
    assert TarShard(path, ENCODE).count == 0


def test_a_member_is_read_as_far_as_its_beginning_allows(tmp_path: Path) -> None:
    sound = doors.codec().encode(photo(40, 40), quality=20)
    long = pack_file(Header(1, 1, 0, 0, False, 1, b"ab"), bytes(20_000), b"ab" * 16)
    write_tar(tmp_path / "a.tar", [("long.sprd", long), ("no.sprd", b"no file"), ("good.sprd", sound)])
    run(tmp_path / "a.tar", tmp_path / "out", DECODE)
    assert [name for name, _ in members(tmp_path / "out" / "a.tar")] == ["good.png"]
    errors = [row["error"] for row in manifest(tmp_path / "out")]
    assert errors[0] == "it is longer than a file that begins like this can be" and "letters SPR" in errors[1]


def test_rows_of_tables_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprdiff.batch.pages.MAX_ROWS", 3)
    path = write_table(tmp_path / "a.parquet", [b"x"] * 4)
    with pytest.raises(Exception, match="has 4 rows, above the limit of 3"):
        ParquetTable(path, ENCODE)


@pytest.mark.parametrize(
    "header",
    [
        b"\x15\0\x15\2\x15\2\x25\2\0",  # a number where there should be a structure (found by the fuzzer)
        b"\x15\0\x15\2\x15\2\0",
        b"\x15\0\x15\1\x15\2\x2c\x15\2\x15\0\0\0",
        b"\x15\0\x18\x02ab\x15\2\0",
        b"\x2c" * 30,
        b"\x19\xff\xff\xff\xff\x7f",
        b"",
    ],
)
def test_page_headers_that_are_none(header: bytes) -> None:
    about: Any = SimpleNamespace(data_page_offset=0, has_dictionary_page=False, total_compressed_size=100)
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        list(pages._pages(io.BytesIO(header), about))


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_sound_tables_are_read_however_they_are_packed(codec: str, version: str, tmp_path: Path) -> None:
    pictures = [os.urandom(3000) for _ in range(40)]
    for options in ({}, {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}}):
        columns = {"image": pictures, "tags": [["a", "b"]] * 40, "s": [{"x": 1, "y": ["q"]}] * 40}
        pq.write_table(
            pa.table(columns), tmp_path / "a.parquet", compression=codec, data_page_version=version, **options
        )
        made = ParquetTable(tmp_path / "a.parquet", ENCODE)
        read = [data for _, _, data in made.pictures()]
        assert read == pictures and made._together == 16


@pytest.mark.parametrize(
    "command",
    [
        ["link", "/dev/zero", "--viewer", "https://example.org/"],
        ["qr", "/dev/zero", "code.png", "--raw"],
        ["packets", "/dev/zero", "-o", "packets", "--payload", "200"],
    ],
)
def test_an_endless_input_is_refused_by_its_beginning(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sprdiff.cli.main(command) == 1
    said = capsys.readouterr().err
    assert "not an image" in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
