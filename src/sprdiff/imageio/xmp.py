"""What a decoded picture says to machines about its source: IPTC's digital source type, in an XMP packet.

Above realism 0 a network invents part of the picture, so that it is a composite of what the file says and of
media made by a trained algorithm. IPTC has a type for this (cv.iptc.org/newscodes/digitalsourcetype), which
programs and sites read to label pictures. The coarse picture of realism 0 says nothing of the kind.

    source_info ─► Image.info["xmp"] ─► with_xmp ─► Image.save

The packet travels in `Image.info` because Pillow copies that to whatever is made of an image. Pillow does not
write it by itself: a writer has to be told, and this is what `XmpImage` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
XMP = "xmp"
"""Pillow's name of an XMP packet, in `Image.info` and among the options of `Image.save`."""
_PNG_KEYWORD = b"XML:com.adobe.xmp\0"
_TIFF_TAG = 700


def source_xmp() -> bytes:
    """Return the XMP packet which says that a picture is partly invented; `xmp.ts` of the page in the browser
    has the same."""
    # Packets in files with checksums are marked as read-only ("r"), because nobody can change them in place.
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    ).encode()


def source_info(realism: float) -> dict[str, bytes]:
    """Return what `Image.info` of a picture gets that was decoded with this realism; empty at 0."""
    return {XMP: source_xmp()} if realism > 0 else {}


def with_xmp(options: Mapping[str, Any], packet: bytes | None) -> dict[str, Any]:
    """Return options of `Image.save` by which any format that can hold an XMP packet gets it.

    PNG and TIFF take it in ways of their own, and all other writers as the option ``xmp``. Writers ignore
    options that they do not know, so the format need not be known here. What the options say already stays: a
    packet of the caller's own, none if ``xmp`` is None, and the tags of a TIFF.
    """
    packet = options.get(XMP, packet)
    if not packet:  # said so that no writer looks into `info` (JPEG, Pillow 11.0); None would not do for WebP
        return {**options, XMP: b""}
    data = packet.encode() if isinstance(packet, str) else packet
    made = {**options, XMP: data, "pnginfo": _png_text(options.get("pnginfo"), data)}
    if "exif" not in made:  # a TIFF takes either, and the caller's own must not be lost
        made.setdefault("tiffinfo", {_TIFF_TAG: data})
    return made


def _png_text(given: PngInfo | None, packet: bytes) -> PngInfo:
    """Return the chunks of a PNG with a packet, unless they have one; those that are given do not change."""
    made = PngInfo()
    made.chunks = [] if given is None else list(given.chunks)
    if not any(kind == b"iTXt" and data.startswith(_PNG_KEYWORD) for kind, data, *_ in made.chunks):
        made.add(b"iTXt", _PNG_KEYWORD + bytes(4) + packet)  # not compressed, of no language
    return made


class XmpImage(Image.Image):
    """An image whose `save` writes the XMP packet in its `info`; Pillow's own images drop it.

    What is made of it, as by `convert` or `resize`, is an image of Pillow's own and has it in `info` only.
    """

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Save like `Image.save`; ``xmp=None`` leaves the packet out, and ``xmp=...`` takes another."""
        self.load()  # a file that is only open does not have its packet yet
        super().save(fp, format, **with_xmp(params, self.info.get(XMP)))


def with_source(image: Image.Image, realism: float) -> XmpImage:
    """Return an image, which was decoded with this realism, as one that says so when it is saved.

    Both share their pixels and `info`.
    """
    made = XmpImage()
    vars(made).update(vars(image))
    made.info.update(source_info(realism))
    return made
