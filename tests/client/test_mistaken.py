"""What people give in place of a photo: they are told what it is, in a line, and never all of it."""

import base64
import io

import pytest
import vmmr
from PIL import Image

FORMS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((200, 150), 80).convert("RGB").save(file, form)
    return file.getvalue()


def heic() -> bytes:
    return b"\0\0\0\x18ftypheic" + bytes(1000)


TEXTS = {form: base64.b64encode(encoded(form)).decode() for form in FORMS} | {
    "HEIC": base64.b64encode(heic()).decode(),
    "URL-safe": base64.urlsafe_b64encode(encoded("JPEG")).decode(),
    "in lines": base64.encodebytes(encoded("PNG")).decode(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_base64_is_told_to_be_base64_whether_as_a_path_bytes_or_a_file(client, services, tmp_path, name):
    text = TEXTS[name]
    (tmp_path / "photo.b64").write_text(text)
    for source in (text, text.encode(), bytearray(text.encode()), io.BytesIO(text.encode()), tmp_path / "photo.b64"):
        with pytest.raises(vmmr.UnreadablePhotoError) as caught:
            client.identify(source)
        assert "is base64 text, not a photo: decode it, and give the bytes, as base64.b64decode returns them" in str(
            caught.value
        )
        assert len(str(caught.value)) < 300
    assert services.embedder.script.received == []


@pytest.mark.parametrize("start", ["data:image/jpeg;base64,", "DATA:image/png;base64,", "data:,"])
def test_a_data_url_is_told_to_be_one(client, services, start):
    text = start + TEXTS["JPEG"]
    for source in (text, text.encode()):
        with pytest.raises(
            vmmr.UnreadablePhotoError, match=r"is a data: URL, not a photo: decode what follows"
        ) as caught:
            client.identify(source)
        assert len(str(caught.value)) < 300
    with pytest.raises(vmmr.FetchError) as caught:
        client.identify(vmmr.URL(text))
    assert len(str(caught.value)) < 300
    assert services.embedder.script.received == []


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("https://cars.example/1.jpg", "is a URL, not a path: give vmmr.URL(...), which fetches it"),
        ("HTTP://cars.example/1.jpg", "is a URL, not a path: give vmmr.URL(...), which fetches it"),
        ("file:///srv/1.jpg", "is a URL, not a path: leave out file://"),
        ("ftp://cars.example/1.jpg", "is a URL that can't be fetched: those that begin with http:// or https:// can"),
        ("a\0b.jpg", "is no path: it has a NUL character"),
        ("missing.jpg", "No such file or directory"),
        ("/dev/null/1.jpg", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_is_none_says_what_it_is_and_no_number(client, path, told):
    with pytest.raises(vmmr.UnreadablePhotoError) as caught:
        client.identify(path)
    assert str(caught.value) == f"{path if len(path) < 200 else path[:40] + '... (300 characters)'}: {told}"


def test_a_folder_is_told_to_be_one(client, tmp_path):
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(vmmr.UnreadablePhotoError) as caught:
            client.identify(folder)
        assert str(caught.value) == f"{tmp_path}: is a folder, not a photo: give the photos in it"


def test_a_file_whose_name_looks_like_a_mistake_is_read_all_the_same(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = TEXTS["JPEG"][1:60].replace("/", "_")
    (tmp_path / f"data:{name}").write_bytes(b"7")
    (tmp_path / f"_9j_{name}").write_bytes(b"8")
    assert client.identify(f"data:{name}").answer.year == 2007
    assert client.identify(f"_9j_{name}").answer.year == 2008


@pytest.mark.parametrize("form", FORMS)
def test_a_photo_is_not_taken_for_text(client, services, form):
    services.embedder.script.marked[encoded(form)[:8]] = lambda *_: None
    with pytest.raises(vmmr.InvalidPhotoError):  # the fake embedder takes numbers alone
        client.identify(encoded(form))


def test_a_file_that_is_open_as_text_is_no_photo(client, tmp_path):
    (tmp_path / "1.jpg").write_bytes(encoded("JPEG"))
    with (tmp_path / "1.jpg").open(encoding="utf-8") as file, pytest.raises(TypeError, match="opened in binary mode"):
        client.identify(file)


def test_what_is_no_photo_at_all_is_not_repeated_whole(client):
    with pytest.raises(TypeError) as caught:
        client.identify(list(range(100_000)))
    assert len(str(caught.value)) < 300


def test_the_command_tells_all_of_them_in_a_line_each(run, tmp_path):
    (tmp_path / "folder").mkdir()
    given = [TEXTS["JPEG"][:5000], f"data:image/jpeg;base64,{TEXTS['JPEG'][:5000]}", "folder", "file:///1.jpg"]
    done = run("identify", *given, "1.jpg")
    lines = done.stderr.splitlines()
    assert [line.rpartition("): ")[2] for line in lines[:2]] == [
        "is base64 text, not a photo: decode it, and give the bytes, as base64.b64decode returns them",
        "is a data: URL, not a photo: decode what follows its comma, and give the bytes",
    ]
    assert lines[2:] == [
        "vmmr: folder: is a folder, not a photo: give the photos in it, FOLDER/*.jpg",
        "vmmr: file:///1.jpg: is a URL, not a path: leave out file://",
    ]
    assert max(map(len, [*lines, *done.stdout.splitlines()])) < 250
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 2)
