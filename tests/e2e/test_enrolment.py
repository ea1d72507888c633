"""A car that the gallery lacks, from five real photos: the pair as it ships, through the `vmmr` command and the SDK.

How often it is right, for how many photos, is bench/quality/enrolment.py's to measure.
"""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import vmmr

from search_svc.index.version import IndexVersion

LABELS = ("bmw_1_series_coupe_2012", "ford_e_series_wagon_van_2012", "dodge_durango_suv_2012")
ENROLLED = 5


@pytest.fixture(scope="module")
def addresses(root, module_run, tmp_path_factory):
    index = tmp_path_factory.mktemp("enrolment") / "index"
    shutil.copytree(root / "models/stanford-cars", index, ignore=shutil.ignore_patterns("journal.db*"))
    embedder = module_run("-m", "embedder_svc", "serve", "--port", 0)
    search = module_run("-m", "search_svc", "serve", "--port", 0, "--index", index)
    return [f"127.0.0.1:{server.ready()['port']}" for server in (embedder, search)]


@pytest.fixture(scope="module")
def command(addresses):
    def run(*arguments):
        where = ("--embedder", addresses[0], "--search", addresses[1], "--timeout", 60)
        line = [Path(sys.executable).parent / "vmmr", *arguments, *where]
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def photos(root, stanford_cars, tmp_path_factory):
    """By label: those of the gallery that ships, and those of the test part, which nothing was trained or fitted on."""
    manifest = tmp_path_factory.mktemp("split") / "manifest.csv"
    split = [sys.executable, "-m", "search_svc", "split", stanford_cars / "train", "--out", manifest]
    subprocess.run(list(map(str, split)), cwd=root, check=True, capture_output=True)
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in LABELS]
    items = IndexVersion.open(root / "models/stanford-cars", verify=False).items
    known = {items.item_id(row) for row in range(len(items))}
    folder = stanford_cars / "train"
    return {
        label: (
            [folder / row["path"] for row in rows if row["label"] == label and row["path"] in known],
            [folder / row["path"] for row in rows if row["label"] == label and row["split"] == "test"],
        )
        for label in LABELS
    }


def answers(client, paths, sequence=0):
    options = vmmr.SearchOptions(min_sequence=sequence)
    return [outcome.result() for outcome in client.identify_many(paths, options=options)]


def test_a_car_that_is_new_is_known_to_the_next_query_after_five_photos_and_forgotten_once_they_are_removed(
    addresses, command, photos
):
    right = asked = seen = known = 0
    with vmmr.Client(*addresses, timeout_s=60) as client:
        for label, (gallery, tests) in photos.items():
            command("remove", "--label", label)
            sequence = client.versions().journal_sequence
            before = answers(client, tests, sequence)
            assert label not in {each.answer.label for each in before}
            chosen = np.random.default_rng(0).choice(len(gallery), ENROLLED, replace=False)
            added = command("add", *(gallery[row] for row in chosen), "--label", label)
            assert f"{label}  {ENROLLED}" in added.stdout
            after = answers(client, tests, client.versions().journal_sequence)
            assert label in {each.answer.label for each in after}
            right += sum(each.answer.label == label for each in after)
            found = [each for each in after if each.answer.label == label and not each.no_car_found]
            seen += len(found)
            known += sum(each.verdict != "unknown" for each in found)
            asked += len(tests)
            batch = re.search(r"--batch-id (\S+)` takes it out again", added.stderr)[1]
            command("remove", "--batch-id", batch)
            again = answers(client, tests, client.versions().journal_sequence)
            assert [each.answer for each in again] == [each.answer for each in before]
    assert right >= 0.5 * asked
    assert known >= 0.9 * seen


def test_the_very_next_query_waits_for_what_the_sdk_has_just_added(addresses, photos):
    label = "lada_niva_2027"
    with vmmr.Client(*addresses, timeout_s=60) as client:
        gallery, _ = photos[LABELS[0]]
        outcomes = list(client.add_photos(vmmr.NewItem(path, label=label) for path in gallery[:ENROLLED]))
        sequence = max(each.journal_sequence for each in outcomes)
        (found,) = answers(client, gallery[:1], sequence)
        assert label in {each.label.label for each in found.neighbours}
        assert found.provenance.journal_sequence >= sequence
        client.delete_items(label=label)
