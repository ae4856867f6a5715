"""Tests of codecs that are commands, with small Python scripts as the commands."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import photo
from sprdiff.evaluate.codecs.base import CodecError, MissingCodec, UnknownCodec
from sprdiff.evaluate.codecs.external import External

COPY = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"


def command(code: str, *words: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} " + " ".join(words)


def codec(
    encode: str = COPY, decode: str = COPY, output: str = "{output}", timeout: float = 600.0
) -> External:
    return External(
        "mine",
        command(encode, "{input}", output, "{quality}"),
        command(decode, "{input}", "{output}"),
        (1, 2.5),
        timeout,
    )


def test_a_picture_comes_back() -> None:
    pixels = photo(20, 30)
    mine = codec()
    data = mine.encode(pixels, 1)
    assert data.startswith(b"\x89PNG")
    assert np.array_equal(mine.decode(data), pixels)
    assert mine.missing() is None
    assert list(mine.qualities) == [1, 2.5]


def test_fields_are_filled_in() -> None:
    mine = codec("import sys; open(sys.argv[2], 'w').write(repr(sys.argv[1:]))")
    words = mine.encode(photo(8, 8), 2.5).decode()
    assert "input.png" in words and words.endswith("'2.5']")


def test_an_extension_of_the_file_is_kept_for_the_decoder() -> None:
    decode = "import sys; sys.stderr.write(sys.argv[1]); sys.exit(1)"
    mine = codec(decode=decode, output="{output}.tar.xyz")
    data = mine.encode(photo(8, 8), 1)
    with pytest.raises(CodecError, match=r"input\.tar\.xyz$"):
        mine.decode(data)


def test_the_decoder_sees_nothing_but_the_file() -> None:
    decode = "import os, sys; sys.exit(f'{os.listdir()} {os.listdir(os.path.dirname(sys.argv[1]))}')"
    mine = codec(decode=decode)
    data = mine.encode(photo(8, 8), 1)
    with pytest.raises(CodecError, match=r"\['input'\] \['input'\]$"):
        mine.decode(data)


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    target = tmp_path / "written"
    words = f"; touch {target} && $(touch {target}) | touch {target}"
    mine = External(
        "mine", command(COPY, "{input}", "{output}", "{quality}", words), "b {input} {output}", (1,)
    )
    assert mine.encode(photo(8, 8), 1)
    assert not target.exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('first line\\nlast line')", r"failed \(1\): last line$"),
        ("import sys; sys.exit(3)", r"failed \(3\): no message$"),
        ("pass", "wrote no file output"),
        ("import sys; open(sys.argv[2], 'w')", "wrote an empty file output"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"failed \(-9\)"),
    ],
)
def test_an_encoder_that_fails(code: str, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec(code).encode(photo(8, 8), 1)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; open(sys.argv[2], 'w').write('GIF89a')", "did not write a PNG file"),
        (
            "import sys; "
            "open(sys.argv[2], 'wb').write(bytes([137]) + b'PNG' + bytes([13, 10, 26, 10]) + b'junk')",
            "the picture decoded cannot be read",
        ),
        ("import sys; sys.exit('oh no')", "oh no$"),
    ],
)
def test_a_decoder_that_fails(code: str, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec(decode=code).decode(b"data")


def test_a_command_that_does_not_end() -> None:
    with pytest.raises(CodecError, match=r"took more than 0\.5 s$"):
        codec("import time; time.sleep(1000)", timeout=0.5).encode(photo(8, 8), 1)


def test_a_program_that_is_not_there() -> None:
    mine = External("mine", "/no/such/program {input} {output} {quality}", "b {input} {output}", (1,))
    error = mine.missing()
    assert isinstance(error, MissingCodec) and str(error) == "mine: there is no command /no/such/program"
    with pytest.raises(MissingCodec, match="/no/such/program does not run: No such file"):
        mine.encode(photo(8, 8), 1)


@pytest.mark.parametrize(
    ("encode", "decode", "message"),
    [
        ("a {input} {output}", "b {input} {output}", r"to encode needs \{quality\}"),
        ("a {quality}", "b {input} {output}", r"needs \{input\} and \{output\}"),
        ("a {input} {output} {quality}", "b {input}", r"to decode needs \{output\}"),
        ("a 'x", "b {input} {output}", "No closing quotation"),
        ("", "b {input} {output}", "a command is empty"),
    ],
)
def test_templates_that_cannot_work(encode: str, decode: str, message: str) -> None:
    with pytest.raises(UnknownCodec, match=message):
        External("mine", encode, decode, (1,))


def test_qualities_are_needed() -> None:
    with pytest.raises(UnknownCodec, match="no qualities"):
        External("mine", "a {input} {output} {quality}", "b {input} {output}", ())
