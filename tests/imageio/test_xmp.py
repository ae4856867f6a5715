"""Tests of the XMP packet by which decoded pictures say that they are partly invented, in every format."""

from __future__ import annotations

import io
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from conftest import photo
from image_helpers import saved
from source_helpers import COMPOSITE, source_type, stated
from sprdiff.imageio.save import FORMATS, encode_image
from sprdiff.imageio.xmp import XmpImage, source_info, source_xmp, with_source

PAGE = Path(__file__).parents[2] / "web" / "src" / "page" / "xmp.ts"
CARRIERS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def decoded(realism: float, mode: str = "RGB") -> XmpImage:
    return with_source(Image.fromarray(photo(20, 30)).convert(mode), realism)


def container(kind: str, packet: bytes) -> bytes:
    """Return what a file of this format holds if it holds the packet, by the third part of the XMP
    specification."""
    if kind == "PNG":
        data = b"XML:com.adobe.xmp\0\0\0\0\0" + packet
        return struct.pack(">I", len(data)) + b"iTXt" + data
    if kind == "JPEG":
        data = b"http://ns.adobe.com/xap/1.0/\0" + packet
        return b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data
    return b"XMP " + struct.pack("<I", len(packet)) + packet


def test_the_packet_states_the_type_and_nothing_else() -> None:
    packet = source_xmp().decode()
    assert packet.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta ')
    assert packet.endswith('</x:xmpmeta><?xpacket end="r"?>')
    assert stated(source_xmp()) == COMPOSITE
    assert len(re.findall(r"<[A-Za-z]", packet)) == 4  # meta, RDF, description, type


def test_the_page_in_the_browser_writes_the_same_packet() -> None:
    source = PAGE.read_text("utf-8")
    (address,) = re.findall(r'SOURCE_TYPE =\s+"(.*)";', source)
    (body,) = re.findall(r"return \[(.*?)\]\.join", source, re.S)
    lines = [line.strip()[1:-2] for line in body.strip().splitlines()]
    made = "".join(lines).replace("${SOURCE_TYPE}", address).replace(r"\ufeff", "\ufeff")
    assert made.encode() == source_xmp()


@pytest.mark.parametrize(("realism", "wanted"), [(0, None), (0.0, None), (1e-9, COMPOSITE), (1, COMPOSITE)])
def test_only_above_realism_0_is_a_picture_invented(realism: float, wanted: str | None) -> None:
    assert set(source_info(realism)) == ({"xmp"} if wanted else set())
    for kind in CARRIERS:
        assert source_type(encode_image(decoded(realism), kind)) == wanted
        assert source_type(saved(decoded(realism), kind)) == wanted


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_packet_is_once_where_the_format_wants_it(kind: str, mode: str) -> None:
    for file in (encode_image(decoded(1, mode), kind, {"sprdiff": "text"}), saved(decoded(1, mode), kind)):
        assert file.count(container(kind, source_xmp())) == file.count(COMPOSITE.encode()) == 1
    assert COMPOSITE.encode() not in encode_image(decoded(0, mode), kind)


@pytest.mark.parametrize("kind", sorted(set(FORMATS.values())))
def test_the_pixels_are_the_same_with_and_without(kind: str) -> None:
    one, other = (Image.open(io.BytesIO(encode_image(decoded(realism), kind))) for realism in (0, 1))
    assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_and_profile_of_the_caller_stay(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    file = saved(decoded(1), kind, exif=exif, icc_profile=PROFILE)
    assert source_type(file) == COMPOSITE
    with Image.open(io.BytesIO(file)) as image:
        assert image.getexif()[0x010E] == "a description" and image.info["icc_profile"] == PROFILE


def test_tags_of_the_caller_stay_in_a_tiff() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    for options in ({"exif": exif}, {"tiffinfo": {0x010E: "a description"}}):
        with Image.open(io.BytesIO(saved(decoded(1), "TIFF", **options))) as image:
            assert image.getexif()[0x010E] == "a description"


def test_text_of_the_caller_stays_in_a_png() -> None:
    info = PngInfo()
    info.add_text("Title", "mine")
    for _ in range(2):  # the caller's object does not collect packets
        file = saved(decoded(1), "PNG", pnginfo=info)
        with Image.open(io.BytesIO(file)) as image:
            assert image.info["Title"] == "mine"
        assert file.count(b"XML:com.adobe.xmp") == 1 and source_type(file) == COMPOSITE
    assert len(info.chunks) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("own", [b"<mine/>", None, b""])
def test_what_the_caller_says_about_xmp_wins(kind: str, own: bytes | None) -> None:
    with Image.open(io.BytesIO(saved(decoded(1), kind, xmp=own))) as image:
        image.load()
        assert image.info.get("xmp", b"") == (own or b"")


def test_a_packet_of_the_caller_in_the_text_of_a_png_wins() -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<mine/>")
    file = saved(decoded(1), "PNG", pnginfo=info)
    assert b"<mine/>" in file and file.count(b"XML:com.adobe.xmp") == 1


def test_what_is_made_of_an_image_has_the_packet_in_info() -> None:
    image = decoded(1)
    made: tuple[Image.Image, ...] = (image.convert("L"), image.resize((9, 9)), image.crop((1, 1, 5, 5)))
    assert all(stated(one.info["xmp"]) == COMPOSITE for one in made)
    assert source_type(encode_image(made[0], "PNG")) == COMPOSITE
    assert source_type(saved(made[0], "WEBP", xmp=made[0].info["xmp"])) == COMPOSITE


def test_an_image_with_a_source_is_an_image_like_any_other() -> None:
    image, plain = decoded(1), Image.fromarray(photo(20, 30))
    again = pickle.loads(pickle.dumps(image))  # noqa: S301
    assert image.tobytes() == plain.tobytes() == again.tobytes() == image.copy().tobytes()
    assert (image.mode, image.size, again.info) == (plain.mode, plain.size, image.info)
    assert source_type(saved(again)) == COMPOSITE
