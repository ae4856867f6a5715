"""The codec: a picture to the bytes of an ``.sprd`` file and back.

    encode:  open ─► coded scale ─► runtime.analyse ─► y, z ─► entropy.encode ─► pack_file
                          └──────────── rate control repeats what is right of y, z ──┘
    decode:  parse_file ─► verify ─► entropy.decode ═ exactness line ═ runtime.decode ─► resize

A decoder is given nothing but the bytes and its options, so the original can never leak into a result.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import __version__, encoder
from .common.progress import Report, unheard
from .errors import ImageError
from .format.container import MAX_SIDE, Header, ParsedFile, parse_file
from .format.entropy import Beginning
from .format.reading import check_file, read_exact
from .imageio.colour import Rgb
from .imageio.open import Picture, Source, open_rgb
from .imageio.resize import resize
from .imageio.save import to_pil
from .imageio.xmp import with_source
from .limits import MAX_PIXELS
from .loading import load_runtime, manifest_of
from .options import AUTO, CodecOptions, DecodeOptions, EncodeOptions, Scale

if TYPE_CHECKING:
    from .loading import Runtime
    from .runtime.weights import Manifest

Input = Source | Picture | NDArray[np.uint8]


@dataclass(frozen=True)
class DecodedPicture:
    """A decoded picture and where it came from.

    Attributes:
        image: the picture, in mode RGB, or L when it is grey.
        header: that of the file.
        text: the text chunks of a PNG: which file, weights, decoder and options the picture was made from.
        known: the part of the symbols that the file holds, from 0 to 1; below 1 only in a file that was cut
            off.
    """

    image: Image.Image
    header: Header
    text: dict[str, str]
    known: float


class Codec:
    """Encodes and decodes with one set of weights. It keeps them loaded and may be used from several threads.

    The weights are loaded by the first call that needs them, and each network by the first call that runs it.
    """

    def __init__(
        self,
        weights: Path | str | None = None,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        precision: str = AUTO,
    ) -> None:
        """Make a codec; nothing is loaded yet.

        Args:
            weights: a weights folder, or the folder of a trained SPRDiff of preset `sd`, which runs on a GPU
                if there is one (see `from_pretrained`); None: the weights that come with the package.
            threads: of the networks; None: one for each core.
            max_pixels: limit on width x height of a picture, for encoding and for decoding.
            precision: of the networks of preset `sd`, see `from_pretrained`; those of `tiny` run in fp32.

        Raises:
            ValueError: a number is below 1, or there is no such precision.
        """
        options = CodecOptions(weights, threads, max_pixels, precision)
        self.max_pixels = options.max_pixels
        loading = options.weights, options.threads, None, options.precision
        self._load: Callable[[], Runtime] = lambda: load_runtime(*loading)
        self._read_manifest: Callable[[], Manifest] = lambda: manifest_of(options.weights)
        self._manifest: Manifest | None = None
        self._runtime: Runtime | None = None
        self._lock = threading.RLock()

    @classmethod
    def from_options(cls, options: CodecOptions) -> Codec:
        """Return a codec from its options as one object."""
        return cls(options.weights, options.threads, options.max_pixels, options.precision)

    @classmethod
    def from_runtime(cls, runtime: Runtime, *, max_pixels: int = MAX_PIXELS) -> Codec:
        """Return a codec on networks that are loaded already."""
        codec = cls(max_pixels=max_pixels)
        codec._runtime, codec._manifest = runtime, runtime.manifest
        return codec

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        base: str | Path | None = None,
        semantic: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Codec:
        """Return the codec of a trained SPRDiff of preset `sd` (extra: sd), loaded now.

        Args:
            name: its folder, or its id on the hub.
            revision: of the hub; None: its main branch.
            base, semantic: folders of the pretrained parts, if they are not where they were in training.
            device: ``cpu``, ``cuda``, ``cuda:1`` ...; ``auto``: a GPU if there is one.
            precision: of the large networks: ``fp32``, ``tf32``, ``fp16``, ``bf16``; ``auto``: on a GPU the
                fastest one that the decoded latent allows, elsewhere ``fp32``.
            tile: side of tiles in pixels, a multiple of 64: less memory, more seams; None: 768 and 1024.
            threads: of torch on the CPU, for the whole process.
            max_pixels: limit on width x height of a picture, for encoding and for decoding.

        Raises:
            WeightsError: something is missing, unknown, damaged, or not what the codec was trained on.
            DeviceError: there is no such device, or it has too little memory.
        """
        from .sd.pretrained import load

        runtime = load(
            name,
            revision=revision,
            base=base,
            semantic=semantic,
            device=device,
            precision=precision,
            tile=tile,
            threads=threads,
        )
        return cls.from_runtime(runtime, max_pixels=max_pixels)

    @property
    def runtime(self) -> Runtime:
        """The networks, which are loaded now if they are not yet.

        Raises:
            WeightsError: the weights folder is incomplete or damaged.
        """
        with self._lock:
            if self._runtime is None:
                self._runtime = self._load()
                self._manifest = self._runtime.manifest
            return self._runtime

    @property
    def manifest(self) -> Manifest:
        """What the weights say about themselves; it is read without loading any network.

        Raises:
            WeightsError: the weights folder is missing or damaged.
        """
        with self._lock:
            if self._manifest is None:
                self._manifest = self._read_manifest()
            return self._manifest

    def encode(
        self,
        image: Input,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        scale: Scale = AUTO,
        background: str | Rgb = "white",
        effort: int = 0,
        report: Report | None = None,
    ) -> bytes:
        """Return the bytes of an ``.sprd`` file of a picture.

        At most one of `quality`, `bpp` and `max_bytes` may be given. With none of them the file has 0.02 bits
        per pixel, or is the smallest that the model can make where that is larger.

        Args:
            image: path, bytes of an image file, binary file, Pillow image, `Picture`, or uint8 array
                [H, W, 3] or [H, W].
            quality: 0-100, in 256 levels of about 1 % more bytes each.
            bpp: most bits per pixel of the original, for the whole file; above 0.
            max_bytes: most bytes of the whole file.
            scale: factor by which the coded picture is smaller: 1, 1.5, 2, 3, 4, 6 or 8; ``"auto"``: the one
                that suits the target, and 1 when quality is given.
            background: colour on which transparent pixels are composited.
            effort: 0-9. Above 0 the encoder searches for better symbols: the file becomes smaller or truer,
                any decoder reads it, and encoding takes seconds to minutes a megapixel (extra: train, for
                torch).
            report: is told from time to time which fraction of that search is done.

        Raises:
            EffortError: torch is missing, or these networks cannot be refined.
            ImageError: it is not an image, or is larger than the limits.
            TargetError: no file can be that small; the error names the smallest.
            WeightsError: the weights folder is incomplete or damaged.
            ValueError: an argument is out of its range.
        """
        return self.encode_with(
            image, EncodeOptions(quality, bpp, max_bytes, scale, background, effort), report
        )

    def encode_with(self, image: Input, options: EncodeOptions, report: Report | None = None) -> bytes:
        """Encode like `encode`, with the options as one object."""
        source = _from_array(image) if isinstance(image, np.ndarray) else image
        picture = open_rgb(source, background=options.background, max_pixels=self.max_pixels)
        if max(picture.pixels.shape) > MAX_SIDE:
            raise ImageError(f"a side of {max(picture.pixels.shape)} pixels is above the limit of {MAX_SIDE}")
        return encoder.encode(self.runtime, picture, options, report or unheard)

    def decode(
        self,
        data: bytes,
        *,
        realism: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        partial: bool = False,
    ) -> Image.Image:
        """Return the picture of an ``.sprd`` file, in mode RGB, or L when it is grey.

        Above realism 0 the image's ``info["xmp"]`` says to machines that it is partly invented, as IPTC's
        digital source type. The image's `save` writes it into PNG, JPEG, WebP, AVIF and TIFF; images that are
        made of it have it in `info` only.

        Args:
            data: the whole file.
            realism: 0 (faithful on average, blurred) to 1 (sharp, partly invented), linear between; None:
                what the weights say for the level of the file.
            steps: evaluations of the generative network, 1-1000: more are slower, and follow its flow more
                closely; None: what the weights say.
            seed: of the noise that detail is made of.
            partial: also take a file that was cut off anywhere after its header. What is lost is decoded as
                its mean. No check can tell a cut file from a damaged one. The image's ``info["whole"]`` says
                whether the file is whole, and ``info["known"]`` which part of the symbols it holds, from 0 to
                1.

        Raises:
            BitstreamError: the bytes are not a readable file, or the picture is larger than `max_pixels`.
            ModelMismatchError: the file was made with other weights.
            WeightsError: the weights folder is incomplete or damaged.
            DeviceError: the device has too little memory.
            ValueError: an argument is out of its range, or these networks do not support it.
        """
        return self.decode_with(data, DecodeOptions(realism, steps, seed, partial)).image

    def decode_with(self, data: bytes, options: DecodeOptions) -> DecodedPicture:
        """Decode like `decode`, with the options as one object; the result says where the picture is from."""
        parsed = parse_file(data, self.max_pixels)
        header, manifest = parsed.header, self.manifest
        # Networks are not loaded for a file that is damaged.
        whole = check_file(parsed, data, manifest.weights_hash, manifest.preset_id, partial=options.partial)
        realism, steps = manifest.dials(header.level, options.realism, options.steps)
        pixels, known = self._decode(parsed, options.seed, realism, steps, whole=whole)
        image = with_source(to_pil(resize(pixels, (header.height, header.width)), header.grey), realism)
        about: dict[str, Any] = {"whole": whole, "known": known} if options.partial else {}
        image.info.update(about)
        text: dict[str, Any] = {"version": __version__, "model": header.model}
        text |= {"decoder": manifest.decoder_hash.hex(), "realism": realism, "bytes": len(data)}
        return DecodedPicture(image, header, {"sprdiff": json.dumps(text | about)}, known)

    def _decode(
        self, parsed: ParsedFile, seed: int, realism: float, steps: int, *, whole: bool
    ) -> tuple[NDArray[np.uint8], float]:
        """Return the pixels of the coded size, and the known part of the symbols."""
        runtime, header = self.runtime, parsed.header
        exact = read_exact(parsed, runtime.entropy, whole=whole)
        known = exact.known / exact.symbols if isinstance(exact, Beginning) else 1.0
        # It is large for a large picture; the runtime drops it as soon as it can, so nobody else may hold it.
        held = [exact]
        del exact
        pixels = runtime.decode(
            held.pop(),
            level=header.level,
            realism=realism,
            steps=steps,
            seed=seed,
            size=header.coded_size,
            dtype=np.uint8,
        )
        return pixels, known


def _from_array(array: NDArray[np.uint8]) -> Picture:
    if array.dtype != np.uint8:
        raise ImageError(f"an array of pixels must be uint8, not {array.dtype}")
    if array.ndim == 2:
        return Picture(np.repeat(array[:, :, None], 3, axis=2), grey=True)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"an array of pixels must be [H, W, 3] or [H, W], not {list(array.shape)}")
    return Picture(array, grey=False)


_default: Codec | None = None
_default_lock = threading.Lock()


def default_codec() -> Codec:
    """Return the codec behind `encode` and `decode`: the weights of the package, the default limits."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Codec()
        return _default


def encode(
    image: Input,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    scale: Scale = AUTO,
    background: str | Rgb = "white",
    effort: int = 0,
    report: Report | None = None,
) -> bytes:
    """Return `Codec.encode` with the weights that come with the package."""
    options = EncodeOptions(quality, bpp, max_bytes, scale, background, effort)
    return default_codec().encode_with(image, options, report)


def decode(
    data: bytes,
    *,
    realism: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    partial: bool = False,
) -> Image.Image:
    """Return `Codec.decode` with the weights that come with the package."""
    return default_codec().decode_with(data, DecodeOptions(realism, steps, seed, partial)).image
