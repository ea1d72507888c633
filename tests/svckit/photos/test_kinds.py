"""A file that is no photo is told what it is."""

import gzip
import io
import json
import tarfile
import zipfile

import pytest
from PIL import Image

from svckit.photos.kinds import Format, described, format_of
from svckit.photos.photo import Limits, Photo, PhotoError, PhotoReason

LIMITS = Limits(10**6, 10**6, 10)


def archive(kind):
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as opened:
            opened.writestr("car.jpg", b"x")
    else:
        with tarfile.open(fileobj=file, mode="w") as opened:
            opened.addfile(tarfile.TarInfo("car.jpg"))
    return file.getvalue()


def iso(brand, *others):
    body = b"ftyp" + brand + b"\0\0\0\0" + b"".join(others)
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(100)


OTHERS = {
    b"<!DOCTYPE html><html><body>Not found</body></html>": "HTML",
    b"\xef\xbb\xbf\n <!-- moved --> <HTML>": "HTML",
    b"<!doctype html SYSTEM 'about:legacy-compat'>": "HTML",
    b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0'>\n<html xmlns='x'>": "HTML",
    b"<br />\n<b>Warning</b>: readfile(car.jpg): failed to open": "HTML",
    "\ufeff<!DOCTYPE html><html>\u00e0</html>".encode("utf-16-le"): "HTML",
    "\ufeffvoiture \u00e0 vendre".encode("utf-16-be"): "text",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG",
    b"<?xml version='1.0'?><!-- drawn -->\n<svg width='1'>": "an SVG",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "XML",
    b'{"error": "not found"}': "JSON",
    json.dumps([1, 2]).encode(): "JSON",
    b"%PDF-1.7\n%\xe2\xe3": "a PDF",
    archive("zip"): "a ZIP archive",
    archive("tar"): "a tar archive",
    gzip.compress(b"x"): "compressed with gzip",
    iso(b"isom", b"isom", b"avc1"): "a video (MP4)",
    iso(b"mp42"): "a video (MP4)",
    iso(b"mif1", b"miaf"): "a HEIF whose pictures are neither HEIC nor AVIF",
    iso(b"avci", b"mif1"): "a HEIF whose pictures are neither HEIC nor AVIF",
    iso(b"qt  "): "a video (QuickTime)",
    iso(b"crx ", b"isom"): "a camera's raw file (CR3)",
    b"\x1a\x45\xdf\xa3" + bytes(40): "a video (Matroska or WebM)",
    b"RIFF\x04\0\0\0AVI LIST": "a video (AVI)",
    b"RIFF\x04\0\0\0WAVEfmt ": "an audio file (WAV)",
    b"II*\0" + bytes(40): "a TIFF, or a camera's raw file",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL",
    b"BMW X5 2019": "text",
    b"make, model and year, please": "text",
    "voiture à vendre".encode(): "text",
    b"/9j/4AAQSkZJRgABAQAAAQ": "a photo in base64",
    b"data:image/jpeg;base64,/9j/4AAQ": "a data: URL",
    b"https://example.com/car.jpg\n": "a URL",
    bytes(5000): "nothing but zero bytes",
    b"\0\x05\x16\x07\0\x02": "what macOS stores beside a file",
    b"version https://git-lfs.github.com/spec/v1\n": "a pointer of Git LFS",
    b"\x80\x81\x82\x83\x84": "of a type that is not known here, and begins with 80 81 82 83 84",
}


@pytest.mark.parametrize(("content", "name"), OTHERS.items(), ids=map(str, range(len(OTHERS))))
def test_what_it_is_is_said(content, name):
    assert format_of(content) is None
    with pytest.raises(PhotoError) as caught:
        Photo.open(content, LIMITS)
    assert caught.value.reason == PhotoReason.IMAGE_FORMAT
    assert caught.value.description.startswith(f"the file is {name}")
    assert caught.value.description.endswith("; photos are JPEG, PNG, WebP, HEIC, AVIF, BMP and GIF")


@pytest.mark.parametrize("form", ["TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "PDF", "EPS"])
def test_of_pillow_s_other_formats_too(form, encode):
    content = encode(Image.new("RGB", (20, 10)), form)
    assert format_of(content) is None
    assert described(content)


@pytest.mark.parametrize(
    ("form", "known"),
    [
        ("JPEG", Format.JPEG),
        ("PNG", Format.PNG),
        ("WEBP", Format.WEBP),
        ("HEIF", Format.HEIC),
        ("AVIF", Format.AVIF),
        ("BMP", Format.BMP),
        ("GIF", Format.GIF),
    ],
)
def test_every_format_that_is_read_is_recognised(form, known, encode):
    assert format_of(encode(Image.new("RGB", (20, 10)), form)) is known


@pytest.mark.parametrize(
    ("brands", "known"),
    [
        ((b"mif1", b"mif1", b"heic"), Format.HEIC),
        ((b"mif1", b"avif", b"miaf"), Format.AVIF),
        ((b"heix",), Format.HEIC),
        ((b"msf1", b"hevc"), Format.HEIC),
        ((b"avis", b"mif1"), Format.AVIF),
    ],
)
def test_of_iso_media_files_the_brands_tell(brands, known):
    assert format_of(iso(*brands)) is known
