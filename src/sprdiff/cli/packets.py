"""``sprdiff packets`` and ``sprdiff join``: files become packets for links that lose some, and packets
become files."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.fields import option
from ..common.files import STDIO, check_output, describe, read_bytes, write_atomic
from ..errors import OutputError, PacketError
from ..options import CodecOptions, DecodeOptions, EncodeOptions
from .fields import takes
from .files import explain, lazy_codec, read_given, say
from .options import NetworkOptions, TargetOptions, WritingOptions

if TYPE_CHECKING:
    from ..codec import Codec
    from ..packets import Received

SPRD = ".sprd"
_MOST_LISTED = 40
"""How many missing numbers a message lists."""
_MOST_READ = 2**24
"""The largest file in bytes that is searched for packets."""


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How ``sprdiff packets`` cuts a file."""

    file: str = option("Picture or .sprd file; - is stdin.", argument=True, metavar="IN")
    output: str | None = option(
        "Folder for the packets; --text: one file.", None, flag="-o --output", metavar="DIR"
    )
    payload: int | None = option("Most bytes of a whole packet; --text: characters of a line.", None, low=1)
    channel: str | None = option("A channel whose payload is known.", None)
    parity: int | None = option("Packets to add; any so many may be lost.", None, low=0, high=254)
    count: int | None = option("Packets in all; what the data leave is parity.", None, low=1, high=255)
    fit: bool = option("Code the picture so that it fills its packets.", False)
    only: str | None = option("Write only the packets of these numbers.", None, metavar="3,5")
    text: str | None = option("Write lines of text: base64url or base91.", None)


@takes
def packets(given: Cutting, target: TargetOptions, networks: NetworkOptions, writing: WritingOptions) -> int:
    """Cut a picture or an .sprd file into packets, with parity for those that a link loses."""
    from ..packets import stream_id, to_packets

    options = target.encoding()
    size = _check(given)
    data, coded = read_given(given.file, networks.codec)
    if not coded:
        fit = (size, given.count, given.parity) if given.fit else None
        data = _encoded(data, networks.codec, options, fit)
    elif given.fit or options != EncodeOptions():
        raise typer.BadParameter(f"{given.file} is coded already: targets and --fit are for pictures")
    parity = given.parity if given.count is None else _left(len(data), size, given.count)
    made = to_packets(data, payload=size, parity=parity or 0)
    _write(given, data, _chosen(made, given.only), force=writing.force)
    if not writing.quiet and given.output not in (None, STDIO):
        sizes = f"{len(made)} packets of {len(made[0])} bytes, {made[0][4]} of them parity"
        typer.echo(
            f"{given.file} -> {given.output}: stream {stream_id(data):03x}, {len(data)} bytes in {sizes}"
        )
    return 0


def _check(given: Cutting) -> int:
    """Check options against each other; return the size of a packet in bytes."""
    if given.count is not None and given.parity is not None and not given.fit:
        raise typer.BadParameter("--count and --parity exclude each other without --fit")
    if given.output is None and given.text is None:
        raise typer.BadParameter("packets need -o DIR (or --text, whose lines may go to standard output)")
    if given.only is not None:
        _numbers(given.only)
    return _payload(given.payload, given.channel, given.text)


def _write(given: Cutting, data: bytes, chosen: dict[int, bytes], *, force: bool) -> None:
    """Write packets as lines of a text or as files of a folder."""
    from ..packets import stream_id, to_line

    if given.text is not None:
        lines = [to_line(packet, given.text) + "\n" for packet in chosen.values()]
        write_atomic(given.output or STDIO, "".join(lines).encode(), force=force)
        return
    stem = f"{'stdin' if given.file == STDIO else Path(given.file).stem}-{stream_id(data):03x}"
    named = {f"{stem}-{number:03d}.pkt": packet for number, packet in chosen.items()}
    _write_all(named, str(given.output), force=force)


@takes
def join(
    files: Annotated[
        list[str], typer.Argument(metavar="IN...", help="Packets, lines of text, or folders of either.")
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="OUT", help="Picture or .sprd file; a folder for several streams."
        ),
    ],
    sprd: Annotated[
        bool, typer.Option("--sprd", help="Write .sprd files into a folder, not pictures.")
    ] = False,
    *,
    networks: NetworkOptions,
    writing: WritingOptions,
) -> int:
    """Join packets to pictures or .sprd files; with too few of them, to the beginnings that they hold."""
    from ..packets import from_packets

    status = 0
    try:
        streams = from_packets(_gathered(files))
    except PacketError as error:
        say("error", str(error))
        streams, status = error.received, 1
    if not streams:
        if status == 0:
            raise PacketError("there is no packet among these files")
        return status
    targets = _targets(streams, output, ".sprd" if sprd else ".png")
    codec = lazy_codec(networks.codec)
    for stream in streams:
        try:
            _save(stream, targets[stream.id], codec, force=writing.force)
        except Exception as error:  # it concerns one stream; the others may be fine
            say("error", f"stream {stream.id}: {explain(error)}")
            status = 1
            continue
        if not writing.quiet and targets[stream.id] != STDIO:
            part = "whole" if stream.whole else "in part"
            typer.echo(f"stream {stream.id} -> {targets[stream.id]}: {part}, {len(stream.data)} bytes")
    return status


def _payload(payload: int | None, channel: str | None, text: str | None) -> int:
    """Return the size of a packet in bytes from the options."""
    from ..packets import CHANNELS, CODES, payload_of_line

    if (payload is None) == (channel is None):
        raise typer.BadParameter(f"give --payload N or --channel, one of {', '.join(CHANNELS)}")
    if channel is not None and channel not in CHANNELS:
        raise typer.BadParameter(f"{channel} is not one of {', '.join(CHANNELS)}")
    if text is not None and text not in CODES:
        raise typer.BadParameter(f"{text} is not one of {', '.join(CODES)}")
    if text is None:
        return payload if payload is not None else CHANNELS[str(channel)].payload
    characters = payload if payload is not None else CHANNELS[str(channel)].characters
    if characters is None:
        raise typer.BadParameter(f"{channel} carries no text")
    if channel is not None and text not in CHANNELS[channel].codes:
        raise typer.BadParameter(f"{channel} does not carry every character of {text}")
    return payload_of_line(characters, text)


def _numbers(only: str) -> list[int]:
    if not re.fullmatch(r"\d{1,3}(,\d{1,3})*", only):
        raise typer.BadParameter(f"--only takes numbers such as 3,5, not {only}")
    return sorted({int(number) for number in only.split(",")})


def _chosen(made: Sequence[bytes], only: str | None) -> dict[int, bytes]:
    """Return the packets of the numbers that ``--only`` names, or all."""
    numbers = range(len(made)) if only is None else _numbers(only)
    if max(numbers) >= len(made):
        raise PacketError(f"there is no packet {max(numbers)}: the numbers are 0 to {len(made) - 1}")
    return {number: made[number] for number in numbers}


def _left(size: int, payload: int, count: int) -> int:
    """Return how many of `count` packets are left for parity."""
    from ..packets import data_packets

    needed = data_packets(size, payload)
    if needed > count:
        raise PacketError(f"{size} bytes take {needed} packets of {payload} bytes, more than --count {count}")
    return count - needed


def _encoded(
    picture: bytes,
    networks: CodecOptions,
    options: EncodeOptions,
    fit: tuple[int, int | None, int | None] | None,
) -> bytes:
    """Return the file of a picture; with `fit` (payload, count, parity) it fills its packets."""
    from ..codec import Codec
    from ..packets import data_packets
    from ..packets.packet import OVERHEAD

    if fit is not None:
        data_packets(1, fit[0])  # refuses a payload without room for data
    codec = Codec.from_options(networks)
    if fit is None:
        return codec.encode_with(picture, options)
    payload, count, parity = fit
    if count is None:
        pieces = data_packets(len(codec.encode_with(picture, options)), payload, parity or 0)
    else:
        pieces = count - (parity or 0)
    if pieces < 1:
        raise PacketError(f"of {count} packets, {parity} of parity leave none for data")
    return codec.encode(picture, max_bytes=pieces * (payload - OVERHEAD))


def _write_all(named: dict[str, bytes], folder: str, *, force: bool) -> None:
    """Write all files, or none if one exists already."""
    _make_folder(folder)
    for name in named:
        check_output(Path(folder) / name, force=force)
    for name, data in named.items():
        write_atomic(Path(folder) / name, data, force=force)


def _gathered(files: Sequence[str]) -> list[bytes | str]:
    """Return the packets and lines in all files and in the files of folders; warn of everything else."""
    from ..packets.packet import parse_packet
    from ..packets.text import from_line

    found: list[bytes | str] = []
    for path, raw in _contents(files):
        if parse_packet(raw) is not None:
            found.append(raw)
            continue
        lines = [(at, line) for at, line in enumerate(_lines(raw), 1) if line.strip()]
        good = [line for _, line in lines if from_line(line) is not None]
        found += good
        if not good:
            say("warning", f"{path} is no packet, or damaged")
            continue
        for at, line in lines:
            if from_line(line) is None:
                say("warning", f"{path}: line {at} is no packet, or broken")
    return found


def _make_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {describe(error)}") from error


def _contents(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each file and its bytes; a file of a folder that cannot be read is passed over with a warning."""
    for name in files:
        folder = Path(name)
        if not folder.is_dir():
            yield name, _read(name)
            continue
        try:
            paths = sorted(str(path) for path in folder.iterdir() if path.is_file())
        except OSError as error:
            raise PacketError(f"{name} cannot be read: {describe(error)}") from error
        for path in paths:
            try:
                raw = _read(path)
            except PacketError as error:
                say("warning", str(error))
                continue
            yield path, raw


def _read(path: str) -> bytes:
    raw = read_bytes(path, PacketError, lambda stream: stream.read(_MOST_READ + 1))
    if len(raw) > _MOST_READ:
        raise PacketError(f"{path} is larger than {_MOST_READ // 2**20} MiB, it is not searched for packets")
    return raw


def _lines(raw: bytes) -> list[str]:
    """Return the lines of a text; an empty list for anything else.

    Chats put names before the packets in whatever encoding; the packets themselves are ASCII.
    """
    utf16 = raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if b"\0" in raw and not utf16:
        return []
    return raw.decode("utf-16" if utf16 else "utf-8", "replace").splitlines()


def _targets(streams: Sequence[Received], output: str, extension: str) -> dict[str, str]:
    """Return the output of each stream."""
    single = output == STDIO or (Path(output).suffix != "" and not Path(output).is_dir())
    if single and len(streams) > 1:
        ids = ", ".join(stream.id for stream in streams)
        raise PacketError(f"there are packets of {len(streams)} streams ({ids}): -o DIR takes them all")
    if single:
        return {streams[0].id: output}
    if any(stream.data for stream in streams):  # else nothing will be written
        _make_folder(output)
    return {stream.id: str(Path(output) / (stream.id + extension)) for stream in streams}


def _save(stream: Received, target: str, codec: Callable[[], Codec], *, force: bool) -> None:
    """Write a stream in the format of the target's extension; warn of what is missing."""
    if not stream.data:
        raise PacketError(f"{_missing(stream)}; without packet 0, the first, nothing can be shown")
    check_output(target, force=force)
    if not stream.whole:
        say("warning", f"stream {stream.id} is cut off: {_missing(stream)}")
    if Path(target).suffix.lower() == SPRD:
        write_atomic(target, stream.data, force=force)
        return
    from ..imageio.save import output_format, save_image

    output_format(target)
    decoded = codec().decode_with(stream.data, DecodeOptions(partial=not stream.whole))
    save_image(target, decoded.image, decoded.text, force=force)


def _missing(stream: Received) -> str:
    """Say which packets are missing, and how many of them would complete the file."""
    numbers = ",".join(map(str, stream.missing[:_MOST_LISTED]))
    more = f" and {len(stream.missing) - _MOST_LISTED} more" if len(stream.missing) > _MOST_LISTED else ""
    if len(stream.missing) == 1:
        return f"packet {numbers} is missing"
    which = f"packets {numbers}{more} are missing"
    if stream.needed == len(stream.missing):
        return which
    some = "any of them" if stream.needed == 1 else f"any {stream.needed} of them"
    return f"{which}, {some} would complete it"
