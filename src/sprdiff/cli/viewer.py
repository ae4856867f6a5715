"""``sprdiff link``, ``sprdiff qr`` and ``sprdiff viewer``: photographs that open in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.files import check_output, write_atomic
from ..errors import ViewerError
from ..options import CodecOptions, EncodeOptions
from .fields import takes
from .files import read_given, tell
from .options import NetworkOptions, TargetOptions, Weights, WritingOptions


def _page(address: str | None) -> str | None:
    from ..viewer.links import check_viewer

    try:
        return None if address is None else check_viewer(address)
    except ViewerError as error:
        raise typer.BadParameter(str(error)) from error


Input = Annotated[str, typer.Argument(metavar="IN", help="Picture or .sprd file; - is stdin.")]
ADDRESS = typer.Option("--viewer", metavar="URL", callback=_page, help="Address of the page that opens it.")


@takes
def link(
    file: Input, viewer: Annotated[str, ADDRESS], target: TargetOptions, networks: NetworkOptions
) -> int:
    """Print a link that is a photograph: its fragment, which no server sees, holds the whole file."""
    from ..viewer.links import to_link

    tell(to_link(_file(file, target.encoding(), networks.codec, None), viewer))
    return 0


@takes
def qr(
    file: Input,
    output: Annotated[str, typer.Argument(metavar="OUT", help="Code, .png or .svg; - is stdout.")],
    viewer: Annotated[str | None, ADDRESS] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The code holds the file itself, not a link.")] = False,
    *,
    target: TargetOptions,
    networks: NetworkOptions,
    writing: WritingOptions,
) -> int:
    """Write one QR code that opens a photograph, or that is one; with no target stated the file is made to
    fit."""
    from ..viewer.links import KINDS, most_bytes, to_code

    if (viewer is None) is not raw:
        raise typer.BadParameter("a code needs either --viewer URL or --raw")
    kind = "png" if output == "-" else Path(output).suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise typer.BadParameter(f"{output} is neither .png nor .svg")
    check_output(output, force=writing.force)
    data = _file(file, target.encoding(), networks.codec, most_bytes(viewer))
    write_atomic(output, to_code(data, viewer, kind), force=writing.force)
    if not writing.quiet and output != "-":
        tell(f"{file} -> {output}: {len(data)} bytes")
    return 0


@takes
def viewer(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for a web server to give out.")],
    weights: Weights = None,
    *,
    writing: WritingOptions,
) -> int:
    """Write the page that opens files in a browser, with its weights, for any web server."""
    from ..viewer.bundle import make_bundle
    from ..viewer.page import page_files, write_site

    page_files()  # a page that is not built fails before any work
    bundle = make_bundle(weights)
    names = write_site(folder, bundle, force=writing.force)
    if not writing.quiet:
        tell(f"{folder}: {len(names)} files, weights of {len(bundle.data)} bytes")
    return 0


def _file(name: str, options: EncodeOptions, networks: CodecOptions, most: int | None) -> bytes:
    """Return a given ``.sprd`` file, or that of a picture; without a target it has at most `most` bytes."""
    stated = options != EncodeOptions()
    data, coded = read_given(name, networks)
    if coded:
        if stated:
            raise typer.BadParameter(f"{name} is coded already: targets are for pictures")
        return data
    from ..codec import Codec

    codec = Codec.from_options(networks)
    made = codec.encode_with(data, options)
    return made if stated or most is None or len(made) <= most else codec.encode(data, max_bytes=most)
