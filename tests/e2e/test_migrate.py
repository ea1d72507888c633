"""`vmmr-search migrate` between two models, small ones with real graphs: real photos' files, embedders, searchers and commands."""

import asyncio
import csv
import dataclasses
import io
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
import vmmr
from PIL import Image

from search_svc.dataset.embeddings import Embeddings
from search_svc.index.base import VersionBase
from search_svc.index.index_dir import current
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.repair import repair
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add

LABELS = ("honda_civic_2005", "honda_pilot_2011", "lada_niva_1999")
PHOTOS = 12


def photo(number):
    """PNG: no two are alike."""
    pixels = np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def models(root, tmp_path_factory):
    make = runpy.run_path(str(root / "tests/embedder_svc/tiny_bundle.py"))["make"]
    folder = tmp_path_factory.mktemp("models")
    make(folder / "old", name="old", seed=0)
    make(folder / "new", name="new", seed=1, dimension=24)
    return folder


@pytest.fixture(scope="module")
def embedders(models, module_run):
    """The addresses of both, by name."""
    processes = {
        name: module_run("-m", "embedder_svc", "serve", "--port", 0, "--model", models / name)
        for name in ("old", "new")
    }
    return {name: f"127.0.0.1:{process.ready()['port']}" for name, process in processes.items()}


def command(*arguments):
    return subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)


def well(*arguments):
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(models, tmp_path_factory):
    """A folder of photos, and an index of them by the old model."""
    folder = tmp_path_factory.mktemp("built")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "make", "model", "year", "split"])
        for number in sorted(range(PHOTOS), key=uri):
            path = folder / "photos" / uri(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo(number))
            writer.writerow([uri(number), path.parent.name, *path.parent.name.split("_"), "train"])
    embed = ("embed", folder / "manifest.csv", "--photos", folder / "photos", "--model", models / "old")
    well("embedder_svc", *embed, "--out", folder / "embedded")
    well("search_svc", "build", folder / "embedded", "--out", folder / "old", "--k", 3, "--shards", 2)
    return folder


@pytest.fixture
def photos(built, tmp_path):
    return shutil.copytree(built / "photos", tmp_path / "photos")


@pytest.fixture
def old(built, tmp_path):
    return shutil.copytree(built / "old", tmp_path / "old")


@pytest.fixture
def serve(run):
    def start(index):
        return f"127.0.0.1:{run('-m', 'search_svc', 'serve', '--port', 0, '--index', index).ready()['port']}"

    return start


@pytest.fixture
def migrate(old, photos, embedders, tmp_path):
    """`migrate(...)`: the ended command, from the old index to the new one."""

    def run(*flags, embedder="new"):
        where = () if "--photos" in flags else ("--photos", photos)
        named = ("--embedder", embedders[embedder])
        return command("search_svc", "migrate", old, tmp_path / "new", *named, *where, *flags)

    return run


def answers(client, numbers, sequence=0):
    """The item that each photo is found as, once the journal is known up to that entry."""
    options = vmmr.SearchOptions(min_sequence=sequence)
    found = client.identify_many([photo(number) for number in numbers], options=options)
    return [outcome.result().neighbours[0].item_id for outcome in found]


def uri(number):
    return f"{LABELS[number % 3]}/{number}.png"


class TestSideBySide:
    def test_each_model_s_queries_are_answered_by_its_own_index_and_refused_by_the_other(
        self, old, migrate, serve, embedders, tmp_path
    ):
        old_search = serve(old)
        with vmmr.Client(embedders["old"], old_search, timeout_s=30) as before:
            fresh = vmmr.Item("from the street", "lada_niva_1999", uri(2), batch_id="may", attributes={"dealer": "7"})
            before.add_items([fresh], before.embed([photo(2)]))
            kept = before.get_item("from the street")
            assert kept == dataclasses.replace(fresh, cut=vmmr.Cut(vmmr.Box(0, 0, 1, 1)))
            written = before.delete_items(item_ids=[uri(0), uri(2)]).journal_sequence
            done = migrate()
            assert done.returncode == 0, done.stderr
            assert f"11 photos of 3 labels (11 embedded now), of new ({embedder_model(embedders)[:12]})" in done.stdout
            assert "not calibrated: confidences of one model are none of another's" in done.stdout
            new_search = serve(tmp_path / "new")
            with vmmr.Client(embedders["new"], new_search, timeout_s=30) as after:
                right = [uri(1), "from the street", *map(uri, range(3, PHOTOS))]
                assert answers(after, range(1, PHOTOS)) == right
                assert answers(before, range(1, PHOTOS), written) == right
                assert after.get_item("from the street") == kept
                assert after.info().index.cuts == vmmr.CutCounts(0, 11, 0, 0, 0), "the new embedder says what it took"
                assert after.info().index.k == 3
            with vmmr.Client(embedders["old"], new_search, timeout_s=30) as mixed:
                with pytest.raises(vmmr.ModelMismatchError) as caught:
                    mixed.identify(photo(1))
                assert caught.value.metadata["expected"] == embedder_model(embedders)
                assert embedder_model(embedders)[:12] in str(caught.value)
        made = IndexVersion.open(tmp_path / "new", verify=False)
        assert [made.items.item_id(row) for row in range(11)] == [
            *sorted(uri(number) for number in range(PHOTOS) if number not in (0, 2)),
            "from the street",
        ]
        assert (len(made.manifest.shards), made.manifest.dimension, made.manifest.journal_sequence) == (2, 24, 0)

    def test_run_again_embeds_what_is_new_and_the_server_beside_switches_to_it(
        self, old, migrate, serve, embedders, tmp_path
    ):
        assert migrate().returncode == 0
        with vmmr.Client(embedders["new"], serve(tmp_path / "new"), timeout_s=30) as after:
            again = migrate()
            assert "nothing was built" in again.stdout, again.stderr
            (tmp_path / "photos/late.png").write_bytes(photo(100))
            with vmmr.Client(embedders["old"], serve(old), timeout_s=30) as before:
                item = vmmr.Item("late", "honda_pilot_2027", "late.png")
                before.add_items([item], before.embed([photo(100)]))
            assert "13 photos of 4 labels (1 embedded now)" in migrate().stdout
            end = time.monotonic() + 30
            while after.info().index.version != "000002":
                assert time.monotonic() < end
            assert answers(after, [100, 5]) == ["late", uri(5)]

    def test_a_photo_that_was_replaced_under_its_id_and_uri_is_embedded_again(
        self, old, migrate, serve, embedders, tmp_path
    ):
        assert migrate().returncode == 0
        (tmp_path / "photos" / uri(5)).write_bytes(photo(100))
        with vmmr.Client(embedders["old"], serve(old), timeout_s=30) as before:
            before.add_items([vmmr.Item(uri(5), LABELS[2], uri(5))], before.embed([photo(100)]))
        assert "12 photos of 3 labels (1 embedded now)" in migrate().stdout
        with vmmr.Client(embedders["new"], serve(tmp_path / "new"), timeout_s=30) as after:
            assert after.identify(photo(100)).neighbours[0].score > 0.999

    def test_what_was_written_to_the_new_index_is_not_built_over(self, migrate, serve, embedders, tmp_path):
        assert migrate().returncode == 0
        with vmmr.Client(embedders["new"], serve(tmp_path / "new"), timeout_s=30) as after:
            after.add_items([vmmr.Item("x", "lada_niva_1999")], after.embed([photo(7)]))
        done = migrate()
        assert (done.returncode, current(tmp_path / "new")) == (1, "000001")
        assert "was written to: it lives a life of its own now" in done.stderr


class TestStopping:
    def test_a_migration_that_was_killed_goes_on_from_what_it_had_embedded(
        self, migrate, old, photos, embedders, tmp_path
    ):
        command_line = [sys.executable, "-m", "search_svc", "migrate", old, tmp_path / "new", "--batch", 1]
        command_line += ["--embedder", embedders["new"], "--photos", photos]
        fifo = photos / uri(9)
        fifo.unlink()
        os.mkfifo(fifo)  # the photo after eight others never comes
        with subprocess.Popen(list(map(str, command_line)), stderr=subprocess.DEVNULL) as stopped:
            end = time.monotonic() + 60
            while embedded(tmp_path / "new") < 1:
                assert time.monotonic() < end
                time.sleep(0.02)
            stopped.send_signal(signal.SIGKILL)
        had = embedded(tmp_path / "new")
        fifo.unlink()
        fifo.write_bytes(photo(9))
        done = migrate()
        assert f"12 photos of 3 labels ({PHOTOS - had} embedded now)" in done.stdout, done.stderr
        assert 0 < had < PHOTOS

    def test_an_embedder_that_is_gone_is_told_with_its_address(self, migrate, old, tmp_path):
        done = command("search_svc", "migrate", old, tmp_path / "new", "--embedder", "127.0.0.1:9", "--timeout", 2)
        assert done.returncode == 1
        assert "vmmr-search: error: 127.0.0.1:9: " in done.stderr
        assert "Traceback" not in done.stderr


class TestBadInput:
    def test_all_photos_that_cannot_be_embedded_are_named_and_nothing_is_built_unless_they_are_to_be_skipped(
        self, migrate, photos, tmp_path
    ):
        (photos / uri(3)).unlink()
        (photos / uri(4)).write_bytes(b"no picture")
        done = migrate()
        assert done.returncode == 1
        assert "2 photos cannot be embedded, and nothing was built (--skip-missing leaves them out)" in done.stderr
        assert f"  {uri(3)}: [Errno 2] No such file or directory" in done.stderr
        assert f"  {uri(4)}: " in done.stderr
        assert not (tmp_path / "new/CURRENT").exists()
        done = migrate("--skip-missing")
        assert "10 photos of 3 labels (0 embedded now, 2 left out)" in done.stdout, done.stderr
        assert f"left out: {uri(3)}: " in done.stderr
        (photos / uri(3)).write_bytes(photo(3))
        assert "11 photos of 3 labels (1 embedded now, 1 left out)" in migrate("--skip-missing").stdout

    def test_the_gallery_of_a_journal_that_was_repaired_is_migrated_though_its_last_entry_was_lost(
        self, migrate, old, tmp_path
    ):
        base = VersionBase(IndexVersion.open(old))
        writer = JournalWriter(old, lambda: base)
        for name in ("kept", "lost"):
            writer.commit([Add({name: base.item(uri(1))})])
        writer.close()
        with closing(sqlite3.connect(old / "journal.db")) as other, other:
            other.execute("UPDATE entries SET label = 'flipped' WHERE item_id = 'lost'")
        assert repair(old).lost == [2]
        done = migrate()
        assert "13 photos of 3 labels (13 embedded now)" in done.stdout, done.stderr
        assert "up to entry 2 of its journal" in done.stdout
        made = IndexVersion.open(tmp_path / "new", verify=False)
        assert made.items.row("kept") is not None
        assert made.items.row("lost") is None
        assert "nothing was built" in migrate().stdout

    def test_uris_lead_nowhere_but_below_the_folder(self, migrate, serve, old, embedders):
        with vmmr.Client(embedders["old"], serve(old), timeout_s=30) as client:
            uris = ("../secret.png", "/etc/hostname", "", "http://127.0.0.1:9/x.png")
            items = [vmmr.Item(f"bad {n}", LABELS[0], uri) for n, uri in enumerate(uris)]
            client.add_items(items, client.embed([photo(50 + n) for n in range(len(items))]))
        said = migrate().stderr
        assert "4 photos cannot be embedded" in said
        for number, reason in enumerate(["its uri leads out of", "its uri leads out of", "has no uri", "127.0.0.1"]):
            (line,) = [line for line in said.splitlines() if line.startswith(f"  bad {number}: ")]
            assert reason in line

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--batch", 0), "--batch must be >= 1, got 0"),
            (("--photos", "nowhere"), "--photos: there is no folder nowhere"),
            (("--factory", "Rubbish"), "Rubbish"),
        ],
    )
    def test_flags_that_make_no_sense_are_refused(self, migrate, flags, said):
        done = migrate(*flags)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    def test_the_model_that_the_index_has_already_is_refused(self, migrate):
        assert "already, which the embedder serves" in migrate(embedder="old").stderr


def test_confidences_are_fitted_anew_on_dev_photos_of_the_new_model_and_of_no_other(tmp_path, models, embedders, run):
    """Three hundred photos of six labels, noise about one picture each."""
    rows, rng = [], np.random.default_rng(0)
    means = rng.integers(40, 210, (6, 8, 8, 3))
    for number in range(300):
        label = f"make_model{number % 6}_2000"
        pixels = (means[number % 6] + rng.normal(0, 40, (8, 8, 3))).clip(0, 255).astype(np.uint8)
        path = tmp_path / "photos" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(path)
        split = "dev" if number < 150 else "train"
        rows.append([f"{label}/{number}.png", label, "make", f"model{number % 6}", 2000, split])
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "make", "model", "year", "split"], *rows])
    for name in ("old", "new"):
        embed = ("embed", manifest, "--photos", tmp_path / "photos", "--model", models / name)
        well("embedder_svc", *embed, "--out", tmp_path / f"{name}-embeddings")
    well("search_svc", "build", tmp_path / "old-embeddings", "--out", tmp_path / "old")
    assert IndexVersion.open(tmp_path / "old").calibration
    flags = ("--embedder", embedders["new"], "--photos", tmp_path / "photos")
    done = command(
        "search_svc", "migrate", tmp_path / "old", tmp_path / "new", *flags, "--dev", tmp_path / "old-embeddings"
    )
    assert done.returncode == 1
    assert f"the dev photos are of the model {Embeddings.open(tmp_path / 'old-embeddings').model}" in done.stderr
    told = well(
        "search_svc", "migrate", tmp_path / "old", tmp_path / "new", *flags, "--dev", tmp_path / "new-embeddings"
    )
    assert "calibrated on 150 dev photos" in told
    migrated = IndexVersion.open(tmp_path / "new")
    well("search_svc", "build", tmp_path / "new-embeddings", "--out", tmp_path / "built")
    built = IndexVersion.open(tmp_path / "built")
    assert migrated.calibration.photos == built.calibration.photos == 150
    assert (migrated.manifest.k, migrated.manifest.temperature) == (
        built.manifest.k,
        pytest.approx(built.manifest.temperature, rel=1e-2),
    )


async def asked_asynchronously(address):
    async with vmmr.AsyncClient(address) as client:
        return await client.model_info()


def test_the_model_is_told_by_the_embedder_alone(embedders):
    with vmmr.Client(embedders["new"], "127.0.0.1:9") as client:
        told = client.model_info()
    assert (told.name, told.dimension) == ("new", 24)
    assert asyncio.run(asked_asynchronously(embedders["new"])) == told


def embedder_model(embedders):
    with vmmr.Client(embedders["new"]) as client:
        return client.model_info().fingerprint


def embedded(directory):
    """Photos that a migration has put on the disk."""
    try:
        connection = sqlite3.connect(f"file:{directory / 'migration.db'}?mode=ro", uri=True)
        return connection.execute("SELECT count(*) FROM remade").fetchone()[0]
    except sqlite3.Error:
        return 0
