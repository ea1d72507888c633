"""Whole photos, from a folder to answers: the commands and a served pair, with a small model that has a detector, to which red is a car."""

import csv
import io
import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import vmmr
from PIL import Image

LABELS = ("honda_civic_2005", "honda_pilot_2011", "lada_niva_1999")
SIDE, FIELD = 128, 32
GREY, RED = (90, 90, 90), (255, 0, 0)
PHOTOS = 12


def photo(*cars: tuple[int, int], shade: int = 0, seed: int = 0) -> bytes:
    """PNG: a grey photo with a car in each of these fields, of 4 x 4; cars of another shade are of another make."""
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    pixels[:] = GREY
    for column, row in cars:
        pixels[FIELD * row : FIELD * (row + 1), FIELD * column : FIELD * (column + 1)] = (255, 0, shade)
    pixels[0, :8, 2] = np.random.default_rng(seed).integers(0, 255, 8)  # no two files are alike
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def box(column: int, row: int) -> vmmr.Box:
    return vmmr.Box(column / 4, row / 4, (column + 1) / 4, (row + 1) / 4)


def command(*arguments: object) -> str:
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def make_model(root):
    """`make_model(folder, detector={})` makes a bundle with a detector."""
    return runpy.run_path(str(root / "tests/embedder_svc/tiny_bundle.py"))["make"]


@pytest.fixture(scope="module")
def chain(make_model, tmp_path_factory):
    """A folder of photos, cars of three shades in many places and one photo without a car, embedded and built."""
    folder = tmp_path_factory.mktemp("chain")
    make_model(folder / "model", detector={})
    rows = []
    for number in range(PHOTOS):
        label = LABELS[number % 3]
        cars = () if number == 0 else ((number % 4, number // 4),)
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / label / f"{number}.png").write_bytes(photo(*cars, shade=120 * (number % 3), seed=number))
        split = "test" if number in (0, 1, 5) else "train"
        rows.append([f"{label}/{number}.png", label, *label.split("_"), split])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "make", "model", "year", "split"], *rows])
    embed = ("embed", folder / "manifest.csv", "--photos", folder / "photos", "--model", folder / "model")
    command("embedder_svc", *embed, "--out", folder / "embeddings")
    command("search_svc", "build", folder / "embeddings", "--out", folder / "index", "--k", 1)
    return folder


@pytest.fixture
def targets(chain, run, tmp_path):
    """The addresses of a served pair, whose gallery may be written to."""
    index = shutil.copytree(chain / "index", tmp_path / "index")
    ports = [
        run("-m", "embedder_svc", "serve", "--port", 0, "--model", chain / "model").ready()["port"],
        run("-m", "search_svc", "serve", "--port", 0, "--index", index).ready()["port"],
    ]
    return [f"127.0.0.1:{port}" for port in ports]


@pytest.fixture
def client(targets):
    with vmmr.Client(*targets) as client:
        yield client


def test_a_car_is_found_wherever_it_is_and_the_whole_photo_is_another_question(client):
    served = client.info()
    assert served.model.detector.name == "tiny-red"
    assert served.index.cuts == vmmr.CutCounts(car=9, whole=0, no_car_found=0, given=0, unknown=0)
    for place in ((0, 0), (3, 1), (2, 3)):
        found = client.identify(photo(place, shade=120))
        assert (found.cut.box, found.answer.label) == (box(*place), LABELS[1])
        assert found.neighbours[0].score == pytest.approx(1, abs=1e-2)
    whole = client.identify(photo((0, 0), shade=120), subject="whole")
    assert whole.cut == vmmr.Cut(vmmr.Box(0, 0, 1, 1))
    assert whole.neighbours[0].score < 0.99
    cropped = client.identify(photo((3, 1), shade=120), crop=box(3, 1))
    assert (cropped.cut, cropped.answer.label) == (vmmr.Cut(box(3, 1)), LABELS[1])


def test_every_car_is_identified_and_where_they_are_is_told(client):
    street = photo((1, 1), (3, 3))
    first, second = client.identify_every_car(street)
    assert {first.cut.box, second.cut.box} == {box(1, 1), box(3, 3)}
    [main] = client.embed([street]).parts
    assert main.cut == first.cut == client.identify(street).cut
    [detected, none] = client.detect([street, photo()])
    assert ([car.box for car in detected], none) == ([first.cut.box, second.cut.box], ())


def test_a_photo_without_a_car_is_unknown_alone_and_not_beside_one_that_shows_it(client):
    [found] = client.identify_every_car(photo())
    assert (found.verdict, found.no_car_found, found.cut.no_car_found) == ("unknown", True, True)
    assert str(found).startswith("no car found in the photo (nearest: ")
    outcomes = [outcome.result() for outcome in client.identify_many([photo((1, 1)), photo()])]
    assert [each.no_car_found for each in outcomes] == [False, True]
    assert not client.identify_car([photo(), photo((1, 1))]).no_car_found
    assert client.identify_car([photo(), photo(seed=1)]).no_car_found


async def test_the_client_for_asyncio_is_told_the_same(targets, client):
    street = photo((1, 1), (3, 3))
    async with vmmr.AsyncClient(*targets) as other:
        every = await other.identify_every_car(street)
        assert [found.cut for found in every] == [found.cut for found in client.identify_every_car(street)]
        assert await other.detect([street]) == client.detect([street])
        assert (await other.identify(photo())).no_car_found


def test_what_of_a_photo_was_embedded_stays_with_it(client):
    new = [
        vmmr.NewItem(photo((0, 3)), label="kia_rio_2009", item_id="car"),
        vmmr.NewItem(photo(), label="kia_rio_2009", item_id="no car"),
        vmmr.NewItem(photo((0, 3), seed=2), label="kia_rio_2009", item_id="whole", subject="whole"),
        vmmr.NewItem(photo((0, 3), seed=3), label="kia_rio_2009", item_id="given", crop=box(0, 2)),
    ]
    outcomes = list(client.add_photos(new))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    client.identify(photo((0, 3)), options=vmmr.SearchOptions(min_sequence=outcomes[-1].journal_sequence))

    def kept():
        return [client.get_item(each.item_id).cut for each in new]

    before = kept()
    assert before[0].box == box(0, 3)
    assert before[1:] == [
        vmmr.Cut(vmmr.Box(0, 0, 1, 1), no_car_found=True),
        vmmr.Cut(vmmr.Box(0, 0, 1, 1)),
        vmmr.Cut(box(0, 2)),
    ]
    counts = vmmr.CutCounts(car=10, whole=1, no_car_found=1, given=1, unknown=0)
    assert client.info().index.cuts == counts
    client.compact()
    assert (kept(), client.info().index.cuts) == (before, counts)


def test_evaluate_counts_photos_without_a_car_and_info_how_the_gallery_was_cut(chain, tmp_path):
    report = tmp_path / "report.json"
    told = command("search_svc", "evaluate", chain / "embeddings", "--index", chain / "index", "--json", report)
    assert "in 1 no car was found: their verdict is unknown" in told
    assert json.loads(report.read_text())["no_car_found"] == 1
    assert json.loads(command("search_svc", "info", chain / "index"))["cuts"]["car"] == 9


def test_a_model_without_a_detector_is_asked_for_cars_in_vain(make_model, run, tmp_path):
    make_model(tmp_path / "model")
    port = run("-m", "embedder_svc", "serve", "--port", 0, "--model", tmp_path / "model").ready()["port"]
    with vmmr.Client(f"127.0.0.1:{port}") as client:
        for ask in (lambda: client.detect([photo()]), lambda: client.embed([vmmr.Photo(photo(), subject="main_car")])):
            with pytest.raises(vmmr.CallError) as refused:
                ask()
            assert (refused.value.status, refused.value.reason) == ("FAILED_PRECONDITION", "NO_DETECTOR")
        [part] = client.embed([photo()]).parts
        assert part.cut == vmmr.Cut(vmmr.Box(0, 0, 1, 1))
