"""The codecs that can be compared, by name."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ...format.container import PRESETS
from .base import ImageCodec, UnknownCodec
from .external import External
from .ffmpeg import JpegXl, Vvc
from .pillow import Avif, Heic, Jpeg, Jpeg2000, WebP
from .sprdiff import PREFIX, parse_sprdiff

CLASSICAL = {
    "jpeg": Jpeg,
    "webp": WebP,
    "avif": Avif,
    "jxl": JpegXl,
    "jpeg2000": Jpeg2000,
    "heic": Heic,
    "vvc": Vvc,
}
"""Codecs without networks, by name."""


def parse_codecs(specs: Sequence[str], *, external: Sequence[External] = ()) -> list[ImageCodec]:
    """Return the codecs of specifications ``NAME[@OPTION][@KEY=VALUE]…`` in their order, without repetitions.

    Nothing is loaded; `ImageCodec.missing` tells whether a codec can run here.

    Args:
        specs: ``avif``, ``avif@speed=6``, ``sprdiff-tiny@coarse``, ``sprdiff-tiny@realism=0.5@weights=DIR`` …
        external: codecs of the user, which `specs` may name.

    Raises:
        UnknownCodec: no codec has this name (the message lists them), it has no such option, or a codec of
            the user has the name of another.
    """
    own: dict[str, ImageCodec] = {codec.name: codec for codec in external}
    for name in own:
        if name in CLASSICAL or name.startswith(PREFIX) or "@" in name:
            raise UnknownCodec(f"an external codec cannot be called {name}")
    return [own[spec] if spec in own else _parse(spec, [*own]) for spec in dict.fromkeys(specs)]


def _parse(spec: str, own: Sequence[str]) -> ImageCodec:
    name, *words = spec.split("@")
    if name in CLASSICAL:
        kind = CLASSICAL[name]
        options: dict[str, Any] = dict(_option(kind, spec, word) for word in words)
        return kind(name=spec, **options)
    presets = [PREFIX + preset for preset in PRESETS.values()]
    if name in presets:
        return parse_sprdiff(spec)
    raise UnknownCodec(f"there is no codec {name!r}; there are {', '.join([*presets, *CLASSICAL, *own])}")


def _option(kind: type[Any], spec: str, word: str) -> tuple[str, Any]:
    """Return the name and the value of an option, which is a field of the codec's dataclass."""
    key, _, text = word.partition("=")
    hints = typing.get_type_hints(kind)
    keys = [field.name for field in fields(kind) if field.name != "name"]
    if key not in keys:
        raise UnknownCodec(f"{spec}: there is no option {key!r}; options: {', '.join(keys) or 'none'}")
    choices = {str(choice): choice for choice in typing.get_args(hints[key])}
    if text not in choices:
        raise UnknownCodec(f"{spec}: {key} must be one of {', '.join(choices)}, not {text!r}")
    return key, choices[text]
