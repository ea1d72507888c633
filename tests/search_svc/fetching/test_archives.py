import io
import tarfile
import zipfile

import pytest

from search_svc.fetching import archives
from search_svc.fetching.archives import members
from svckit.artifact import ArtifactError
from tests.search_svc.fetching.conftest import tgz, zipped

FILES = {"top/a/1.jpg": b"one", "top/b/2.jpg": b"two"}


def read(path):
    return {member.path: member.read() for member in members(path)}


@pytest.fixture
def archive(tmp_path):
    def write(content, name="archive"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("pack", [tgz, zipped])
def test_the_files_of_an_archive_are_read_whatever_it_is_called(archive, pack):
    assert read(archive(pack(FILES))) == FILES


def test_a_folder_that_an_archive_was_unpacked_to_is_as_good(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "top" / "link.jpg").symlink_to("/etc/passwd")
    assert read(tmp_path) == FILES


def test_a_file_of_annotations_is_taken_by_itself(archive):
    assert read(archive(b"1,2\n", "names.csv")) == {"names.csv": b"1,2\n"}


@pytest.mark.parametrize("pack", [tgz, zipped])
@pytest.mark.parametrize("name", ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg", "a\\..\\..\\1.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(archive, pack, name):
    with pytest.raises(ArtifactError, match="leads out of its folder"):
        read(archive(pack({name: b""})))


def test_links_and_devices_are_passed_over(archive):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, kind in {
            "soft.jpg": tarfile.SYMTYPE,
            "hard.jpg": tarfile.LNKTYPE,
            "dev.jpg": tarfile.CHRTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert read(archive(content.getvalue())) == {}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        info = zipfile.ZipInfo("soft.jpg")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    assert read(archive(content.getvalue())) == {}


@pytest.mark.parametrize("pack", [tgz, zipped])
@pytest.mark.parametrize("bound", ["MOST_ENTRIES", "MOST_BYTES", "MOST_BYTES_OF_ONE"])
def test_an_archive_that_is_too_large_is_refused(archive, pack, bound, monkeypatch):
    monkeypatch.setattr(archives, bound, 1)
    with pytest.raises(ArtifactError, match="larger than is taken"):
        read(archive(pack(FILES)))


def test_a_zip_whose_file_is_larger_than_it_says_is_not_believed(archive):
    content = bytearray(zipped({"1.jpg": b"0" * 5000}))
    for at in (22, content.index(b"PK\x01\x02") + 24):  # where the local and the central header have the size
        content[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(ArtifactError, match="damaged"):
        read(archive(bytes(content)))


@pytest.mark.parametrize("pack", [tgz, zipped])
def test_an_archive_that_is_cut_short_or_damaged_is_told(archive, pack):
    content = pack({"a/1.jpg": bytes(range(256)) * 500})
    with pytest.raises(ArtifactError, match="archive: is "):
        read(archive(content[: len(content) // 2]))
    damaged = bytearray(content)
    damaged[len(content) // 2 - 200 : len(content) // 2] = bytes(200)
    with pytest.raises(ArtifactError, match="archive: is "):
        read(archive(bytes(damaged)))


def test_what_is_no_archive_is_told(archive, tmp_path):
    with pytest.raises(ArtifactError, match="neither a tar nor a zip"):
        read(archive(b"<html>"))
    with pytest.raises(ArtifactError, match="there is no such file"):
        read(tmp_path / "none.mat")
