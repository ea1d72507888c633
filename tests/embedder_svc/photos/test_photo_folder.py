"""Photos are read from a folder of a disk or of storage alike: the same content, and the same words for what no photo is."""

import dataclasses
import errno
import pickle
import socket
import threading

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import known_implementations

from embedder_svc.photos import photo_files, photo_folder
from embedder_svc.photos.photo_folder import FetchError, LocalFolder, StoredFolder
from embedder_svc.photos.preprocess import PhotoError
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from svckit.photos.refusals import PhotoReason
from tests.embedder_svc import storage as storages


@pytest.fixture
def storage(tmp_path):
    cars = tmp_path / "storage" / "cars"
    (cars / "fast").mkdir(parents=True)
    (cars / "fast" / "a #1 100%?.jpg").write_bytes(b"one")
    (cars / "empty.jpg").touch()
    (tmp_path / "storage" / "outside.jpg").write_bytes(b"secret")
    with storages.serving(tmp_path / "storage") as serving:
        yield serving


@pytest.fixture
def stored(storage):
    return photo_folder.at(f"{storage.url}/cars")


@pytest.fixture
def local(storage):
    return LocalFolder(storage.root / "cars")


def keep(content):
    return content


@pytest.mark.parametrize("name", ["fast/a #1 100%?.jpg", "./fast//a #1 100%?.jpg", "empty.jpg", "none.jpg", "a\0b.jpg"])
def test_both_say_the_same_of_a_photo(stored, local, name):
    assert stored.attempt(name, keep) == local.attempt(name, keep)


def test_both_say_the_same_of_what_is_no_photo(stored, local):
    def refuse(_):
        raise PhotoError(PhotoReason.IMAGE_FORMAT, "no photo")

    assert stored.attempt("empty.jpg", refuse) == local.attempt("empty.jpg", refuse) == "IMAGE_FORMAT: no photo"


def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_it(storage, stored, monkeypatch):
    monkeypatch.setattr(photo_files, "LIMITS", dataclasses.replace(photo_files.LIMITS, max_bytes=10))
    (storage.root / "cars" / "huge.jpg").write_bytes(bytes(1000))
    assert stored.attempt("huge.jpg", keep) == bytes(11)


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("bucket/cars/", "bucket/cars/%2e%2e/a #1?.jpg"),
        ("https://host/cars", "https://host/cars/%252e%252e/a%20%231%3F.jpg"),
        ("https://host/cars/?sig=a%2Bb", "https://host/cars/%252e%252e/a%20%231%3F.jpg?sig=a%2Bb"),
    ],
)
def test_over_http_a_name_is_quoted_so_that_it_is_that_photos_alone(root, path):
    assert photo_folder._joined(root, "%2e%2e/a #1?.jpg") == path


def test_a_connection_that_ends_is_not_the_photos_fault(storage, stored):
    storage.refuse = lambda *_: storages.CUT
    with pytest.raises(FetchError, match=r"cars/empty\.jpg: can't be fetched: .*the same command goes on from here"):
        stored.attempt("empty.jpg", keep)


def test_nor_is_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FetchError, match="can't be fetched"):
        photo_folder.at(f"webhdfs://127.0.0.1:{port}/cars").check("a.jpg")


def test_nor_are_photos_that_may_not_be_read(storage, stored):
    storage.refuse = lambda *_: "AccessControlException"
    with pytest.raises(FetchError, match=r"empty\.jpg: can't be fetched: AccessControlException") as caught:
        stored.check("empty.jpg")
    assert "hidden" not in str(caught.value)


def test_a_folder_that_is_missing_is_told_and_not_each_photo_of_it(storage):
    with pytest.raises(FetchError, match=f"^{storage.shown}/vans: there is no such bucket or folder$"):
        photo_folder.at(f"{storage.url}/vans").check("a.jpg")


def test_a_missing_photo_of_a_folder_that_can_not_be_looked_at_is_not_taken_for_missing(storage, stored):
    storage.refuse = lambda _, path: "AccessControlException" if path == "/cars" else None
    with pytest.raises(FetchError, match=f"^{storage.shown}/cars: can't be looked at: AccessControlException"):
        stored.attempt("none.jpg", keep)


def test_a_folder_on_a_disk_is_checked_too(local):
    local.check("none.jpg")
    with pytest.raises(ArtifactError, match="none: is not a directory"):
        LocalFolder(local.path / "none").check("a.jpg")


@pytest.mark.parametrize(
    "error", [LookupError("no credentials for s3://me:hidden@bucket"), ValueError("bad hidden=\nno")]
)
def test_whatever_a_library_raises_is_told_on_one_line_without_secrets(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    folder = photo_folder.at(f"memory://me:hidden@{tmp_path.name}/cars")
    with pytest.raises(FetchError, match=r"^memory://.*/cars/a\.jpg: can't be fetched: ") as caught:
        folder.attempt("a.jpg", keep)
    assert "me:hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(known_implementations, "cars", {"class": "carsfs.Cars", "err": "Install carsfs"})
    with pytest.raises(CommandError, match=r"^cars://bucket: Install carsfs$"):
        photo_folder.at("cars://me:hidden@bucket")
    with pytest.raises(CommandError, match=r"^nosuch://bucket: Protocol not known: nosuch"):
        photo_folder.at("nosuch://me:hidden@bucket")


def test_what_lets_somebody_in_is_neither_shown_nor_what_tells_folders_apart(storage, stored):
    assert stored.identity == f"{storage.shown}/cars" == StoredFolder(f"{storage.shown}/cars/").identity
    assert stored.named("a.jpg") == f"{storage.shown}/cars/a.jpg"
    assert "hidden" not in repr(stored)
    assert StoredFolder("https://host/cars/?sig=hidden").named("a.jpg") == "https://host/cars/a.jpg"


def test_a_folder_whose_name_has_a_sign_of_urls_is_told_from_others(storage):
    fsspec.register_implementation("asynchronous", Asynchronous, clobber=True)
    for name in ("cars#2024", "cars?2024", "my cars#2024"):
        url = f"asynchronous://bucket/{name}"
        assert StoredFolder(url).identity == StoredFolder(f"{url}/").identity == url
        assert StoredFolder(url).named("a#1.jpg") == f"{url}/a#1.jpg"
    assert StoredFolder("asynchronous://me:hid#den@bucket/cars#2024").identity == "asynchronous://bucket/cars#2024"
    assert StoredFolder(f"{storage.url}/cars?delegation=hidden").identity == f"{storage.shown}/cars"
    assert StoredFolder("https://host/my cars?sig=hidden#part").identity == "https://host/my cars"


def test_a_path_and_its_url_are_the_same_folder(tmp_path, monkeypatch):
    assert photo_folder.at(f"file://{tmp_path}") == photo_folder.at(str(tmp_path)) == LocalFolder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert photo_folder.at("a::b").for_others() == LocalFolder(tmp_path / "a::b")


def test_it_can_be_sent_to_another_process(stored, local):
    for folder in (stored, local):
        assert pickle.loads(pickle.dumps(folder)).attempt("fast/a #1 100%?.jpg", keep) == b"one"


def test_a_disk_has_a_reader_a_worker_and_storage_many(stored, local):
    assert [local.readers(number) for number in (1, 100)] == [1, 100]
    assert [stored.readers(number) for number in (1, 100)] == [photo_folder.AHEAD, 100]


def test_a_library_that_is_not_asynchronous_is_not_shared_by_threads(storage):
    url, found = f"{storage.url}/cars", []
    thread = threading.Thread(target=lambda: found.append(photo_folder._files(url)[0]))
    thread.start()
    thread.join()
    mine = photo_folder._files(url)[0]
    assert mine is not found[0]
    assert mine is photo_folder._files(url)[0]


class Asynchronous(AsyncFileSystem):
    """Like s3fs, it is given the options of its connections."""

    protocol = "asynchronous"

    def __init__(self, *args, config_kwargs=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.config_kwargs = config_kwargs or {}

    async def _cat_file(self, path, start=None, end=None, **_):
        if path.endswith(("empty.jpg", "damaged.jpg")):
            raise OSError(errno.EINVAL, "The requested range is not satisfiable")
        return f"{path} {start}-{end}".encode()

    async def _info(self, path, **_):
        return {"name": path, "type": "file", "size": 0 if path.endswith("empty.jpg") else 9}


def test_one_that_is_has_connections_for_all_threads_unless_told_otherwise(monkeypatch):
    fsspec.register_implementation("asynchronous", Asynchronous, clobber=True)
    url, found = "asynchronous://bucket/cars", []
    thread = threading.Thread(target=lambda: found.append(photo_folder._files(url)[0]))
    thread.start()
    thread.join()
    mine = photo_folder._files(url)[0]
    assert mine is found[0]
    assert mine.config_kwargs == {"max_pool_connections": photo_folder._MOST_CONNECTIONS}
    monkeypatch.setitem(fsspec.config.conf, "asynchronous", {"config_kwargs": {"max_pool_connections": 3}})
    assert photo_folder._files(f"{url}/more")[0].config_kwargs == {"max_pool_connections": 3}


def test_no_more_is_asked_for_than_shows_that_a_photo_is_too_large_and_by_the_name_that_storage_has():
    fsspec.register_implementation("asynchronous", Asynchronous, clobber=True)
    most = photo_files.LIMITS.max_bytes + 1
    found = photo_folder.at("asynchronous://bucket/cars").attempt("./fast//a.jpg", keep)
    assert found == f"bucket/cars/fast/a.jpg 0-{most}".encode()


def test_storage_that_has_no_range_of_an_empty_photo_has_an_empty_photo():
    fsspec.register_implementation("asynchronous", Asynchronous, clobber=True)
    folder = photo_folder.at("asynchronous://bucket/cars")
    assert folder.attempt("empty.jpg", keep) == b""
    with pytest.raises(FetchError, match="range is not satisfiable"):
        folder.attempt("damaged.jpg", keep)
