import argparse
import hashlib
import json
import os
import pty
from pathlib import Path

import pytest

from search_svc.dataset import split
from search_svc.fetching import command, sources
from search_svc.fetching.layouts import LAYOUTS
from svckit import cli
from tests.search_svc.fetching.conftest import photo, tgz, zipped

ARCHIVE = zipped({"VMMRdb/honda_pilot_2011/1.jpg": photo("red"), "VMMRdb/kia_rio_2009/2.jpg": photo("blue")})


def run(*argv):
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    for step in (command, split):
        step.add(commands)
    args = parser.parse_args([*map(str, argv)])
    cli.run(lambda: args.run(args), "vmmr-search")


def fails(*argv):
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    return str(caught.value)


@pytest.fixture
def listed(site, tmp_path):
    """Writes a file of sources of VMMRdb, named first, second and third, with these answers, of which None is one that has gone."""

    def write(*archives, size=None):
        told = []
        for name, content in zip(("first", "second", "third"), archives, strict=False):
            path = f"/{name}.zip"
            if content is not None:
                site.files[path] = content
            digest = hashlib.sha256(content or b"").hexdigest()
            file = {
                "name": "VMMRdb.zip",
                "url": site.url + path,
                "bytes": size or len(content or b"none"),
                "sha256": digest,
            }
            told.append({"name": name, "about": f"the {name} one", "files": [file]})
        dataset = {"about": "Cars", "terms": ["For research."], "sources": told, "by_hand": ["https://example.org"]}
        (tmp_path / "sources.json").write_text(json.dumps({"vmmrdb": dataset}))
        return tmp_path / "sources.json"

    return write


def fetch(tmp_path, listed, *more):
    return "fetch", "vmmrdb", tmp_path / "cars", "--sources", listed, "--accept-terms", *more


def test_a_data_set_is_fetched_laid_out_and_split(site, listed, tmp_path, capsys):
    run(*fetch(tmp_path, listed(ARCHIVE)))
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/cars: 2 photos of 2 labels\n"
    assert "For research." in printed.err
    (following,) = [line for line in printed.err.splitlines() if line.startswith("next: ")]
    record = json.loads((tmp_path / "cars" / "fetched.json").read_text())
    assert record.pop("fetched")
    assert record == {
        "dataset": "vmmrdb",
        "source": "first",
        "files": [
            {
                "url": f"{site.url}/first.zip",
                "bytes": len(ARCHIVE),
                "sha256": hashlib.sha256(ARCHIVE).hexdigest(),
            }
        ],
        "photos": 2,
        "labels": 2,
        "left_out": {},
    }
    words = following.removeprefix("next: vmmr-search ").split()
    run(*words[:-1], tmp_path / "manifest.csv")
    assert capsys.readouterr().out.startswith(f"{tmp_path}/manifest.csv: 2 photos of 2 labels")


def test_the_next_source_is_asked_when_one_has_gone(site, listed, tmp_path, capsys):
    path = listed(None, ARCHIVE, ARCHIVE)
    run(*fetch(tmp_path, path))
    told = capsys.readouterr().err
    assert f"first: {site.url}/first.zip: has gone (404 Not Found)" in told
    assert "from second: the second one" in told
    assert "from third" not in told
    assert json.loads((tmp_path / "cars" / "fetched.json").read_text())["source"] == "second"


def test_a_source_can_be_named(site, listed, tmp_path):
    path = listed(ARCHIVE, ARCHIVE)
    assert "--from must be one of first, second, got 'none'" in fails(*fetch(tmp_path, path, "--from", "none"))
    run(*fetch(tmp_path, path, "--from", "second"))
    assert [each[0] for each in site.asked] == ["/second.zip"]


def test_what_else_there_is_is_said_when_every_source_fails(site, listed, tmp_path):
    path = listed(None, b"<html>", size=len(ARCHIVE))
    site.files["/second.zip"] = b"<html>" + bytes(len(ARCHIVE) - 6)
    told = fails(*fetch(tmp_path, path)).splitlines()
    assert told[0] == "vmmr-search: error: vmmrdb could not be fetched"
    assert "first: " in told[1]
    assert "has gone" in told[1]
    assert "a web page in place of the file" in told[2]
    assert told[3:] == ["  by hand: https://example.org", "  what you have of it, give with --archive FILE ..."]
    assert not (tmp_path / "cars").exists()


def test_a_source_that_has_gone_is_asked_only_by_its_name(site, listed, tmp_path):
    path = listed(ARCHIVE, ARCHIVE)
    content = json.loads(path.read_text())
    content["vmmrdb"]["sources"][0]["gone"] = "does not answer"
    path.write_text(json.dumps(content))
    run(*fetch(tmp_path, path))
    assert [each[0] for each in site.asked] == ["/second.zip"]


def test_archives_on_the_disk_are_taken_and_nothing_is_asked_for(site, tmp_path, capsys):
    (tmp_path / "mine.zip").write_bytes(ARCHIVE)
    run("fetch", "vmmrdb", tmp_path / "cars", "--accept-terms", "--archive", tmp_path / "mine.zip")
    assert capsys.readouterr().out == f"{tmp_path}/cars: 2 photos of 2 labels\n"
    assert site.asked == []


def test_the_terms_must_be_accepted_where_nobody_can_be_asked(site, listed, tmp_path, monkeypatch):
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        told = fails(*fetch(tmp_path, listed(ARCHIVE))[:-1])
    assert told == "vmmr-search: error: --accept-terms must be given where nobody can be asked"
    assert site.asked == []


@pytest.mark.parametrize("typed", ["yes", "no", ""])
def test_the_terms_are_accepted_by_a_typed_yes(site, listed, tmp_path, monkeypatch, typed):
    accepted = typed == "yes"
    mine, theirs = pty.openpty()
    os.write(mine, f"{typed}\n".encode())
    argv = fetch(tmp_path, listed(ARCHIVE))[:-1]
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        if accepted:
            run(*argv)
        else:
            assert "the terms were not accepted" in fails(*argv)
    os.close(mine)
    assert bool(site.asked) == (tmp_path / "cars").exists() == accepted


def test_a_folder_that_is_there_is_refused_before_anything_is_asked(site, listed, tmp_path):
    (tmp_path / "cars").mkdir()
    assert "already exists" in fails(*fetch(tmp_path, listed(ARCHIVE)))
    assert site.asked == []


def test_a_disk_that_is_too_small_is_told_before_the_download(site, listed, tmp_path):
    assert "MiB are needed for archives and photos" in fails(*fetch(tmp_path, listed(ARCHIVE, size=1 << 60)))
    assert site.asked == []


def test_archives_without_a_photo_leave_no_folder(listed, tmp_path):
    told = fails(*fetch(tmp_path, listed(zipped({"1.jpg": photo(), "notes.txt": b""}))))
    assert told.endswith("the archives hold no photo that can be taken: not in a folder named after a label (1)")
    assert not (tmp_path / "cars").exists()


def test_photos_without_their_annotations_are_no_data_set(tmp_path):
    (tmp_path / "cars_train.tgz").write_bytes(tgz({"cars_train/00001.jpg": photo()}))
    told = fails(
        "fetch", "stanford-cars", tmp_path / "cars", "--accept-terms", "--archive", tmp_path / "cars_train.tgz"
    )
    assert "no annotation names it (1)" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"url": "ftp://example.org/a.zip"}, "is not an http:// or https:// URL"),
        ({"sha256": "abc"}, "is no sha256"),
        ({"name": "../a.zip"}, "is not that of a file"),
        ({"name": ""}, "is not that of a file"),
        ({"bytes": "10"}, "is no size"),
    ],
)
def test_a_file_of_sources_that_makes_no_sense_is_told(listed, tmp_path, change, told):
    path = listed(ARCHIVE)
    content = json.loads(path.read_text())
    content["vmmrdb"]["sources"][0]["files"][0] |= change
    path.write_text(json.dumps(content))
    assert f"{path}: is no file of sources: " in (said := fails(*fetch(tmp_path, path)))
    assert told in said


def test_a_file_of_sources_that_lacks_something_is_told(tmp_path):
    path = tmp_path / "sources.json"
    path.write_text('{"vmmrdb": {"about": "", "terms": [], "by_hand": []}}')
    assert "the field 'sources' is missing" in fails(*fetch(tmp_path, path))
    path.write_text("{}")
    assert "has no sources of vmmrdb" in fails(*fetch(tmp_path, path))


def test_the_sources_that_ship_are_of_every_data_set_and_make_sense():
    known = sources.read(sources.SHIPPED)
    assert known.keys() == LAYOUTS.keys()
    for dataset in known.values():
        names = [source.name for source in dataset.sources]
        assert len(set(names)) == len(names)
        assert any(source.gone is None for source in dataset.sources)
        assert all(source.files for source in dataset.sources)
        assert dataset.terms
        assert dataset.by_hand
