"""`vmmr-embedder embed`, on real files with a tiny real network; the interrupted ones are real processes."""

import argparse
import contextlib
import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder_svc.__main__ import _pipeline
from embedder_svc.network import bundle
from embedder_svc.network.model import Model
from embedder_svc.offline import chunks as chunks_of
from embedder_svc.offline import command as embed_command
from embedder_svc.offline import draft as embed_draft
from embedder_svc.offline import embed
from embedder_svc.photos import photo_files, photo_folder, preprocess
from embedder_svc.photos.manifest import Manifest
from embedder_svc.serving.config import EmbedderConfig
from svckit.artifact import ArtifactError, read_manifest
from svckit.cli import CommandError
from svckit.config import ConfigError
from svckit.metrics import Metrics

COUNT = 150  # three chunks, the last not full
BROKEN = {3: b"", 70: b"not a photo", 149: None}  # None: not there


class Collection:
    def __init__(self, root, model):
        self.root = root
        self.model = model
        self.manifest = root / "manifest.csv"
        self.photos = root / "photos"

    def flags(self, out, *more):
        model = [f"--model={self.model}"] if self.model else []
        return ["embed", str(self.manifest), f"--photos={self.photos}", f"--out={out}", *model, *more]

    def embed(self, out, *more):
        parser = argparse.ArgumentParser()
        embed_command.add(parser.add_subparsers())
        args = parser.parse_args(self.flags(out, *more))
        args.run(args)

    def start(self, out, *more):
        """A process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "embedder_svc", *self.flags(out, *more)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def path(self, number):
        return self.photos / f"car {number}.png"


@pytest.fixture(scope="module")
def collection(tmp_path_factory, encode, tiny_bundle):
    made = Collection(tmp_path_factory.mktemp("collection"), tiny_bundle)
    made.photos.mkdir()
    rng = np.random.default_rng(0)
    with made.manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "path", "note"])
        for number in range(COUNT):
            content = BROKEN.get(number, encode(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), "PNG"))
            if content is not None:
                made.path(number).write_bytes(content)
            writer.writerow(["citroën_2cv, 1980", f"car {number}.png", f'"{number}"'])
    return made


@pytest.fixture
def plain(tmp_path, encode, tiny_bundle):
    """Photos for a model without a detector."""
    made = Collection(tmp_path / "plain", tiny_bundle)
    made.photos.mkdir(parents=True)
    for number in range(70):
        made.path(number).write_bytes(encode(np.full((6, 8, 3), number, np.uint8), "PNG"))
    made.manifest.write_text("path\n" + "".join(f"car {number}.png\n" for number in range(70)))
    return made


@pytest.fixture(scope="module")
def whole(collection):
    """The artifact of a run that was not interrupted."""
    out = collection.root / "whole"
    collection.embed(out)
    return out


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestArtifact:
    def test_each_row_is_the_embedding_of_its_photo_by_the_servers_own_code(self, collection, whole):
        model = Model.open(collection.model, device="cpu")
        matrix = np.load(whole / "embeddings.npy", mmap_mode="r")
        items = table(whole / "items.csv")
        assert matrix.shape == (COUNT - len(BROKEN), model.info.dimension)
        for row, item in zip(matrix, items, strict=True):
            content = (collection.photos / item["path"]).read_bytes()
            pixels = preprocess.decode(content, resize=model.info.resizing, limits=photo_files.LIMITS)
            np.testing.assert_array_equal(row, model.embed([pixels])[0].astype(np.float16))

    def test_items_are_the_manifests_lines_less_the_unreadable(self, collection, whole):
        expected = [row for number, row in enumerate(table(collection.manifest)) if number not in BROKEN]
        assert table(whole / "items.csv") == expected

    def test_unreadable_photos_are_listed_with_the_reason(self, whole):
        found = {row["path"]: row["reason"].split(":")[0] for row in table(whole / "unreadable.csv")}
        assert found == {
            "car 3.png": "IMAGE_EMPTY",
            "car 70.png": "IMAGE_FORMAT",
            "car 149.png": "No such file or directory",
        }

    def test_its_manifest_says_what_made_it(self, collection, whole):
        info = Model.open(collection.model, device="cpu").info
        fields = read_manifest(whole)
        files, _ = fields.pop("files"), fields.pop("sha256")
        assert fields == {
            "kind": "embeddings",
            "model": info.fingerprint,
            "model_name": info.name,
            "dimension": info.dimension,
            "count": COUNT - len(BROKEN),
            "dtype": "float16",
            "normalized": True,
            "skipped": len(BROKEN),
        }
        assert set(files) == {"embeddings.npy", "items.csv", "unreadable.csv"}

    def test_some_of_the_unreadable_are_named_at_the_end(self, collection, tmp_path, capsys, monkeypatch):
        collection.embed(tmp_path / "out")
        last = capsys.readouterr().err.rpartition("warning: ")[2].splitlines()
        assert last[0] == f"3 photos can't be read and were left out; {tmp_path / 'out' / 'unreadable.csv'} lists them:"
        assert [line.split(":")[0] for line in last[1:-1]] == ["  car 3.png", "  car 70.png", "  car 149.png"]
        assert last[-1] == f"next: vmmr-search build {tmp_path / 'out'} --out index"
        monkeypatch.setattr(embed_command, "_NAMED", 2)
        collection.embed(tmp_path / "again")
        assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()[-4:-1]] == [
            "  car 3.png",
            "  car 70.png",
            "  ...",
        ]

    def test_a_model_that_is_not_there_is_told(self, collection, tmp_path):
        with pytest.raises(
            CommandError, match=rf"^--model \(VMMR_EMBEDDER_MODEL\): there is no folder {tmp_path}/none$"
        ):
            Collection(collection.root, tmp_path / "none").embed(tmp_path / "out")

    def test_the_model_is_the_servers_variable_where_no_flag_is_given(self, collection, tmp_path, monkeypatch):
        """A folder of bundles, too, of which the server's other variable says which."""
        shutil.copytree(collection.model, tmp_path / "models" / "one")
        monkeypatch.setenv("VMMR_EMBEDDER_MODEL", str(tmp_path / "models"))
        without = Collection(collection.root, None)
        without.embed(tmp_path / "out")
        assert (
            json.loads((tmp_path / "out/manifest.json").read_text())["model"]
            == bundle.read(collection.model).fingerprint
        )
        monkeypatch.setenv("VMMR_EMBEDDER_PRECISION", "fp16")
        with pytest.raises(ConfigError, match="--precision"):
            without.embed(tmp_path / "again")
        monkeypatch.setenv("VMMR_EMBEDDER_MODEL", str(tmp_path / "none"))
        with pytest.raises(CommandError, match=f"there is no folder {tmp_path}/none"):
            without.embed(tmp_path / "again")

    def test_nothing_else_is_left_behind(self, collection, whole):
        assert {path.name for path in whole.parent.iterdir()} == {"whole", "manifest.csv", "photos"}

    def test_float32_keeps_the_networks_own_values(self, collection, whole, tmp_path):
        collection.embed(tmp_path / "out", "--dtype=float32")
        matrix = np.load(tmp_path / "out" / "embeddings.npy")
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix.astype(np.float16), np.load(whole / "embeddings.npy"))

    def test_batches_and_threads_change_nothing_but_rounding(self, collection, whole, tmp_path):
        collection.embed(tmp_path / "out", "--batch=100", "--workers=1", "--threads=1")
        np.testing.assert_allclose(
            np.load(tmp_path / "out" / "embeddings.npy"), np.load(whole / "embeddings.npy"), atol=2e-3
        )


class TestCars:
    """With a model that finds cars, the main car of each photo is embedded, and the table says where it was."""

    CARS = ({(1, 1): 255}, {}, {(0, 3): 255, (2, 2): 200})

    @pytest.fixture(scope="class")
    @staticmethod
    def collection(tmp_path_factory, encode, street, car_bundle):
        made = Collection(tmp_path_factory.mktemp("cars"), car_bundle)
        made.photos.mkdir()
        rows = [["path", "label"]]
        for number in range(COUNT):
            content = encode(street(TestCars.CARS[number % 3]), "JPEG", quality=80 + number % 15)
            made.path(number).write_bytes(b"" if number == 4 else content)
            rows.append([made.path(number).name, "a car"])
        with made.manifest.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return made

    @pytest.fixture(scope="class")
    @staticmethod
    def embedded(collection):
        collection.embed(collection.root / "out")
        return collection.root / "out"

    def test_items_say_where_the_car_was_after_the_manifests_own_columns(self, embedded):
        items = table(embedded / "items.csv")
        assert list(items[0]) == [
            "path",
            "label",
            "left",
            "top",
            "right",
            "bottom",
            "car_score",
            "no_car_found",
            "cars",
        ]
        first, second, third = items[:3]
        assert [first[name] for name in ("left", "top", "right", "bottom")] == ["0.25", "0.25", "0.5", "0.5"]
        assert (0.35 < float(first["car_score"]) < 1, first["no_car_found"]) == (True, "false")
        assert [second[name] for name in list(second)[2:]] == ["0", "0", "1", "1", "", "true", "0"]
        assert [third[name] for name in ("left", "top")] == ["0.5", "0.5"]
        assert [item["cars"] for item in (first, second, third)] == ["1", "0", "2"]

    def test_the_manifest_says_how_the_photos_were_cut(self, embedded):
        fields = read_manifest(embedded)
        assert (fields["subject"], fields["cut"], fields["no_car_found"], fields["skipped"]) == ("main car", 100, 49, 1)

    async def test_served_and_offline_are_equal(self, collection, embedded, tmp_path):
        collection.embed(tmp_path / "exact", "--dtype=float32")
        matrix, items = np.load(tmp_path / "exact" / "embeddings.npy"), table(tmp_path / "exact" / "items.csv")
        config = EmbedderConfig(model=collection.model)
        async with _pipeline(Model.open(collection.model, device="cpu"), config, Metrics()) as pipeline:
            photos = [(collection.photos / item["path"]).read_bytes() for item in items[:32]]
            photos = [(content, pipeline.default) for content in photos]
            served = await pipeline.embed(photos, deadline=None)
        np.testing.assert_array_equal(served.embeddings, matrix[:32])
        for cut, item in zip(served.cuts, items, strict=False):
            assert np.float32(cut.box.left) == np.float32(item["left"])
            assert np.float32(cut.box.bottom) == np.float32(item["bottom"])
            assert np.float32(cut.car_score or 0) == np.float32(item["car_score"] or 0)
            assert cut.no_car_found is (item["no_car_found"] == "true")

    def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(self, collection, embedded, tmp_path):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        collection.embed(tmp_path / "out")
        assert contents(tmp_path / "out") == contents(embedded)

    def test_whole_photos_are_embedded_if_asked_for(self, collection, embedded, tmp_path, capsys):
        collection.embed(tmp_path / "out", "--whole")
        items = table(tmp_path / "out" / "items.csv")
        assert {tuple(item[name] for name in list(item)[2:]) for item in items} == {
            ("0", "0", "1", "1", "", "false", "")
        }
        fields = read_manifest(tmp_path / "out")
        assert (fields["subject"], fields["cut"], fields["no_car_found"]) == ("whole", 0, 0)
        model = Model.open(collection.model, device="cpu")
        content = collection.path(0).read_bytes()
        pixels = preprocess.decode(content, resize=model.info.resizing, limits=photo_files.LIMITS)
        row = np.load(tmp_path / "out" / "embeddings.npy")[0]
        np.testing.assert_array_equal(row, model.embed([pixels])[0].astype(np.float16))
        assert not np.array_equal(row, np.load(embedded / "embeddings.npy")[0])

    def test_a_draft_of_whole_photos_is_not_gone_on_with_by_cars(self, collection, tmp_path):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        with pytest.raises(CommandError, match="begun with another subject"):
            collection.embed(tmp_path / "out", "--whole")

    def test_a_draft_from_before_there_were_detectors_is_gone_on_with(self, plain, tmp_path):
        with pytest.raises(StopError):
            stop_after(plain, tmp_path / "out", 1)
        job = tmp_path / "out.partial" / "job.json"
        described = json.loads(job.read_text())
        assert described.pop("subject") == "whole"
        job.write_text(json.dumps(described))
        plain.embed(tmp_path / "out")

    @pytest.mark.parametrize("column", ["left", "cars"])
    def test_a_manifest_that_has_such_a_column_is_refused(self, collection, tmp_path, column):
        changed = Collection(collection.root, collection.model)
        changed.manifest = tmp_path / "manifest.csv"
        changed.manifest.write_text(f"path,{column}\ncar 0.png,1\n")
        with pytest.raises(CommandError, match=f"the manifest has a column `{column}` already"):
            changed.embed(tmp_path / "out")
        assert not (tmp_path / "out.partial").exists()

    def test_a_table_of_another_model_is_no_manifest_for_one_without_a_detector(self, plain, embedded, tmp_path):
        plain.manifest = embedded / "items.csv"
        with pytest.raises(CommandError, match="the manifest has a column `left` already"):
            plain.embed(tmp_path / "out")

    def test_the_last_line_tells_how_many_were_cut(self, collection, tmp_path, capsys):
        collection.embed(tmp_path / "out")
        last = capsys.readouterr().out
        cut = "100 cut to their car, 0 whole, since the car fills them, 49 whole, since no car was found"
        told = f"150 photos in the manifest: 149 embedded by tiny ({cut}); 1 unreadable, listed in unreadable.csv"
        assert last == f"{tmp_path / 'out'}: {told}\n"


class TestResuming:
    def test_a_killed_run_goes_on_to_the_same_bytes(self, collection, whole, tmp_path):
        with held_up(collection, tmp_path) as pipe, collection.start(tmp_path / "out") as process, pipe.open("wb"):
            wait_for_rows(tmp_path / "out.partial" / "journal.jsonl", 128)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (tmp_path / "out").exists()
        assert (tmp_path / "out.partial").exists()

        with collection.start(tmp_path / "out") as process:
            output, errors = process.communicate()
        assert process.returncode == 0, errors
        told = "150 photos in the manifest: 147 embedded by tiny (whole); 3 unreadable, listed in unreadable.csv"
        assert told in output
        assert f"going on with {tmp_path / 'out.partial'}: 128 of 150 photos are done" in errors
        assert "0/22" in errors  # what is left to do
        assert contents(tmp_path / "out") == contents(whole)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_ctrl_c_says_how_to_go_on(self, collection, whole, tmp_path):
        with held_up(collection, tmp_path) as pipe, collection.start(tmp_path / "out") as process:
            with pipe.open("wb"):
                wait_for_rows(tmp_path / "out.partial" / "journal.jsonl", 128)
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        assert process.returncode == 130
        assert errors.endswith("stopped: the same command goes on from here\n")
        assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
        collection.embed(tmp_path / "out")
        assert contents(tmp_path / "out") == contents(whole)

    @given(data=st.data())
    @settings(max_examples=20, deadline=None)
    def test_wherever_the_writing_stopped_the_rest_comes_out_the_same(self, data, collection, whole, tmp_path_factory):
        out = tmp_path_factory.mktemp("cut") / "out"
        draft = out.with_name("out.partial")
        for _ in range(2):
            with pytest.raises(StopError):
                stop_after(collection, out, 1)
            journal = draft / "journal.jsonl"
            lost = data.draw(st.sampled_from([0, 1, 20, 1000]), "lost from the journal")
            os.truncate(journal, max(0, journal.stat().st_size - lost))
            with (draft / "artifact" / "embeddings.npy").open("ab") as matrix:
                matrix.write(b"x" * data.draw(st.sampled_from([0, 1, 10_000]), "torn bytes"))
        collection.embed(out)
        assert contents(out) == contents(whole)

    def test_a_run_killed_while_it_finished_finishes(self, collection, whole, tmp_path):
        """All is done but the rename: header, tables and manifest are written once more."""
        out = tmp_path / "out"
        with pytest.raises(StopError):
            stop_after(collection, out, 3)
        draft = out.with_name("out.partial") / "artifact"
        (draft / "items.csv").write_text("half")
        (draft / "manifest.json").write_text("{}")
        (draft / ".items.csv.deadbeef.tmp").write_text("ha")  # killed within an atomic write
        collection.embed(out)
        assert contents(out) == contents(whole)

    def test_what_a_run_killed_after_its_rename_left_does_not_matter(self, collection, whole, tmp_path):
        leftover = tmp_path / "out.partial"
        leftover.mkdir()
        (leftover / "journal.jsonl").write_text('{"done": 150, "unreadable": {}}\n')
        collection.embed(tmp_path / "out")
        assert contents(tmp_path / "out") == contents(whole)

    def test_another_manifest_is_refused(self, collection, tmp_path):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        changed = Collection(collection.root, collection.model)
        changed.manifest = tmp_path / "manifest.csv"
        changed.manifest.write_text(collection.manifest.read_text() + "x,y.png,z\n")
        with pytest.raises(
            CommandError, match=r"out\.partial was begun with another manifest: go on as it was begun, or delete"
        ):
            changed.embed(tmp_path / "out")

    def test_another_folder_of_photos_is_refused_without_a_word_of_going_on(self, collection, tmp_path, capsys):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        moved = Collection(collection.root, collection.model)
        moved.photos = tmp_path
        with pytest.raises(CommandError, match="begun with another photo folder: "):
            moved.embed(tmp_path / "out")
        assert "going on" not in capsys.readouterr().err

    def test_another_name_of_the_folder_of_photos_is_not_another_folder(self, collection, whole, tmp_path):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        linked = Collection(collection.root, collection.model)
        linked.photos = tmp_path / "link"
        linked.photos.symlink_to(collection.photos)
        linked.embed(tmp_path / "out")
        assert contents(tmp_path / "out") == contents(whole)

    def test_another_model_or_dtype_is_refused(self, collection, make_bundle, tmp_path):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        make_bundle(tmp_path / "other", seed=1)
        changed = Collection(collection.root, tmp_path / "other")
        with pytest.raises(CommandError, match="another model and dtype"):
            changed.embed(tmp_path / "out", "--dtype=float32")

    def test_a_matrix_shorter_than_its_journal_is_refused(self, collection, tmp_path):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        os.truncate(tmp_path / "out.partial" / "artifact" / "embeddings.npy", 300)
        with pytest.raises(ArtifactError, match=r"embeddings\.npy: has fewer rows"):
            collection.embed(tmp_path / "out")

    def test_a_journal_of_something_else_is_refused(self, collection, tmp_path):
        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1)
        (tmp_path / "out.partial" / "journal.jsonl").write_text("{}\n")
        with pytest.raises(ArtifactError, match=r"journal\.jsonl: is damaged"):
            collection.embed(tmp_path / "out")

    def test_two_processes_do_not_write_to_one_draft(self, collection, tmp_path):
        with pytest.raises(CommandError, match="another process is embedding here"):
            stop_after(collection, tmp_path / "out", 1, then=lambda: collection.embed(tmp_path / "out"))

    def test_a_draft_that_is_held_is_not_touched(self, collection, tmp_path):
        """Not even where it looks like a leftover: its artifact is on its way to its place."""
        draft = tmp_path / "out.partial"

        def meddle():
            (draft / "artifact").rename(tmp_path / "elsewhere")
            with pytest.raises(CommandError, match="another process"):
                collection.embed(tmp_path / "out")
            assert {path.name for path in draft.iterdir()} == {"job.json", "journal.jsonl"}

        with pytest.raises(StopError):
            stop_after(collection, tmp_path / "out", 1, then=meddle)

    def test_a_lock_whose_file_was_deleted_is_nobodys(self, tmp_path):
        """The next process makes a new file, and would hold the other one's draft as well."""
        path = tmp_path / "lock"
        with path.open("ab") as file:
            path.unlink()
            assert not embed_draft._lock(file, path)
            path.touch()
            assert not embed_draft._lock(file, path)

    def test_an_artifact_that_appeared_meanwhile_stays(self, collection, whole, tmp_path):
        """`finish` would have to replace it."""
        out = tmp_path / "out"

        def appear():
            out.mkdir()
            (out / "theirs").touch()

        with pytest.raises(StopError):
            stop_after(collection, out, 3, then=appear)
        with pytest.raises(ArtifactError, match=r"out: already exists: delete it, or write to another name"):
            stop_after(collection, out, 0)
        assert [path.name for path in out.iterdir()] == ["theirs"]
        shutil.rmtree(out)
        collection.embed(out)
        assert contents(out) == contents(whole)


class StopError(Exception):
    pass


@contextlib.contextmanager
def held_up(collection, tmp_path):
    """For certain, a run does not end: a photo of the last chunk is a pipe, which gives nothing until it is closed.

    Opening it for writing returns once it is read: all photos before it are decoded by then, or will be.
    """
    photo = collection.path(COUNT - 2)
    aside = photo.rename(tmp_path / "aside")
    os.mkfifo(photo)
    try:
        yield photo
    finally:
        photo.unlink()
        aside.rename(photo)


def stop_after(collection, out, chunks, then=None):
    """Embeds so many chunks, then calls `then`, or stops as a signal would."""

    def act():
        if then:
            then()
        raise StopError

    class Bar(contextlib.nullcontext):
        def __init__(self, total):
            super().__init__(self)
            self.chunks = 0
            self.check()

        def update(self, count):
            self.chunks += 1
            self.check()

        def check(self):
            if self.chunks == chunks:
                act()

    model = Model.open(collection.model, device="cpu")
    manifest = Manifest.read(collection.manifest)
    work = chunks_of.Work(photo_folder.LocalFolder(collection.photos), "float16", whole=False)
    embed.embed(manifest, work, chunks_of.LocalEmbedder(model, work, workers=2), out, bar=Bar)


def wait_for_rows(journal, rows):
    """Returns once the journal covers so many rows."""
    done, end = 0, time.monotonic() + 60
    while done < rows:
        assert time.monotonic() < end
        time.sleep(0.005)
        lines = journal.read_text().splitlines() if journal.exists() else []
        done = json.loads(lines[-1])["done"] if lines else 0


def test_photos_wait_decoded_in_bounded_number_and_come_in_order():
    started = []
    with ThreadPoolExecutor(4) as pool:
        results = chunks_of._map_in_order(pool, lambda number: started.append(number) or number, range(100), ahead=7)
        for expected, number in enumerate(results):
            assert number == expected
            assert len(started) <= expected + 7
    assert len(started) == 100


class TestReading:
    def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_it(self, tmp_path, monkeypatch, resize):
        monkeypatch.setattr(photo_files, "LIMITS", dataclasses.replace(photo_files.LIMITS, max_bytes=1000))
        with (tmp_path / "huge.jpg").open("wb") as file:
            file.truncate(1 << 40)  # takes no room on the disk
        assert "IMAGE_TOO_LARGE" in photo_files.read_pixels(tmp_path / "huge.jpg", resize)

    def test_a_path_that_no_file_can_have_costs_only_itself(self, tmp_path, resize):
        assert "null" in photo_files.read_pixels(tmp_path / "a\0b.jpg", resize)

    def test_a_photo_to_calibrate_on_that_can_not_be_read_is_named_with_the_reason(self, tmp_path, resize):
        (tmp_path / "a.jpg").touch()
        with pytest.raises(CommandError, match=r"a\.jpg: IMAGE_EMPTY: "):
            list(photo_files.batches([tmp_path / "a.jpg"], photo_files.whole(resize), 8))


@pytest.fixture
def resize():
    return preprocess.Resize("squash", 32)


class TestRefused:
    def test_an_artifact_that_is_there(self, collection, whole):
        before = contents(whole)
        with pytest.raises(
            ArtifactError, match=r"whole: is finished: build an index of it \(vmmr-search build\), or delete it"
        ):
            collection.embed(whole)
        assert contents(whole) == before

    def test_a_folder_that_is_not_there(self, collection, tmp_path):
        moved = Collection(collection.root, collection.model)
        moved.photos = tmp_path / "nowhere"
        with pytest.raises(ArtifactError, match="nowhere: is not a directory"):
            moved.embed(tmp_path / "out")

    def test_a_folder_of_other_photos_and_nothing_is_kept_of_the_attempt(self, collection, tmp_path):
        moved = Collection(collection.root, collection.model)
        moved.photos = tmp_path
        with pytest.raises(CommandError, match=r"none of the 150 photos can be read; .*car 0\.png: No such file"):
            moved.embed(tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_values_that_float16_can_not_hold(self, collection, make_bundle, tmp_path):
        from onnx import helper, load, save

        from embedder_svc.network import bundle

        make_bundle(tmp_path / "model")
        graph = load(tmp_path / "model" / "model.onnx")
        graph.graph.node[-1].CopyFrom(helper.make_node("Mul", ["raw", "raw"], ["squares"]))
        graph.graph.node.append(helper.make_node("Exp", ["squares"], ["embeddings"]))
        save(graph, tmp_path / "huge.onnx")
        described = {"name": "huge", "resize": "squash", "precision": "fp32", "normalized": False, "source": "none"}
        described |= {"licence": "none", "training_data": "none", "input_size": 32, "dimension": 16}
        bundle.write(tmp_path / "huge", (tmp_path / "huge.onnx").read_bytes(), **described)
        with pytest.raises(CommandError, match="an embedding is not finite in float16"):
            Collection(collection.root, tmp_path / "huge").embed(tmp_path / "out")

    @pytest.mark.parametrize("flag", ["--batch=0", "--workers=-1", "--threads=two", "--dtype=int8", "--device=tpu"])
    def test_flags_out_of_range(self, collection, tmp_path, flag, capsys):
        with pytest.raises(SystemExit):
            collection.embed(tmp_path / "out", flag)
        assert flag.split("=")[0] in capsys.readouterr().err
