import hashlib
import resource
import socket

import pytest

from search_svc.fetching import download as module
from search_svc.fetching.download import DownloadError, download
from search_svc.fetching.sources import RemoteFile

CONTENT = bytes(range(256)) * 1000
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def wanted(site):
    site.files["/data.tgz"] = CONTENT

    def file(*, size=SIZE, sha256=SHA256, path="/data.tgz"):
        return RemoteFile("data.tgz", site.url + path, size, sha256)

    return file


def fetch(file, folder):
    return download(file, folder, pause_s=0)


def test_a_file_is_downloaded_once(site, wanted, tmp_path):
    path = fetch(wanted(), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["data.tgz"]
    assert fetch(wanted(), tmp_path / "new") == path
    assert len(site.asked) == 1


def test_redirects_are_followed(site, wanted, tmp_path):
    assert fetch(wanted(path="/moved"), tmp_path).read_bytes() == CONTENT


def test_a_connection_that_is_cut_goes_on_where_it_ended(site, wanted, tmp_path):
    site.cut_after = [1000, 0, 5000]
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT
    assert [each[1:] for each in site.asked] == [
        (None, None),
        ("bytes=1000-", '"1"'),
        ("bytes=1000-", '"1"'),
        ("bytes=6000-", '"1"'),
    ]


def test_tries_that_bring_something_are_not_counted(site, wanted, tmp_path):
    site.cut_after = [1000] * (module._TRIES + 2)
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT


def test_the_next_run_goes_on_where_the_last_one_gave_up(site, wanted, tmp_path):
    site.cut_after = [1000, *[0] * module._TRIES]
    with pytest.raises(DownloadError, match="1000 bytes are kept for the next run"):
        fetch(wanted(), tmp_path)
    assert not (tmp_path / "data.tgz").exists()
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT
    assert site.asked[-1][1:] == ("bytes=1000-", '"1"')


def test_a_file_that_has_changed_meanwhile_is_begun_anew(site, wanted, tmp_path):
    site.cut_after = [1000, *[0] * module._TRIES]
    with pytest.raises(DownloadError):
        fetch(wanted(), tmp_path)
    other = CONTENT[::-1]
    site.files["/data.tgz"], site.etag = other, '"2"'
    file = wanted(sha256=hashlib.sha256(other).hexdigest())
    site.files["/data.tgz"] = other
    assert fetch(file, tmp_path).read_bytes() == other


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_part_that_can_not_be_named_is_not_gone_on_with(site, wanted, tmp_path, etag):
    site.etag, site.cut_after = etag, [1000]
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT
    assert [each[1] for each in site.asked] == [None, None]


def test_a_server_without_ranges_sends_it_all_again(site, wanted, tmp_path):
    site.ranges, site.cut_after = False, [1000]
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(site, wanted, tmp_path):
    (tmp_path / "data.tgz.part").write_bytes(CONTENT)
    (tmp_path / "data.tgz.part.json").write_text(f'{{"url": "{site.url}/data.tgz", "validator": "\\"1\\""}}')
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT
    assert site.asked[0][1] == f"bytes={len(CONTENT)}-"


def test_a_part_that_is_longer_than_the_file_is_begun_anew(site, wanted, tmp_path):
    (tmp_path / "data.tgz.part").write_bytes(CONTENT + b"more")
    (tmp_path / "data.tgz.part.json").write_text(f'{{"url": "{site.url}/data.tgz", "validator": "\\"1\\""}}')
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_broken_one_not_for_ever(site, wanted, tmp_path):
    site.statuses = [503, 429, 500]
    assert fetch(wanted(), tmp_path).read_bytes() == CONTENT
    site.statuses = [503] * 50
    with pytest.raises(DownloadError, match="the server answered 503"):
        fetch(wanted(), tmp_path / "other")
    assert len(site.statuses) == 50 - module._TRIES


@pytest.mark.parametrize(
    ("status", "told"),
    [(404, "has gone"), (410, "has gone"), (403, "is not for everybody"), (401, "is not for everybody"), (400, "400")],
)
def test_what_will_not_change_is_not_tried_again(site, wanted, tmp_path, status, told):
    site.statuses = [status]
    with pytest.raises(DownloadError, match=told):
        fetch(wanted(), tmp_path)
    assert len(site.asked) == 1


def test_what_lets_somebody_in_by_the_url_is_not_told(site, wanted, tmp_path):
    site.statuses = [403]
    with pytest.raises(DownloadError, match=r"data\.tgz\?\.\.\.: is not for everybody"):
        fetch(wanted(path="/data.tgz?key=hidden"), tmp_path)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Sign in", b"\xef\xbb\xbf \n<HTML lang=en>quota"])
def test_a_web_page_is_not_taken_for_the_file(site, wanted, tmp_path, page):
    site.files["/data.tgz"] = page
    with pytest.raises(DownloadError, match="a web page in place of the file"):
        fetch(wanted_unknown(site), tmp_path)
    assert not (tmp_path / "data.tgz").exists()


def wanted_unknown(site):
    return RemoteFile("data.tgz", f"{site.url}/data.tgz", None, None)


def test_a_file_of_unknown_size_and_sha256_is_taken_when_all_of_it_is_there(site, wanted, tmp_path):
    wanted()
    site.cut_after = [1000]
    assert fetch(wanted_unknown(site), tmp_path).read_bytes() == CONTENT


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(site, wanted, tmp_path):
    with pytest.raises(DownloadError, match="has 256000 bytes, and the file that is wanted 10"):
        fetch(wanted(size=10), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_sha256_is_deleted(site, wanted, tmp_path):
    with pytest.raises(
        DownloadError, match=r"its sha256 is \w+, and that of the file that is wanted 0+; it was deleted"
    ):
        fetch(wanted(sha256=64 * "0"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_and_wrong_is_refused_and_stays(site, wanted, tmp_path):
    (tmp_path / "data.tgz").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"data\.tgz: has 4 bytes.*: delete it, or move it away"):
        fetch(wanted(), tmp_path)
    assert (tmp_path / "data.tgz").read_bytes() == b"mine"


def test_a_server_that_sends_nothing_is_left(site, wanted, tmp_path, monkeypatch):
    """It answers the connection, and never more: what is waited for is the time limit, a twentieth of a second here."""
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        file = RemoteFile("data.tgz", f"http://127.0.0.1:{server.getsockname()[1]}/data.tgz", None, None)
        with pytest.raises(DownloadError, match="timed out"):
            fetch(file, tmp_path)


def test_a_disk_that_takes_no_more_is_told_and_not_asked_again(site, wanted, tmp_path):
    """The process may write files of 1000 bytes, which fails as a full disk does: an error without a file's name."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DownloadError, match=r"data\.tgz\.part: File too large"):
            fetch(wanted(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(site.asked) == 1
