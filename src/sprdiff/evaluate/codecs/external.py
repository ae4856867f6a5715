"""Codecs that are commands of the user: one encodes a PNG file, one decodes to a PNG file."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import ImageError
from ...imageio.open import open_rgb
from ...imageio.save import encode_image, to_pil
from ..metrics.distortion import Bytes
from .base import CodecError, ImageCodec, MissingCodec, Quality, UnknownCodec

_PNG = b"\x89PNG\r\n\x1a\n"
_FIELDS = {"encode": ("{input}", "{output}", "{quality}"), "decode": ("{input}", "{output}")}


@dataclass(frozen=True)
class External(ImageCodec):
    """An encoder and a decoder that run as commands, each in its own temporary folder and never through a
    shell.

    The commands are templates such as ``cwebp -q {quality} {input} -o {output}.webp`` and ``dwebp {input} -o
    {output}``. The encoder's input and the decoder's output are PNG files. An extension after the encoder's
    ``{output}`` is also that of the decoder's ``{input}``. The decoder's folder contains only the compressed
    file.

    Attributes:
        name: the codec's name in the results.
        encode_command, decode_command: the templates, quoted like words of a shell.
        values: the values of ``{quality}``, from the smallest file to the largest.
        timeout: how long a run may take, in seconds.

    Raises:
        UnknownCodec: a template lacks a field, or its quotes do not match.
    """

    name: str
    encode_command: str
    decode_command: str
    values: tuple[Quality, ...]
    timeout: float = 600.0

    def __post_init__(self) -> None:
        for kind, template in (("encode", self.encode_command), ("decode", self.decode_command)):
            words = " ".join(self._words(template))
            absent = [field for field in _FIELDS[kind] if field not in words]
            if absent:
                raise UnknownCodec(
                    f"{self.name}: the command to {kind} needs {' and '.join(absent)}: {template}"
                )
        if not self.values:
            raise UnknownCodec(f"{self.name}: there are no qualities")

    @property
    def qualities(self) -> Sequence[Quality]:
        return self.values

    def version(self) -> str:
        for template in (self.encode_command, self.decode_command):
            program = self._words(template)[0]
            if shutil.which(program) is None:
                raise MissingCodec(f"{self.name}: there is no command {program}")
        return f"{self.encode_command} | {self.decode_command}"

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        with tempfile.TemporaryDirectory(prefix="sprdiff-") as name:
            source, target = Path(name) / "input.png", Path(name) / "output"
            source.write_bytes(encode_image(to_pil(pixels), "PNG"))
            self._run(self.encode_command, Path(name), source, target, quality)
            return self._read(Path(str(target) + self._extension()))

    def decode(self, data: bytes) -> Bytes:
        with tempfile.TemporaryDirectory(prefix="sprdiff-") as name:
            source, target = Path(name) / f"input{self._extension()}", Path(name) / "output.png"
            source.write_bytes(data)
            self._run(self.decode_command, Path(name), source, target)
            picture = self._read(target)
        if not picture.startswith(_PNG):
            raise CodecError(f"{self.name}: the command to decode did not write a PNG file")
        try:
            return open_rgb(picture).pixels
        except ImageError as error:
            raise CodecError(f"{self.name}: the picture decoded cannot be read: {error}") from error

    def _extension(self) -> str:
        """Return what follows ``{output}`` in the word of the encoder's template, such as ``.webp``."""
        word = next(word for word in self._words(self.encode_command) if "{output}" in word)
        return word.partition("{output}")[2]

    def _words(self, template: str) -> list[str]:
        try:
            words = shlex.split(template)
        except ValueError as error:
            raise UnknownCodec(f"{self.name}: {template}: {error}") from error
        if not words:
            raise UnknownCodec(f"{self.name}: a command is empty")
        return words

    def _run(
        self, template: str, folder: Path, source: Path, target: Path, quality: Quality | None = None
    ) -> None:
        fields = {"{input}": str(source), "{output}": str(target), "{quality}": str(quality)}
        words = [_filled(word, fields) for word in self._words(template)]
        with tempfile.TemporaryFile() as errors:
            code = self._ended(words, folder, errors.fileno())
            if code:
                errors.seek(0)
                lines = errors.read().decode("utf-8", "replace").strip().splitlines()
                raise CodecError(
                    f"{self.name}: {words[0]} failed ({code}): {lines[-1] if lines else 'no message'}"
                )

    def _ended(self, words: Sequence[str], folder: Path, errors: int) -> int:
        """Run a command and return its exit status; when it takes too long, it and all that it started is
        killed."""
        null = subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                words, cwd=folder, stdin=null, stdout=null, stderr=errors, start_new_session=True
            )
        except OSError as error:
            raise MissingCodec(f"{self.name}: {words[0]} does not run: {error.strerror or error}") from error
        try:
            return process.wait(self.timeout)
        except subprocess.TimeoutExpired as error:
            raise CodecError(f"{self.name}: {words[0]} took more than {self.timeout:g} s") from error
        finally:
            if process.poll() is None:
                _end(process)

    def _read(self, path: Path) -> bytes:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CodecError(f"{self.name}: the command wrote no file {path.name}") from error
        if not data:
            raise CodecError(f"{self.name}: the command wrote an empty file {path.name}")
        return data


def _filled(word: str, fields: dict[str, str]) -> str:
    for field, value in fields.items():
        word = word.replace(field, value)
    return word


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
