"""A car that the gallery lacks is added while it is served: the commands and the SDK, against the real pair."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import vmmr

COMMAND = Path(sys.executable).with_name("vmmr")


@pytest.fixture(scope="module")
def newcomer(drawn) -> str:
    """A label that the gallery is to lack."""
    return min(path.name for path in drawn.photos.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def others(drawn, make_chain, newcomer, tmp_path_factory):
    """The drawn cars but that."""
    out = tmp_path_factory.mktemp("living")
    shutil.copytree(drawn.photos, out / "photos", ignore=shutil.ignore_patterns(newcomer, ".*"))
    return make_chain(out / "photos", out, shards=2)


@pytest.fixture(scope="module")
def living(others, serve_pair, module_run):
    """The pair over them; its addresses."""
    return serve_pair(module_run, others)


@pytest.fixture
def run(living):
    environment = os.environ | dict(zip(("VMMR_EMBEDDER", "VMMR_SEARCH"), living, strict=True))

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    return run


@pytest.mark.timeout(300)
def test_a_car_that_the_gallery_lacks_is_known_once_it_is_added_and_not_once_it_is_removed(
    run, living, drawn, newcomer, tmp_path
):
    enrolled = sorted((drawn.photos / newcomer).iterdir())[:5]
    asked = enrolled[2]
    (tmp_path / newcomer).mkdir()
    for photo in enrolled:
        shutil.copy(photo, tmp_path / newcomer)

    def answers() -> tuple[str, int]:
        found = json.loads(run("identify", asked, "--json").stdout)
        return found["answer"]["label"], found["provenance"]["journal_sequence"]

    assert answers()[0] != newcomer
    added = run("add", tmp_path, "--batch-id", "new", "--json")
    lines = [json.loads(line) for line in added.stdout.splitlines()]
    assert (added.returncode, len(lines)) == (0, 5), added.stderr
    sequence = max(line["journal_sequence"] for line in lines)
    with vmmr.Client(*living, timeout_s=60) as client:
        options = vmmr.SearchOptions(min_sequence=sequence)
        found = client.identify(asked, options=options)
        assert found.answer.label == newcomer
        assert found.provenance.journal_sequence >= sequence
        assert found.neighbours[0].uri == str(tmp_path / newcomer / asked.name)
    assert answers()[0] == newcomer

    again = run("add", tmp_path, "--batch-id", "new")
    assert "5 photos were in the batch already" in again.stderr
    listed = [json.loads(line) for line in run("list", "--label", newcomer, "--json").stdout.splitlines()]
    assert {item["batch_id"] for item in listed} == {"new"}
    assert len(listed) == 5

    assert run("remove", "--batch-id", "new").stdout == "5 photos removed\n"
    with vmmr.Client(*living, timeout_s=60) as client:
        gone = client.delete_items(batch_id="new")
        assert gone.deleted == 0
        found = client.identify(asked, options=vmmr.SearchOptions(min_sequence=gone.journal_sequence))
        assert found.answer.label != newcomer
        assert all(neighbour.label.label != newcomer for neighbour in found.neighbours)


@pytest.mark.timeout(300)
def test_the_sdk_adds_lists_and_compacts(living, drawn, newcomer):
    photos = sorted((drawn.photos / newcomer).iterdir())[6:9]
    with vmmr.Client(*living, timeout_s=60) as client:
        before = client.info().index
        new = [vmmr.NewItem(photo, label=newcomer, batch_id="sdk", attributes={"seller": "Ann"}) for photo in photos]
        items = [outcome.item for outcome in client.add_photos(new)]
        assert sorted(client.list_items(vmmr.Filter(labels=(newcomer,)), batch_id="sdk"), key=str) == sorted(
            items, key=str
        )
        assert client.get_item(items[0].item_id) == items[0]
        again = client.add_items(items, client.embed(photos))
        assert (again.added, again.replaced, again.unchanged) == (0, 0, 3)

        compacted = client.compact(timeout_s=120)
        assert compacted.items == before.items + 3
        options = vmmr.SearchOptions(min_sequence=again.journal_sequence)
        found = client.search(client.embed(photos[:1]), options=options)
        assert found.neighbours[0][0].item_id == items[0].item_id
        assert client.info().index.version == compacted.index_version != before.version
        versions = client.versions()
        assert [version.index_version for version in versions.versions if version.current] == [compacted.index_version]
        assert versions.journal_depth == 0
        client.delete_items([item.item_id for item in items])


def test_embeddings_of_another_model_are_refused(living):
    with vmmr.Client(*living, timeout_s=60) as client:
        alien = vmmr.Embeddings("0" * 64, np.ones((1, client.info().index.dimension), np.float32))
        with pytest.raises(vmmr.ModelMismatchError):
            client.add_items([vmmr.Item("a", "x")], alien)
