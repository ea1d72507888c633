"""`vmmr-embedder embed --photos URL`: what comes from storage is what comes from a disk, and what storage does not give is no photo's fault."""

import argparse
import json
import threading

import numpy as np
import pytest

from embedder_svc.offline import chunks as chunks_of
from embedder_svc.offline import command as embed_command
from embedder_svc.photos import photo_folder
from embedder_svc.photos.photo_folder import AHEAD
from svckit.cli import CommandError
from tests.embedder_svc import storage as storages

COUNT = 150  # three chunks, the last not full
BROKEN = {3: b"", 70: b"not a photo", 149: None}  # None: not there


class Collection:
    def __init__(self, root, model, storage):
        self.root, self.model, self.storage = root, model, storage
        self.disk, self.url = root / "cars", f"{storage.url}/cars"
        self.manifest = root / "manifest.csv"

    def embed(self, photos, out, *more):
        parser = argparse.ArgumentParser()
        embed_command.add(parser.add_subparsers())
        flags = [f"--photos={photos}", f"--model={self.model}", f"--out={out}", *more]
        args = parser.parse_args(["embed", str(self.manifest), *flags])
        args.run(args)


@pytest.fixture
def collection(tmp_path, encode, tiny_bundle):
    root = tmp_path / "collection"
    (root / "cars").mkdir(parents=True)
    for number in range(COUNT):
        content = BROKEN.get(number, encode(np.full((6, 8, 3), number, np.uint8), "PNG"))
        if content is not None:
            (root / "cars" / f"car {number}.png").write_bytes(content)
    (root / "manifest.csv").write_text("path\n" + "".join(f"car {number}.png\n" for number in range(COUNT)))
    with storages.serving(root) as storage:
        yield Collection(root, tiny_bundle, storage)


@pytest.fixture
def whole(collection, tmp_path):
    """What a run over the photos on the disk makes."""
    collection.embed(collection.disk, tmp_path / "whole")
    return contents(tmp_path / "whole")


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def cut_from(number):
    """A storage whose connections end where it is asked for these photos."""

    def refuse(_, path):
        digits = "".join(filter(str.isdecimal, path))
        return storages.CUT if digits and int(digits) >= number else None

    return refuse


def test_the_artifact_is_that_of_a_disk_to_the_byte(collection, whole, tmp_path, capsys):
    collection.embed(collection.url, tmp_path / "out")
    assert contents(tmp_path / "out") == whole
    assert b"car 149.png,No such file or directory\n" in whole["unreadable.csv"]
    said = capsys.readouterr()
    assert "147 embedded by tiny (whole); 3 unreadable" in said.out
    assert "hidden" not in said.out + said.err


def test_a_connection_that_fails_ends_the_command_which_goes_on_from_there(collection, whole, tmp_path):
    out, draft = tmp_path / "out", tmp_path / "out.partial"
    collection.storage.refuse = cut_from(100)
    with pytest.raises(CommandError, match=r"car 1\d\d\.png: can't be fetched: .*the same command goes on from here"):
        collection.embed(collection.url, out)
    (line,) = (draft / "journal.jsonl").read_text().splitlines()
    assert (json.loads(line)["done"], list(json.loads(line)["unreadable"])) == (64, ["3"])
    assert "hidden" not in (draft / "job.json").read_text()
    del collection.storage.refuse
    collection.storage.opened.clear()
    collection.embed(collection.url, out)
    assert contents(out) == whole
    assert sorted(collection.storage.opened) == sorted(
        ["car 0.png", *(f"car {number}.png" for number in range(64, 149))]  # the first is how the folder is checked
    )


def test_a_folder_that_goes_meanwhile_ends_the_command_too(collection, tmp_path):
    collection.storage.refuse = lambda *_: "FileNotFoundException" if len(collection.storage.opened) > 20 else None
    with pytest.raises(CommandError, match=r"/cars: there is no such bucket or folder"):
        collection.embed(collection.url, tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{url}/vans", "/vans: there is no such bucket or folder"),
        ("nosuch://me:hidden@bucket", "^nosuch://bucket: Protocol not known"),
        ("webhdfs://me:hidden@127.0.0.1:1/cars", r"car 0\.png: can't be fetched"),
    ],
)
def test_a_folder_that_can_not_be_read_is_told_before_anything_is_made(collection, tmp_path, url, said):
    with pytest.raises(CommandError, match=said) as caught:
        collection.embed(url.format(url=collection.storage.url), tmp_path / "out")
    assert "hidden" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["collection"]


def test_photos_that_can_not_be_read_at_all_are_told_by_their_url(collection, tmp_path):
    for path in collection.disk.iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        CommandError, match=r"none of the 150 photos can be read; webhdfs://127.*/cars/car 0\.png: IMAGE_EM"
    ):
        collection.embed(collection.url, tmp_path / "out")


def test_a_draft_of_one_folder_is_not_gone_on_with_by_another_of_storage(collection, tmp_path):
    collection.storage.refuse = cut_from(100)
    with pytest.raises(CommandError, match="can't be fetched"):
        collection.embed(collection.url, tmp_path / "out")
    with pytest.raises(CommandError, match="begun with another photo folder"):
        collection.embed(collection.disk, tmp_path / "out")


def test_one_worker_has_many_photos_on_their_way(collection, whole, tmp_path):
    """Storage that answers only to so many at once."""
    together = threading.Barrier(AHEAD)

    def wait(op, path):
        if op == "GETFILESTATUS" and 0 < int("".join(filter(str.isdecimal, path)) or 0) <= AHEAD:
            together.wait(30)

    collection.storage.refuse = wait
    collection.embed(collection.url, tmp_path / "out", "--workers=1")
    assert contents(tmp_path / "out").keys() == whole.keys()
    assert not together.broken


def test_no_more_photos_are_decoded_at_once_than_there_are_workers(collection, tiny_bundle):
    from embedder_svc.network.model import Model

    work = chunks_of.Work(photo_folder.at(collection.url), "float16", whole=False)
    embedder = chunks_of.ChunkEmbedder(Model.open(tiny_bundle, device="cpu"), work, workers=2)
    part, at_once, most, lock = embedder._part, [], [], threading.Lock()
    two = threading.Barrier(2)

    def counted(content):
        with lock:
            at_once.append(None)
            most.append(len(at_once))
        two.wait(60)  # two of them there are, and while they wait a third would come
        try:
            return part(content)
        finally:
            with lock:
                at_once.pop()

    embedder._part = counted
    embedder.embed([f"car {number}.png" for number in range(4, 36)])
    embedder.close()
    assert max(most) == 2
