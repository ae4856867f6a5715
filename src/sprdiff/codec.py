"""The codec: a picture to the bytes of an ``.sprd`` file and back.

    encode:  open ─► coded scale ─► runtime.analyse ─► y, z ─► entropy.encode ─► pack_file
                          └───────────── rate control repeats what is right of y, z ──┘
    decode:  parse_file ─► verify ─► entropy.decode ═ exactness line ═ runtime.decode ─► resize

A decoder is handed nothing but the bytes and its dials, so the original can never leak into a result.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .common.progress import Report, unheard
from .encoder import Coding, refined_to
from .errors import ImageError, TargetError
from .format.container import MAX_SIDE, parse_file
from .format.entropy import Beginning
from .format.reading import read_exact
from .imageio.colour import Rgb
from .imageio.open import MAX_PIXELS, Picture, Source, open_rgb
from .imageio.resize import resize
from .imageio.save import to_pil
from .ratecontrol import (
    AUTO,
    DEFAULT_BPP,
    candidate_scales,
    first_guess,
    highest_fitting,
    quality_level,
    scale_code,
)
from .runtime.weights import MAX_STEPS

if TYPE_CHECKING:
    from .encoder import Runtime

MAX_SEED = 2**64 - 1
MAX_EFFORT = 9

Input = Source | Picture | NDArray[np.uint8]
Scale = str | float

Finish = Callable[[Coding, int, int], bytes]


class Codec:
    """Encodes and decodes with one set of weights; keeps them loaded, and may be used from several threads.

    The weights are loaded by the first call that needs them, each network by the first that runs it.
    """

    def __init__(
        self, weights: Path | str | None = None, threads: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Nothing is loaded yet.

        Args:
            weights: a weights folder, or the folder of a trained SPRDiff of preset `sd` (then on a GPU if there
                is one; see `from_pretrained`); None: the one that comes with the package.
            threads: of the networks; None: one for each core.
            max_pixels: limit on width x height of a picture, both ways.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        if max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, not {max_pixels}")
        self.max_pixels = max_pixels
        self._make: Callable[[], Runtime] = functools.partial(_load_folder, weights, threads)
        self._runtime: Runtime | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_runtime(cls, runtime: Runtime, *, max_pixels: int = MAX_PIXELS) -> Codec:
        """A codec on networks that are loaded already."""
        codec = cls(max_pixels=max_pixels)
        codec._runtime = runtime
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
        """The codec of a trained SPRDiff of preset `sd` (extra: sd), loaded now.

        Args:
            name: its folder, or its id on the hub.
            revision: of the hub; None: its main branch.
            base, semantic: folders of the pretrained parts, if they are not where they were in training.
            device: ``cpu``, ``cuda``, ``cuda:1`` ...; ``auto``: a GPU if there is one.
            precision: of the large networks: ``fp32``, ``tf32``, ``fp16``, ``bf16``; ``auto``: on a GPU the fastest one
                that the decoded latent allows, elsewhere ``fp32``.
            tile: side of tiles in pixels, a multiple of 64: less memory, more seams; None: 768 and 1024.
            threads: of torch on the CPU, for the whole process.
            max_pixels: limit on width x height of a picture, both ways.

        Raises:
            WeightsError: something is missing, unknown, damaged, or not what it was trained on.
            DeviceError: there is no such device, or too little memory on it.
        """
        from .sd.pretrained import load

        runtime = load(
            name, revision=revision, base=base, semantic=semantic, device=device, precision=precision, tile=tile,
            threads=threads,
        )  # fmt: skip
        return cls.from_runtime(runtime, max_pixels=max_pixels)

    @property
    def runtime(self) -> Runtime:
        """The networks, loaded now if they are not yet.

        Raises:
            WeightsError: the weights folder is incomplete or damaged.
        """
        with self._lock:
            if self._runtime is None:
                self._runtime = self._make()
            return self._runtime

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
        """The bytes of an ``.sprd`` file of a picture.

        At most one of `quality`, `bpp` and `max_bytes` may be given. With none, the file has 0.02 bits per
        pixel, or is the smallest that the model can make where that is larger.

        Args:
            image: path, bytes of an image file, binary file, Pillow image, `Picture`, or uint8 array
                [H, W, 3] or [H, W].
            quality: 0-100, in 256 levels of about 1 % more bytes each.
            bpp: most bits per pixel of the original, for the whole file.
            max_bytes: most bytes of the whole file.
            scale: factor by which the coded picture is smaller: 1, 1.5, 2, 3, 4, 6 or 8; ``"auto"``: chosen
                for the target, 1 when quality is given.
            background: what transparency is composited on.
            effort: 0-9. Above 0 the sender searches for better integers: the file comes out smaller or truer, any
                decoder reads it, and it takes seconds to minutes a megapixel (extra: train, for torch).
            report: told from time to time which fraction of that search is done.

        Raises:
            EffortError: torch is missing, or these networks cannot.
            ImageError: it is not an image, or larger than the limits.
            TargetError: no file can be that small; it names the smallest.
            WeightsError: the weights folder is incomplete or damaged.
            ValueError: an argument is out of its range.
        """
        if sum(target is not None for target in (quality, bpp, max_bytes)) > 1:
            raise ValueError("quality, bpp and max_bytes exclude each other")
        code = scale_code(scale)
        level = None if quality is None else quality_level(quality)
        _check_targets(bpp, max_bytes)
        _check_effort(effort)
        picture = self._open(image, background)
        if level is not None:
            coding = Coding(self.runtime, picture, code or 0)
            return (coding.refined(level, effort, report or unheard) if effort else coding).file(level)
        pixels = picture.pixels.shape[0] * picture.pixels.shape[1]
        stated = bpp is not None or max_bytes is not None
        if max_bytes is None:
            max_bytes = math.floor((DEFAULT_BPP if bpp is None else bpp) * pixels / 8)
        finish = functools.partial(refined_to, effort=effort, report=report or unheard) if effort else None
        return self._encode_to(picture, max_bytes, code, finish, stated=stated)

    def decode(
        self,
        data: bytes,
        *,
        realism: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        partial: bool = False,
    ) -> Image.Image:
        """The picture of an ``.sprd`` file, in mode RGB, or L when it is grey.

        Args:
            data: the whole file.
            realism: 0 (faithful on average, blurred) to 1 (sharp, partly invented), linear between; None: what the
                weights say for the file's level.
            steps: evaluations of the generative network, 1-1000: more are slower, and better or equal; None: what
                the weights say.
            seed: of the noise that texture is made of.
            partial: take a file that was cut off anywhere after its header, too. What is lost is decoded as its mean.
                No check can tell a cut file from a damaged one. The image's ``info["whole"]`` says whether the file
                is whole, ``info["known"]`` which part of the symbols it holds, from 0 to 1.

        Raises:
            BitstreamError: the bytes are not a readable file, or the picture is larger than `max_pixels`.
            ModelMismatchError: the file was made with other weights.
            WeightsError: the weights folder is incomplete or damaged.
            DeviceError: the device has too little memory.
            ValueError: a dial is out of its range, or these networks do not have it.
        """
        _check_dials(realism, steps, seed)
        parsed = parse_file(data, self.max_pixels)
        header = parsed.header
        runtime = self.runtime
        realism, steps = runtime.manifest.dials(header.level, realism, steps)
        exact = read_exact(
            parsed, data, runtime.entropy, runtime.weights_hash, runtime.manifest.preset_id, partial=partial
        )
        whole = not isinstance(exact, Beginning)
        known = exact.known / exact.symbols if isinstance(exact, Beginning) else 1.0
        # Held by nobody else: of a large picture it is large, and the runtime lets it go.
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
        image = to_pil(resize(pixels, (header.height, header.width)), header.grey)
        if partial:
            image.info |= {"whole": whole, "known": known}
        return image

    def _open(self, image: Input, background: str | Rgb) -> Picture:
        source = _from_array(image) if isinstance(image, np.ndarray) else image
        picture = open_rgb(source, background=background, max_pixels=self.max_pixels)
        if max(picture.pixels.shape) > MAX_SIDE:
            raise ImageError(f"a side of {max(picture.pixels.shape)} pixels is above the limit of {MAX_SIDE}")
        return picture

    def _encode_to(
        self, picture: Picture, limit: int, code: int | None, finish: Finish | None, *, stated: bool
    ) -> bytes:
        """The best file of at most `limit` bytes; if none exists, an error if `stated`, else the smallest."""
        height, width = picture.pixels.shape[:2]
        smallest: bytes | None = None
        for candidate in candidate_scales(width, height, limit) if code is None else [code]:
            coding = Coding(self.runtime, picture, candidate)
            level = highest_fitting(coding.size, limit, first_guess(limit, coding.pixels))
            if level is not None:
                return finish(coding, limit, level) if finish else coding.file(level)
            least = coding.smallest()
            smallest = least if smallest is None or len(least) < len(smallest) else smallest
        assert smallest is not None  # there is always a scale to try
        if stated:
            at = "" if code is None else " at this scale"
            raise TargetError(
                f"{limit} bytes are too few: the smallest file of this picture{at} has {len(smallest)} bytes",
                len(smallest),
            )
        return smallest


def _load_folder(weights: Path | str | None, threads: int | None) -> Runtime:
    """The runtime that a folder of weights is for; it takes a while: not for a file that is damaged."""
    if weights is not None:
        from .sd.folder import is_trained

        if is_trained(Path(weights)):
            from .sd.pretrained import load

            return load(weights, threads=threads)
    from .runtime.load import load_runtime

    return load_runtime(weights, threads)


def _from_array(array: NDArray[np.uint8]) -> Picture:
    if array.dtype != np.uint8:
        raise ImageError(f"an array of pixels must be uint8, not {array.dtype}")
    if array.ndim == 2:
        return Picture(np.repeat(array[:, :, None], 3, axis=2), grey=True)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"an array of pixels must be [H, W, 3] or [H, W], not {list(array.shape)}")
    return Picture(array, grey=False)


def _check_targets(bpp: float | None, max_bytes: int | None) -> None:
    if bpp is not None and not (math.isfinite(bpp) and bpp >= 0):
        raise ValueError(f"bpp must be a number of at least 0, not {bpp}")
    if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 0):
        raise ValueError(f"max_bytes must be a whole number of at least 0, not {max_bytes}")


def _check_effort(effort: int) -> None:
    if not isinstance(effort, int) or not 0 <= effort <= MAX_EFFORT:
        raise ValueError(f"effort must be a whole number from 0 to {MAX_EFFORT}, not {effort}")


def _check_dials(realism: float | None, steps: int | None, seed: int) -> None:
    if realism is not None and not 0 <= realism <= 1:
        raise ValueError(f"realism must be from 0 to 1, not {realism}")
    if steps is not None and (not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS):
        raise ValueError(f"steps must be a whole number from 1 to {MAX_STEPS}, not {steps}")
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be a whole number from 0 to {MAX_SEED}, not {seed}")


_default: Codec | None = None
_default_lock = threading.Lock()


def default_codec() -> Codec:
    """The codec behind `encode` and `decode`: the weights of the package, the default limits."""
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
    """`Codec.encode` with the weights that come with the package."""
    return default_codec().encode(
        image,
        quality=quality,
        bpp=bpp,
        max_bytes=max_bytes,
        scale=scale,
        background=background,
        effort=effort,
        report=report,
    )


def decode(
    data: bytes, *, realism: float | None = None, steps: int | None = None, seed: int = 0, partial: bool = False
) -> Image.Image:
    """`Codec.decode` with the weights that come with the package."""
    return default_codec().decode(data, realism=realism, steps=steps, seed=seed, partial=partial)
