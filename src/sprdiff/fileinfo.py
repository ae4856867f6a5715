"""What a file and the shipped model say about themselves, read without any network or network runtime."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common.files import read_bytes
from .errors import BitstreamError, WeightsError
from .format.container import (
    SCALES,
    STRIDES,
    VERSION,
    ParsedFile,
    is_whole,
    parse_file,
    preset_name,
    read_file,
)
from .format.entropy import Beginning, EntropyModel
from .format.reading import check_file, read_exact
from .loading import folder_of, manifest_of
from .runtime.weights import MAX_MANIFEST, Manifest, read_arrays, read_limited, read_manifest
from .sd.folder import is_trained, read_trained


@dataclass(frozen=True)
class FileInfo:
    """The contents of a file's header, and what can be checked.

    Attributes:
        version: the version of the file format.
        preset: the preset of the networks that made it.
        tag: the first 16 bits of their hash, hex digits.
        width, height: the size of the picture in pixels.
        coded_width, coded_height: the size of the smaller picture that was coded.
        scale: the coded scale, the factor between the two.
        grey: whether the picture has one channel.
        quality: 0-100, from `level`.
        level: the quality level that it was coded with, 0-255.
        bytes: the size of the whole file.
        header_bytes: the size of its header with the check.
        bpp: bits of the whole file per pixel of the picture.
        weights: ``"at hand"`` if the available weights made it, which the file's check then confirms, else
            ``"other"``.
        whole: whether the file is whole; None if the weights are others.
        known: the part of the symbols that the beginning of a file holds, 0-1; None if unknown.
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
    """What a folder of weights says.

    Attributes:
        preset: the preset.
        preset_id: its number in files.
        tag: the first 16 bits of `hash`, hex digits.
        hash: H, the SHA-256 of the exact part, hex digits (docs/bitstream.md).
        decoder_hash: the SHA-256 of the decoder's weights, hex digits: it determines the decoded pictures.
        encoder_hash: the SHA-256 of the encoder's weights.
        folder: the path of the folder.
        bytes: the size of all files in the folder.
        licence: the first line of their licence.
        card: the figures of the model card: data, hours, hardware, quality, limits.
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


def read_sprd(path: Path | str, max_pixels: int | None = None, stride: int = STRIDES[0]) -> bytes:
    """Read an ``.sprd`` file, or standard input for ``-``; no more bytes are read than its header allows.

    Args:
        max_pixels, stride: as in `read_file`.

    Raises:
        BitstreamError: it cannot be read, does not begin with a header, or is longer than such a file can be.
    """
    return read_bytes(path, BitstreamError, lambda stream: read_file(stream, max_pixels, stride))


def info(
    data: bytes, *, weights: Path | str | None = None, max_pixels: int | None = None, partial: bool = False
) -> FileInfo:
    """Return what the bytes of an ``.sprd`` file say; if the available weights made it, its check is tested.

    Args:
        weights: the folder of weights; None: the shipped ones.
        partial: accept a file that was cut off after its header, and say how much of it is there.

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
        preset=preset_name(header.preset_id),
        tag=header.tag.hex(),
        width=header.width,
        height=header.height,
        coded_width=coded_width,
        coded_height=coded_height,
        scale=float(SCALES[header.scale]),
        grey=header.grey,
        quality=header.quality,
        level=header.level,
        bytes=len(data),
        header_bytes=len(data) - len(parsed.stream),
        bpp=len(data) * 8 / (header.width * header.height),
        weights=at_hand,
        whole=whole,
        known=known,
    )


def is_damaged(data: bytes, weights: Path | str | None = None) -> bool:
    """Return whether the check of an ``.sprd`` file fails; False if other weights made it, for then the check
    cannot be tested.

    Raises:
        BitstreamError: its header is invalid.
        WeightsError: the given folder of weights cannot be read.
    """
    parsed = parse_file(data)
    manifest = _manifest(weights)
    if manifest is None or not _made_by(parsed, manifest):
        return False
    return not is_whole(parsed, data, manifest.weights_hash)


def model_info(weights: Path | str | None = None) -> ModelInfo:
    """Return what a folder of weights says about itself; only its manifest and licence are read.

    Raises:
        WeightsError: there is no such folder, or its manifest cannot be read.
    """
    folder = folder_of(weights)
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


def _compare(
    parsed: ParsedFile, data: bytes, weights: Path | str | None, *, partial: bool
) -> tuple[str, bool | None, float | None]:
    """Return the fields `weights`, `whole` and `known` of a `FileInfo`."""
    manifest = _manifest(weights)
    if manifest is None:
        return "unknown", None, None
    if not _made_by(parsed, manifest):
        return "other", None, None
    whole = check_file(parsed, data, manifest.weights_hash, manifest.preset_id, partial=partial)
    return "at hand", whole, 1.0 if whole else _known(parsed, folder_of(weights))


def _manifest(weights: Path | str | None) -> Manifest | None:
    """Return the manifest of given weights, or of the shipped ones; None if there are no shipped ones."""
    try:
        return manifest_of(weights)
    except WeightsError:
        if weights is not None:
            raise
        return None


def _made_by(parsed: ParsedFile, manifest: Manifest) -> bool:
    """Whether a file names these weights."""
    header = parsed.header
    return (header.preset_id, header.tag) == (manifest.preset_id, manifest.weights_hash[:2])


def _known(parsed: ParsedFile, folder: Path) -> float | None:
    """Return the part of the symbols in the beginning of a file; None for weights of preset `sd`, which
    load slowly."""
    if is_trained(folder):
        return None
    found = read_exact(parsed, EntropyModel(read_arrays(folder / "entropy.npz")), whole=False)
    assert isinstance(found, Beginning)
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
