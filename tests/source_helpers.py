"""What a picture's file says about its source, as a program reads it that knows IPTC and not us."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image

COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "ext": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}


def source_type(file: bytes | Path | str) -> str | None:
    """Return the digital source type of a PNG, JPEG, WebP, AVIF or TIFF file; None if it states none."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        image.load()
        return None if "xmp" not in image.info else stated(image.info["xmp"])


def stated(packet: bytes) -> str | None:
    """Return the digital source type in an XMP packet."""
    return ET.fromstring(packet).findtext("rdf:RDF/rdf:Description/ext:DigitalSourceType", namespaces=SPACES)
