"""JSON files of a known structure, which msgspec checks. Only extras import this: the core has no msgspec."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from ..errors import SprdiffError

T = TypeVar("T")


def from_json(data: bytes, kind: type[T], error: type[SprdiffError], message: str) -> T:
    """Read an object from JSON and check every field.

    Args:
        message: the beginning of the error's message; the reason follows it.

    Raises:
        SprdiffError: of the class `error`: the data are no JSON, or of another structure.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError) as caught:  # ValueError: the bytes are not valid UTF-8
        text = str(caught).removeprefix("JSON is malformed: ")
        raise error(f"{message}: {text[:1].lower()}{text[1:]}") from caught


def to_json(value: Any, indent: int | None = None) -> bytes:
    """Return an object as JSON with a line break at its end."""
    text = json.dumps(msgspec.to_builtins(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"
