"""What a file and the shipped model say about themselves, read without any network or network runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__
from .common.files import read_bytes
from .errors import BitstreamError, WeightsError
from .format.container import (
    PRESETS,
    SCALES,
    STRIDES,
    VERSION,
    ParsedFile,
    is_whole,
    parse_file,
    read_file,
    verify,
    weights_name,
)
from .format.entropy import EntropyModel
from .runtime.tiling import Y_STRIDE
from .runtime.weights import MAX_MANIFEST, Manifest, default_folder, read_arrays, read_limited, read_manifest
from .sd.config import SDConfig
from .sd.folder import is_trained, read_trained


@dataclass(frozen=True)
class FileInfo:
    """What a file says.

    Attributes:
        version: of the file format.
        preset: whose networks made it.
        tag: the first 16 bits of their hash, hex digits.
        width: of the picture in pixels.
        height: likewise.
        coded_width: of the smaller picture that was coded.
        coded_height: likewise.
        scale: coded scale, the factor between the two.
        grey: the picture has one channel.
        quality: 0-100, from `level`.
        level: of quality that it was coded with, 0-255.
        bytes: of the whole file.
        header_bytes: of its header with the check.
        bpp: bits per pixel of the picture, for the whole file.
        weights: ``"at hand"`` when the weights at hand made it, which the file's check then confirms, else
            ``"other"``; ``"unknown"`` where no weights are at hand.
        whole: the check holds; None where it cannot be tested, for the weights are not at hand.
        known: the part of the symbols that it holds, from 0 to 1: below 1 in the beginning of a file, None where the
            weights are not at hand.
    """

    version: int
    preset: str
    tag: str
    width: int
    height: int
    coded_width: int
    coded_height: int
    scale: float
    grey: bool
    quality: float
    level: int
    bytes: int
    header_bytes: int
    bpp: float
    weights: str
    whole: bool | None
    known: float | None

    @property
    def model(self) -> str:
        """Preset and tag in one word, such as ``tiny-1a2b``."""
        return f"{self.preset}-{self.tag}"


@dataclass(frozen=True)
class ModelInfo:
    """What a weights folder says.

    Attributes:
        preset: which of the sizes.
        preset_id: its number in files.
        tag: the first 16 bits of `hash`, hex digits.
        hash: H, the SHA-256 of the exact part, hex digits (docs/bitstream.md).
        decoder_hash: the same of the decoder's weights, hex digits: which pictures files become.
        encoder_hash: the same of the encoder's.
        folder: where they lie.
        bytes: of all files in the folder.
        licence: first line of their licence.
        card: figures of the model card: data, hours, hardware, quality, limits.
    """

    preset: str
    preset_id: int
    tag: str
    hash: str
    decoder_hash: str
    encoder_hash: str
    folder: str
    bytes: int
    licence: str
    card: dict[str, Any]

    @property
    def networks(self) -> str:
        """All three hashes, shortened: another encoder makes other files, another decoder other pictures."""
        parts = (self.hash, self.encoder_hash, self.decoder_hash)
        return "-".join(digest[:16] for digest in parts)


def stride_of(weights: Path | str | None) -> int:
    """The stride of y of a folder of weights, as of `Header.latent_size`: by what runs it, nothing is loaded."""
    return 16 << SDConfig.y_downs if weights is not None and is_trained(Path(weights)) else Y_STRIDE


def read_sprd(path: Path | str, max_pixels: int | None = None, stride: int = STRIDES[0]) -> bytes:
    """The bytes of an ``.sprd`` file, or of standard input for ``-``; no more than its header allows are read.

    Args:
        max_pixels, stride: as of `read_file`.

    Raises:
        BitstreamError: it cannot be read, does not begin with a header, or is longer than such a file can be.
    """
    return read_bytes(path, BitstreamError, lambda stream: read_file(stream, max_pixels, stride))


def info(
    data: bytes, *, weights: Path | str | None = None, max_pixels: int | None = None, partial: bool = False
) -> FileInfo:
    """What the bytes of an ``.sprd`` file say about it; if the weights at hand made it, its check is tested.

    Args:
        weights: folder of weights; None: the shipped ones.
        partial: take a file that was cut off after its header, too, and say how much of it is there.

    Raises:
        BitstreamError: it is not a file that can be read, or its check fails.
        WeightsError: the given folder of weights cannot be read.
    """
    parsed = parse_file(data, max_pixels)
    header = parsed.header
    coded_height, coded_width = header.coded_size
    at_hand, whole, known = _compare(parsed, data, weights, partial=partial)
    return FileInfo(
        version=VERSION,
        preset=PRESETS.get(header.preset_id, f"preset {header.preset_id}"),
        tag=header.tag.hex(),
        width=header.width,
        height=header.height,
        coded_width=coded_width,
        coded_height=coded_height,
        scale=float(SCALES[header.scale]),
        grey=header.grey,
        quality=round(header.level * 100 / 255, 1),
        level=header.level,
        bytes=len(data),
        header_bytes=len(data) - len(parsed.stream),
        bpp=len(data) * 8 / (header.width * header.height),
        weights=at_hand,
        whole=whole,
        known=known,
    )


def model_info(weights: Path | str | None = None) -> ModelInfo:
    """What a folder of weights says about itself, from its manifest and licence alone.

    Raises:
        WeightsError: there is no such folder, or its manifest cannot be read.
    """
    folder = Path(weights) if weights is not None else default_folder()
    trained = read_trained(folder) if is_trained(folder) else None
    manifest = read_manifest(folder) if trained is None else trained.manifest
    return ModelInfo(
        preset=manifest.preset,
        preset_id=manifest.preset_id,
        tag=manifest.weights_hash[:2].hex(),
        hash=manifest.weights_hash.hex(),
        decoder_hash=manifest.decoder_hash.hex(),
        encoder_hash=manifest.encoder_hash.hex(),
        folder=str(folder),
        bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        licence=_licence(folder),
        card=_card(folder) if trained is None else trained.card,
    )


def picture_text(
    data: bytes, manifest: Manifest, realism: float | None, of: Mapping[Any, Any] | None = None
) -> dict[str, str]:
    """The text that goes into a PNG: which file, weights, decoder and dials its picture came of.

    Args:
        data: the ``.sprd`` file.
        manifest: of the weights that decoded it.
        realism: as `Codec.decode` was given it.
        of: ``info`` of the picture; if it was decoded with ``partial``, the text has its fields `whole` and `known`.
    """
    header = parse_file(data).header
    about = {
        "version": __version__,
        "model": weights_name(header.preset_id, header.tag),
        "decoder": manifest.decoder_hash.hex(),
        "realism": manifest.dials(header.level, realism, None)[0],
        "bytes": len(data),
    } | {name: value for name, value in (of or {}).items() if name in ("whole", "known")}
    return {"sprdiff": json.dumps(about)}


def _compare(
    parsed: ParsedFile, data: bytes, weights: Path | str | None, *, partial: bool
) -> tuple[str, bool | None, float | None]:
    """The fields `weights`, `whole` and `known` of a `FileInfo`."""
    try:
        model = model_info(weights)
    except WeightsError:
        if weights is not None:
            raise
        return "unknown", None, None
    if (parsed.header.preset_id, parsed.header.tag.hex()) != (model.preset_id, model.tag):
        return "other", None, None
    digest = bytes.fromhex(model.hash)
    if partial and not is_whole(parsed, data, digest):
        return "at hand", False, _known(parsed, Path(model.folder))
    verify(parsed, data, digest, model.preset_id)
    return "at hand", True, 1.0


def _known(parsed: ParsedFile, folder: Path) -> float | None:
    """Which part of the symbols the beginning of a file holds; None for weights of preset `sd`, which load slowly."""
    if is_trained(folder):
        return None
    entropy = EntropyModel.from_arrays(read_arrays(folder / "entropy.npz"))
    header = parsed.header
    found = entropy.decode_beginning(parsed.stream, header.latent_size(entropy.stride), header.level)
    return found.known / found.symbols


def _card(folder: Path) -> dict[str, Any]:
    card = json.loads(read_limited(folder / "manifest.json", MAX_MANIFEST)).get("card", {})
    return card if isinstance(card, dict) else {}


def _licence(folder: Path) -> str:
    try:
        lines = read_limited(folder / "LICENSE-weights", MAX_MANIFEST).decode("utf-8", "replace").splitlines()
    except WeightsError:
        return "not stated"
    return next((line.strip(" #") for line in lines if line.strip()), "not stated")
