"""HEIC and AVIF: decoded as their own boxes say, in a process apart, which is given so much time and memory."""

import io
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from svckit.photos import apart, iso_media
from svckit.photos.kinds import Format
from svckit.photos.photo import Limits, Photo, PhotoError, PhotoReason

LIMITS = Limits(max_bytes=20_000_000, max_pixels=25_000_000, max_aspect=10)
FORMS = ["HEIF", "AVIF"]
FORMATS = {"HEIF": Format.HEIC, "AVIF": Format.AVIF}


def read(content, limits=LIMITS):
    return np.asarray(Photo.open(content, limits).decode())


def refusal(content, limits=LIMITS):
    with pytest.raises(PhotoError) as caught:
        read(content, limits)
    return caught.value.reason


def outcome(content, limits=LIMITS):
    """Return the shape of the pixels, or why there are none."""
    try:
        return read(content, limits).shape
    except PhotoError as error:
        return error.reason


def boxes(content):
    """Yield the name and the whole of each box."""
    place = 0
    while place < len(content):
        (size,) = struct.unpack_from(">I", content, place)
        yield content[place + 4 : place + 8], content[place : place + size]
        place += size


def box(name, body):
    return struct.pack(">I", 8 + len(body)) + name + body


def with_property(content, added):
    """Return a file with one more property of its only picture, for example the angle that it is turned by (`irot`)."""
    parts = dict(boxes(content))
    inside = dict(boxes(parts[b"meta"][12:]))
    properties = dict(boxes(inside[b"iprp"][8:]))
    count = len(list(boxes(properties[b"ipco"][8:])))
    ipco = box(b"ipco", properties[b"ipco"][8:] + added)
    ipma = bytearray(properties[b"ipma"])
    assert ipma[12:16] == struct.pack(">I", 1), "of one item"
    ipma[18] += 1
    ipma = box(b"ipma", bytes(ipma[8:]) + bytes([0x80 | (count + 1)]))
    inside[b"iprp"] = box(b"iprp", ipco + ipma)
    meta = box(b"meta", bytes(4) + b"".join(inside.values()))
    grown = len(meta) - len(parts[b"meta"])
    start = len(parts[b"ftyp"]) + len(parts[b"meta"]) + 8  # of the data
    moved = re.sub(re.escape(struct.pack(">I", start)), struct.pack(">I", start + grown), meta)
    assert moved != meta
    return parts[b"ftyp"] + moved + parts[b"mdat"]


def orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("form", FORMS)
class TestBoth:
    def test_are_read(self, form, scene, encode):
        assert np.abs(read(encode(scene, form, quality=90)).astype(int) - scene).mean() < 3

    def test_are_refused_before_they_are_decoded_if_they_are_too_large(self, form, scene, encode):
        content = encode(scene, form)
        assert read(content, Limits(10**6, 96 * 72, 10)).shape == scene.shape
        assert refusal(content, Limits(10**6, 96 * 72 - 1, 10)) == PhotoReason.IMAGE_TOO_MANY_PIXELS

    @pytest.mark.parametrize("missing", [1, 20, 200])
    def test_that_are_cut_off_are_refused(self, form, missing, scene, encode):
        assert refusal(encode(scene, form)[:-missing]) == PhotoReason.IMAGE_TRUNCATED

    def test_that_are_nothing_but_their_beginning_are_refused(self, form, scene, encode):
        content = encode(scene, form)
        for kept in (12, 40, 100, 300):
            assert refusal(content[:kept]) in (PhotoReason.IMAGE_TRUNCATED, PhotoReason.IMAGE_CORRUPT)

    def test_of_several_pictures_give_the_first(self, form, scene, encode):
        second = Image.fromarray(255 - scene)
        if form == "AVIF":
            content = encode(scene, form, save_all=True, append_images=[second])
        else:
            file = pillow_heif.from_pillow(Image.fromarray(scene))
            file.add_from_pillow(second)
            file.save(out := io.BytesIO(), quality=90)
            content = out.getvalue()
        assert np.abs(read(content).astype(int) - scene).mean() < 3

    def test_with_an_alpha_channel_are_shown_over_white(self, form, scene, encode):
        alpha = np.zeros(scene.shape[:2], np.uint8)
        alpha[:, 48:] = 255
        pixels = read(encode(np.dstack([scene, alpha]), form, quality=90)).astype(int)
        assert (pixels[:, :40] > 250).all()
        assert np.abs(pixels[:, 56:] - scene[:, 56:]).mean() < 4

    def test_whose_alpha_channel_is_zero_everywhere_have_none(self, form, scene, encode):
        clear = np.dstack([scene, np.zeros(scene.shape[:2], np.uint8)])
        assert np.abs(read(encode(clear, form, quality=90)).astype(int) - scene).mean() < 4

    def test_are_turned_once(self, form, scene, encode):
        """The file's own box turns it a quarter to the left."""
        content = with_property(encode(scene, form, quality=90), box(b"irot", b"\1"))
        assert np.abs(read(content).astype(int) - np.rot90(scene)).mean() < 3

    def test_are_not_turned_by_exif(self, form, scene, encode):
        """Which is for information only in these formats (ISO/IEC 23008-12)."""
        tiff = orientation(6).tobytes()[6:]
        content = with_exif(form, scene, tiff, encode)
        assert b"Exif" in content
        assert tiff in content
        assert np.abs(read(content).astype(int) - scene).mean() < 3

    @pytest.mark.parametrize("exif", [b"junk" * 9, b"Exif\0\0", b"\xff" * 200])
    def test_are_not_refused_for_their_metadata(self, form, exif, scene, encode):
        assert np.abs(read(with_exif(form, scene, exif, encode)).astype(int) - scene).mean() < 3

    def test_do_not_stop_others_with_bytes_changed(self, form, scene, encode):
        """Pixels or PhotoError, whatever is sent; and the next photo is read."""
        content = encode(scene, form)
        rng = np.random.default_rng(5)
        for _ in range(40):
            changed = bytearray(content)
            for place in rng.integers(12, len(content), rng.integers(1, 9)):
                changed[place] = rng.integers(256)
            assert outcome(bytes(changed))
        assert read(content).shape == scene.shape

    def test_that_take_too_long_end(self, form, encode):
        """A time that no photo of these is decoded in; the CPU is what is measured."""
        content = encode(Image.effect_noise((512, 512), 90).convert("RGB"), form)
        with pytest.raises(PhotoError, match="takes more time or memory") as caught:
            apart.decode(FORMATS[form], content, 25_000_000, cpu_s=0.001)
        assert caught.value.reason == PhotoReason.IMAGE_TOO_COMPLEX
        assert read(content).shape == (512, 512, 3), "the next one has a process of its own"


def with_exif(form, pixels, tiff, encode):
    """Return a photo whose EXIF was written by somebody else: these writers would make boxes of it, and refuse what is none."""
    exif = Image.Exif()
    exif[0x010E] = "x" * 200
    whole = encode(pixels, form, quality=90, exif=exif)
    place = whole.index(exif.tobytes()[6:20])
    return whole[:place] + tiff + whole[place + len(tiff) :]


class TestBombs:
    def test_memory_ends_where_the_limit_is(self):
        """A header says 64 x 64, the picture behind it has 16,384 a side: 400 MB."""
        content = Path(__file__).with_name("bomb.avif").read_bytes()
        assert len(content) < 20_000
        assert b"ispe\0\0\0\0" + struct.pack(">II", 64, 64) in content
        assert refusal(content, Limits(10**6, 10**6, 10)) in (PhotoReason.IMAGE_CORRUPT, PhotoReason.IMAGE_TOO_COMPLEX)

    @pytest.mark.parametrize("form", FORMS)
    def test_a_small_header_does_not_hide_a_large_picture(self, form, encode):
        """2,000 pixels a side behind a header that says 64: no more than 64 come out."""
        content = encode(Image.new("RGB", (2000, 2000), (9, 99, 199)), form)
        large, small = (b"ispe\0\0\0\0" + struct.pack(">II", side, side) for side in (2000, 64))
        assert content.count(large) == 1
        assert outcome(content.replace(large, small)) in ((64, 64, 3), PhotoReason.IMAGE_CORRUPT)

    @pytest.mark.parametrize("form", FORMS)
    def test_memory_is_enough_for_a_good_photo(self, form, encode, tmp_path):
        """Of a photo of as many pixels as may be, decoding takes less than the process is given."""
        content = encode(Image.new("RGB", (2000, 2000), (9, 99, 199)), form)
        assert 4 * 4_000_000 < memory_of(content, form, 4_000_000, tmp_path) < 16 * 4_000_000

    def test_a_grid_of_more_tiles_than_it_shows(self, encode):
        """A picture of 100 x 100 pixels, put together of 16 tiles of 512."""
        image = pillow_heif.from_pillow(Image.new("RGB", (2048, 2048), (9, 99, 199)))
        image.save(out := io.BytesIO(), tile_size=512, enc_params={"preset": "ultrafast"})
        content = out.getvalue()
        grid, size = b"\3\3" + struct.pack(">HH", 2048, 2048), b"ispe\0\0\0\0" + struct.pack(">II", 2048, 2048)
        assert grid in content
        assert content.count(size) == 1
        small = content.replace(grid, b"\3\3" + struct.pack(">HH", 100, 100))
        small = small.replace(size, size[:8] + struct.pack(">II", 100, 100))
        assert outcome(small, Limits(10**6, 10_000, 10)) in ((100, 100, 3), PhotoReason.IMAGE_CORRUPT)

    def test_a_hundred_pictures_cost_as_much_as_the_first(self, scene):
        file = pillow_heif.from_pillow(Image.fromarray(scene))
        for shade in range(100):
            file.add_from_pillow(Image.new("RGB", (64, 64), (shade, shade, shade)))
        file.save(out := io.BytesIO())
        assert read(out.getvalue()).shape == scene.shape


def memory_of(content, form, max_pixels, tmp_path):
    """Return the memory that the process took to decode a photo."""
    file = tmp_path / "photo"
    file.write_bytes(content)
    code = (
        "import pathlib, sys; from svckit.photos.kinds import Format; from svckit.photos.photo import Photo\n"
        "def used(): return 1024 * int(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "content, before = pathlib.Path(sys.argv[1]).read_bytes(), used()\n"
        f"image = Photo.open_here(Format[{FORMATS[form].name!r}], content, {max_pixels}).decode(); image.tobytes()\n"
        "print(used() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


class TestTheProcess:
    def test_that_is_killed_costs_one_photo(self, scene, encode):
        content = encode(scene, "HEIF")
        read(content)
        process = apart._mine.process
        process._popen.kill()
        process._popen.wait()
        assert read(content).shape == scene.shape
        assert apart._mine.process is not process

    def test_that_dies_while_it_decodes_refuses_that_photo(self, scene, encode, monkeypatch):
        content = encode(scene, "HEIF")
        read(content)
        process = apart._mine.process
        monkeypatch.setattr(type(process), "is_usable", True)
        process._popen.kill()
        process._popen.wait()
        assert refusal(content) == PhotoReason.IMAGE_TOO_COMPLEX

    def test_is_one_a_thread_and_ends_with_it(self, scene, encode):
        content, seen = encode(scene, "HEIF"), []

        def decode():
            read(content)
            seen.append(apart._mine.process._popen)

        for _ in range(2):
            thread = threading.Thread(target=decode)
            thread.start()
            thread.join()
        assert seen[0].pid != seen[1].pid
        assert all(popen.poll() is not None for popen in seen)

    def test_is_not_shared_with_a_fork(self, scene, encode):
        read(encode(scene, "HEIF"))
        process = apart._mine.process
        assert process.is_usable
        process._owner = os.getpid() + 1
        assert not process.is_usable

    def test_slow_photos_hold_up_nobody(self, scene, encode):
        """One thread's process is stopped in the middle of a photo; another thread goes on."""
        content, stopped, done = encode(scene, "HEIF"), threading.Event(), threading.Event()
        pids = []

        def slow():
            read(content)
            pids.append(apart._mine.process._popen.pid)
            os.kill(pids[0], 19)  # SIGSTOP
            stopped.set()
            read(content)
            done.set()

        thread = threading.Thread(target=slow)
        thread.start()
        assert stopped.wait(60)
        assert read(content).shape == scene.shape
        assert not done.is_set()
        os.kill(pids[0], 18)  # SIGCONT
        thread.join(60)
        assert done.is_set()


class TestWithoutALibrary:
    def test_heic_is_refused_with_what_to_do(self, scene, encode, monkeypatch):
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(PhotoError, match=r"can't read: pillow-heif is not installed: pip install .*\[heic\]"):
            Photo.open_here(Format.HEIC, encode(scene, "PNG"), 10**6)

    def test_one_with_known_holes_is_not_used(self, scene, encode, monkeypatch):
        monkeypatch.setattr(pillow_heif, "libheif_version", lambda: "1.23.5")
        with pytest.raises(PhotoError, match=r"libheif 1\.23\.5 has known holes"):
            Photo.open_here(Format.HEIC, encode(scene, "PNG"), 10**6)

    def test_avif_needs_pillow_s_own(self, scene, encode, monkeypatch):
        monkeypatch.setattr(iso_media.AvifImagePlugin, "SUPPORTED", False)
        with pytest.raises(PhotoError, match="Pillow was built without it"):
            Photo.open_here(Format.AVIF, encode(scene, "PNG"), 10**6)
