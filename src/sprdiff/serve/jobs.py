"""The jobs of the routes: functions that turn the bytes of a body into an answer, on a thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .. import options
from ..codec import Codec
from ..errors import TargetError
from ..format.container import SCALES, Header, parse_file
from ..imageio.open import open_rgb
from ..imageio.save import encode_image
from ..interrupt import checkpoint
from .baselines import BaselineName, best_baseline
from .problems import Refusal
from .upload import check_sprd

SPRD_TYPE = "image/x-sprdiff"
FORMATS = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
MAX_STEPS = 16
"""The largest number of evaluations of the generative network that a request may ask for."""
REMEMBERED = 2**26
"""The size of the answers to ``/compare`` that are kept, in bytes."""
_MOST = 2**31 - 1


class Query(BaseModel):
    """Query parameters; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid")


OrSmallest = Annotated[
    bool, Field(description="Where no file is that small, answer the smallest there is instead of 422.")
]


class EncodeQuery(Query):
    """The parameters of ``POST /encode``."""

    quality: Annotated[
        float | None,
        Field(ge=0, le=100, allow_inf_nan=False, description="Quality from 0 to 100, instead of a target."),
    ] = None
    bpp: Annotated[
        float | None,
        Field(
            gt=0,
            le=1000,
            allow_inf_nan=False,
            description="At most so many bits per pixel; 0.02 without a target.",
        ),
    ] = None
    max_bytes: Annotated[int | None, Field(ge=1, le=_MOST, description="At most so many bytes.")] = None
    or_smallest: OrSmallest = False
    scale: Annotated[
        Literal["auto", "1", "1.5", "2", "3", "4", "6", "8"],
        Field(description="Code the picture smaller by this."),
    ] = "auto"
    background: Annotated[
        str,
        Field(
            min_length=1, max_length=40, description="Colour under transparent pixels: `white`, `#336699`."
        ),
    ] = "white"

    def check(self) -> None:
        """Check what no single parameter shows.

        Raises:
            Refusal: 422.
            ImageError: the background is no colour.
        """
        try:
            self.plain()
        except ValueError as error:
            raise Refusal(422, str(error)) from error

    def plain(self) -> options.EncodeOptions:
        """Return the options of the codec."""
        return options.EncodeOptions(self.quality, self.bpp, self.max_bytes, self.scale, self.background)


class DecodeQuery(Query):
    """The parameters of ``POST /decode``."""

    realism: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="0 faithful and blurred, 1 sharp, partly invented; by default what the weights say.",
        ),
    ] = None
    steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_STEPS,
            description="Evaluations of the generative network; by default what the weights say.",
        ),
    ] = None
    seed: Annotated[int, Field(ge=0, le=_MOST, description="Seed of the noise that detail is made of.")] = 0
    format: Annotated[
        Literal["png", "webp", "jpeg"], Field(description="Format of the answer; png and webp are lossless.")
    ] = "png"


class CompareQuery(Query):
    """The parameters of ``POST /compare``."""

    codec: Annotated[BaselineName, Field(description="Which codec.")]
    max_bytes: Annotated[int, Field(ge=1, le=_MOST, description="At most so many bytes, for the whole file.")]
    or_smallest: OrSmallest = False


@dataclass(frozen=True)
class Answer:
    """The result of a job.

    Attributes:
        content: the body of the answer.
        media_type: its media type.
        about: the values of the headers ``Sprdiff-...``, by the end of their names.
        pixels: the pixels of the picture, for the metrics.
    """

    content: bytes
    media_type: str
    about: dict[str, str]
    pixels: int


@dataclass(frozen=True)
class Task:
    """The input of a job.

    Attributes:
        body: the body of the request.
        max_pixels: the largest picture, width x height.
    """

    codec: Codec
    body: bytes
    max_pixels: int


def encode(task: Task, query: EncodeQuery) -> Answer:
    """Encode a picture; return the ``.sprd`` file."""
    codec = task.codec
    picture = open_rgb(task.body, background=query.background, max_pixels=task.max_pixels, name="the body")
    checkpoint()
    try:
        data = codec.encode_with(picture, query.plain())
    except TargetError as error:
        if not query.or_smallest:
            raise
        checkpoint()
        data = codec.encode(picture, max_bytes=error.smallest, scale=query.scale)
    header = parse_file(data).header
    about = _about(header, data)
    if picture.lost:
        about["Dropped"] = picture.lost
    return Answer(data, SPRD_TYPE, about, header.width * header.height)


def decode(task: Task, query: DecodeQuery) -> Answer:
    """Decode an ``.sprd`` file; return the picture."""
    header = check_sprd(task.body, task.max_pixels)
    decoded = task.codec.decode_with(task.body, options.DecodeOptions(query.realism, query.steps, query.seed))
    checkpoint()
    content = encode_image(decoded.image, FORMATS[query.format], decoded.text)
    realism, _ = task.codec.manifest.dials(header.level, query.realism, query.steps)
    about = _about(header, task.body) | {"Realism": f"{realism:g}"}
    return Answer(content, f"image/{query.format}", about, header.width * header.height)


class Comparer:
    """The job of ``POST /compare``; it remembers its last answers, because people go back to an earlier
    choice."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[bytes, tuple[str, int, bool]], Answer] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, task: Task, query: CompareQuery) -> Answer:
        """Return what another codec makes of a picture within a number of bytes, as PNG."""
        key = sha256(task.body).digest(), (query.codec, query.max_bytes, query.or_smallest)
        with self._lock:
            found = self._answers.pop(key, None)
        answer = compare(task, query) if found is None else found
        with self._lock:
            self._answers[key] = answer
            while sum(len(kept.content) for kept in self._answers.values()) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer


def compare(task: Task, query: CompareQuery) -> Answer:
    """Return what another codec makes of a picture within a number of bytes, as PNG."""
    picture = open_rgb(task.body, max_pixels=task.max_pixels, name="the body")
    checkpoint()
    found = best_baseline(query.codec, picture.pixels, query.max_bytes, or_smallest=query.or_smallest)
    height, width = picture.pixels.shape[:2]
    about = {
        "Bytes": str(found.size),
        "Quality": f"{found.quality:g}",
        "Scale": f"{found.scale:.3g}",
        "Codec": found.version,
    }
    return Answer(found.png, "image/png", about, height * width)


def _about(header: Header, data: bytes) -> dict[str, str]:
    return {
        "Bytes": str(len(data)),
        "Bpp": f"{8 * len(data) / (header.width * header.height):.5f}",
        "Width": str(header.width),
        "Height": str(header.height),
        "Level": str(header.level),
        "Quality": f"{header.quality:.1f}",
        "Scale": f"{float(SCALES[header.scale]):g}",
        "Model": header.model,
    }
