"""Photos that are nearly the same as one of the gallery, which was built of drawn cars, are warned of when they are added."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def addresses(serve_pair, module_run, drawn, tmp_path_factory):
    """The pair over a copy of the index, which is written to."""
    index = tmp_path_factory.mktemp("copied") / "index"
    shutil.copytree(drawn.index, index)
    return serve_pair(module_run, type(drawn)(drawn.photos, drawn.embeddings, index))


@pytest.fixture
def add(addresses, tmp_path):
    def add(*arguments):
        where = ("--embedder", addresses[0], "--search", addresses[1], "--timeout", "60")
        line = [Path(sys.executable).parent / "vmmr", "add", *arguments, *where]
        done = subprocess.run(list(map(str, line)), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    return add


@pytest.fixture(scope="module")
def original(drawn):
    """(item id, label) of a photo of the gallery."""
    item_id = (drawn.embeddings / "items.csv").read_text().splitlines()[1].split(",")[0]
    return item_id, Path(item_id).parts[0]


def test_a_photo_saved_anew_is_told_by_the_photo_that_it_is_a_copy_of(add, original, drawn, tmp_path):
    item_id, label = original
    with Image.open(drawn.photos / item_id) as photo:
        photo.convert("RGB").save(tmp_path / "anew.jpg", quality=97)
        photo.convert("RGB").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / "other.png")
    done = add("anew.jpg", "other.png", "--label", label)
    warned = re.findall(
        r"^vmmr: warning: (.*): nearly the same photo is in the gallery: (.*)$", done.stderr, re.MULTILINE
    )
    assert [name for name, _ in warned] == ["anew.jpg"]
    assert re.fullmatch(rf"{re.escape(item_id)} \('{label}', similarity (0\.9[5-9]|1\.0)\d+\)", warned[0][1])


def test_one_that_is_added_with_another_label_is_warned_of_loudly(add, original, drawn, tmp_path):
    item_id, label = original
    with Image.open(drawn.photos / item_id) as photo:
        photo.convert("RGB").save(tmp_path / "wrong.jpg", quality=96)
    done = add("wrong.jpg", "--label", "lada_niva_1999", "--json")
    told = json.loads(done.stdout)
    assert (told["near_copy"], told["nearest"]["label"]["label"]) == (True, label)
    assert "vmmr: WARNING: wrong.jpg: nearly the same photo is in the gallery WITH ANOTHER LABEL: " in done.stderr
    assert done.stderr.count("this one was added as 'lada_niva_1999'") == 1
