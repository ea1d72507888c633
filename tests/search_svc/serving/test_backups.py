"""`vmmr-search serve --backup-to`, as a real process."""

import argparse
import errno
import json
import re
import signal
import urllib.request
from types import SimpleNamespace
from unittest.mock import Mock

import fsspec
import pytest

from search_svc.__main__ import _backups
from search_svc.building.spec import IndexSpec
from search_svc.index.backup import back_up, restore
from search_svc.serving.config import PREFIX, SearchConfig
from svckit import config
from svckit.cli import CommandError
from svckit.config import ConfigError
from svckit.metrics import Metrics
from tests.search_svc.building.test_compaction import base_of
from tests.search_svc.journals import replayed
from tests.search_svc.live_index import Index, build, unit

NEVER_READ = "could not read it, and it lets nobody in until it can be read"


@pytest.fixture
def index(tmp_path):
    build(tmp_path / "index", IndexSpec(), unit(20))
    return tmp_path / "index"


def metrics(ready):
    with urllib.request.urlopen(f"http://127.0.0.1:{ready['metrics_port']}/metrics", timeout=30) as page:
        lines = re.findall(r"^(vmmr_backup_\w+)(?:\{.*\})? (\S+)$", page.read().decode(), re.MULTILINE)
    return {name: float(value) for name, value in lines}


def add(path, name):
    written = Index(path)
    written.add(**{name: ("misc", unit(1)[0])})
    written.writer.close()


def items(path):
    return replayed(path, base_of(path))


def test_it_backs_up_again_and_again_while_it_serves(index, tmp_path, spawn):
    backups = tmp_path / "backups"
    server = spawn("--index", index, "--backup-to", backups, "--backup-every", "1s", "--backup-keep", 2)
    ready = server.ready()
    server.first("backed up")
    add(index, "new")
    before = len(server.logged("backed up"))
    server.nth("backed up", before + 2)  # it began after what was added
    found = metrics(ready)
    assert found["vmmr_backup_failures"] == 0
    assert 0 <= found["vmmr_backup_age_seconds"] < 600
    server.popen.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    restore(str(backups), tmp_path / "restored")
    assert "new" in items(tmp_path / "restored")
    assert len(list((backups / "backups").iterdir())) == 2


def test_no_line_of_the_log_has_what_lets_somebody_in_by_a_url(index, spawn):
    jwts = ("--jwt-issuer", "i", "--jwt-audience", "a", "--jwt-keys", "https://me:hidden@127.0.0.1:1/keys?key=hidden")
    server = spawn("--index", index, "--backup-to", "memory://me:hidden@bucket/backups", *jwts)
    server.ready()
    done = server.first("backed up")
    assert done["backups"] == "memory://bucket/backups"
    assert done["said"].startswith("memory://bucket/backups: version 000001")
    assert "https://127.0.0.1:1/keys?..." in server.first(NEVER_READ)["place"]
    server.popen.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "hidden" not in json.dumps(server.lines)


@pytest.mark.parametrize(
    "attempt",
    [lambda url, index: back_up(index, url), lambda url, index: restore(url, index.with_name("restored"))],
    ids=["backup", "restore"],
)
@pytest.mark.parametrize("kind", ["guarded", "nosuch"])
def test_no_error_of_a_folder_of_backups_has_what_lets_somebody_in(index, attempt, kind):
    fsspec.register_implementation("guarded", Guarded, clobber=True)
    with pytest.raises(CommandError, match=f"{kind}://bucket/backups") as caught:
        attempt(f"{kind}://me:hidden@bucket/backups", index)
    assert "hidden" not in str(caught.value)


class Guarded(fsspec.AbstractFileSystem):
    """A place that lets nobody in, and tells that with what it was asked for."""

    protocol = "guarded"
    cachable = False

    def ls(self, path, detail=True, **_):
        raise RuntimeError(f"403 of {path!r}")


def test_a_failure_is_logged_and_counted_and_it_serves_on(index, tmp_path, spawn):
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups" / "files").write_text("in the way")
    server = spawn("--index", index, "--backup-to", tmp_path / "backups", "--backup-every", "1h")
    ready = server.ready()
    failed = server.first("backup failed")
    assert "Not a directory" in failed["reason"]
    found = metrics(ready)
    assert found == {"vmmr_backup_age_seconds": float("inf"), "vmmr_backup_failures": 1}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backup_to": "nowhere://x"}, "--backup-to: nowhere://x: Protocol not known"),
        ({"backup_every": "soon"}, "--backup-every must be a time such as 90s, 15m, 6h or 1d, got 'soon'"),
        ({"backup_every": "0.5s"}, "--backup-every must be >= 1 s, got 0.5s"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(tmp_path, settings, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        SearchConfig(index=tmp_path, **settings)


@pytest.mark.parametrize(
    ("flag", "value", "needed"),
    [
        ("--backup-every", "15m", "--backup-to"),
        ("--backup-keep", "96", "--backup-to"),
        ("--replicas", "2", "--ray-address"),
        ("--ray-storage", "s3://bucket/index", "--ray-address"),
        ("--ray-cache", "/copies", "--ray-address"),
        ("--metrics-host", "0.0.0.0", "--metrics-port"),
        ("--audit-bytes", "4096", "--audit-log"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(tmp_path, flag, value, needed):
    parser = argparse.ArgumentParser()
    config.add_arguments(parser, SearchConfig, PREFIX)
    args = parser.parse_args(["--index", str(tmp_path), flag, value])
    with pytest.raises(ConfigError, match=rf"^{flag} \(\w+\) means nothing without {needed} "):
        config.from_namespace(SearchConfig, PREFIX, args, {})


def test_a_place_that_takes_no_backups_is_refused_at_the_start(index, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/letter.txt").write_text("mine")
    for place, said in {
        tmp_path / "file": "cannot be made: File exists",
        tmp_path / "file/backups": "cannot be made: Not a directory",
        "/proc/x": "cannot be made: No such file or directory",
        tmp_path / "letters": "is there already, and no folder of backups",
        index / "backups": "is inside of the index",
    }.items():
        with pytest.raises(ConfigError, match=rf"^--backup-to \(VMMR_SEARCH_BACKUP_TO\): {place}:? {said}"):
            _backups(SearchConfig(index=index, backup_to=str(place)), Metrics(), None)


def test_a_disk_that_is_full_keeps_no_server_from_starting(index, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "mkdir", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    assert _backups(SearchConfig(index=index, backup_to=str(tmp_path / "backups")), Metrics(), None)


def test_what_a_backup_warns_of_is_a_warning_of_the_server(index, tmp_path, spawn):
    back_up(index, str(tmp_path / "backups"))
    restore(str(tmp_path / "backups"), tmp_path / "restored")
    server = spawn("--index", tmp_path / "restored", "--backup-to", tmp_path / "backups", "--backup-every", "1h")
    server.ready()
    told = server.first("backup warned")
    assert told["said"].startswith("the folder of backups goes on with another history of its index from here on")
    assert told["level"].lower() == "warning"
    server.popen.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_times_may_have_a_unit(tmp_path):
    seconds = [
        SearchConfig(index=tmp_path, backup_every=text).backup_every_s for text in ("90", "90s", "1.5m", "6h", "1d")
    ]
    assert seconds == [90, 90, 90, 21600, 86400]


def test_of_several_workers_the_first_backs_up(tmp_path):
    settings = SearchConfig(index=tmp_path / "index", backup_to=str(tmp_path / "backups"))
    scheduled = [_backups(settings, Metrics(), number and SimpleNamespace(number=number)) for number in (None, 1, 2)]
    assert [each is not None for each in scheduled] == [True, False, False]
    assert _backups(settings, Metrics(), SimpleNamespace(number=0)) is not None
    assert _backups(SearchConfig(index=tmp_path), Metrics(), None) is None
