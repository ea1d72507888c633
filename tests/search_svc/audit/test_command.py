import argparse
import csv
import re
import sys
from html import unescape
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from search_svc.audit import command
from search_svc.dataset import photo_list as manifest
from search_svc.dataset.photo_list import Photo
from search_svc.voting.labels import parse
from svckit import cli
from svckit.artifact import write_manifest

LABELS = [f"make{i // 2}_model <b> {i}_2001" for i in range(12)]


def run(*argv):
    """Run the command as its program does."""
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["audit", *map(str, argv)])
    cli.run(lambda: args.run(args), "vmmr-search")


def picture(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


class Collection:
    """Ten photos of each of twelve labels, and whatever a test adds."""

    def __init__(self, path):
        self.rng = np.random.default_rng(0)
        self.photos, self.vectors, self.path = [], [], path
        centres = self.rng.normal(size=(12, 64))
        for place in range(120):
            vector = centres[place // 10] + 0.6 * self.rng.normal(size=64)
            self.add(LABELS[place // 10], f"{place}.jpg", "train", vector, picture(place))

    def add(self, label, name, split, vector, image, **how):
        path = self.path / "photos" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **how)
        self.photos.append(Photo(f"{label}/{name}", parse(label), split))
        self.vectors.append(vector)
        return f"{label}/{name}"

    def copy(self, of, label, name, split):
        vector = self.vectors[of] + 0.1 * self.rng.normal(size=64)
        return self.add(label, name, split, vector, picture(of).crop((0, 4, 152, 120)), quality=40)

    def written(self):
        directory = self.path / "embeddings"
        directory.mkdir()
        matrix = np.array(self.vectors, np.float32)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        np.save(directory / "embeddings.npy", matrix)
        manifest.write(directory / "items.csv", self.photos)
        fields = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 64, "normalized": True}
        write_manifest(directory, {**fields, "count": len(matrix)})
        return directory


@pytest.fixture
def planted(tmp_path):
    collection = Collection(tmp_path)
    collection.leak = collection.copy(3, LABELS[0], "leak.jpg", "test")
    collection.torn = collection.copy(25, LABELS[7], "torn.jpg", "dev")
    collection.wrong = collection.add(LABELS[4], "wrong.jpg", "dev", collection.vectors[91] + 0.4, picture(500))
    collection.odd = collection.add(LABELS[5], "odd & 1#?.jpg", "train", collection.rng.normal(size=64), picture(501))
    return collection


def test_photos_without_a_car_and_with_several_are_listed_if_the_embedder_said_so(tmp_path, capsys):
    directory = Collection(tmp_path).written()
    run(directory, "--photos", tmp_path / "photos", "--out", tmp_path / "before")
    assert "several" not in capsys.readouterr().out
    path = directory / "items.csv"
    heading, *lines = path.read_text().splitlines()
    said = {3: "0,0,1,1,,true,0", 7: "0,0,0.5,1,0.9,false,3"}
    lines = [f"{line},{said.get(row, '0,0,1,1,0.9,false,1')}" for row, line in enumerate(lines)]
    path.write_text("\n".join([f"{heading},left,top,right,bottom,car_score,no_car_found,cars", *lines, ""]))
    fields = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 64, "normalized": True}
    write_manifest(directory, {**fields, "count": 120})
    run(directory, "--photos", tmp_path / "photos", "--out", tmp_path / "out")
    assert ", 1 without a car, 1 with several; " in capsys.readouterr().out
    found = {row["kind"]: row for row in rows(tmp_path / "out/audit.csv") if row["kind"] in ("no-car", "cars")}
    assert (found["no-car"]["path"], found["no-car"]["other"]) == (f"{LABELS[0]}/3.jpg", "")
    assert (found["cars"]["path"], found["cars"]["score"]) == (f"{LABELS[0]}/7.jpg", "3.000")
    assert {row["path"] for row in found.values()}.isdisjoint(row["path"] for row in rows(tmp_path / "out/exclude.csv"))
    assert "Several cars" in (tmp_path / "out/audit.html").read_text()


def test_photos_that_were_embedded_whole_are_not_told_to_have_one_car_each(tmp_path, capsys):
    directory = Collection(tmp_path).written()
    path = directory / "items.csv"
    heading, *lines = path.read_text().splitlines()
    heading = f"{heading},left,top,right,bottom,car_score,no_car_found,cars"
    path.write_text("\n".join([heading, *(f"{line},0,0,1,1,,false," for line in lines), ""]))
    fields = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 64, "normalized": True}
    write_manifest(directory, {**fields, "count": 120})
    run(directory, "--photos", tmp_path / "photos", "--out", tmp_path / "out")
    assert "unlike the others; " in capsys.readouterr().out, "nothing of cars: none was looked for"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_was_planted_is_found_and_nothing_else(planted, tmp_path, capsys):
    out = tmp_path / "new" / "audit"
    run(planted.written(), "--photos", tmp_path / "photos", "--out", out, "--drop-copies")
    listed = {
        (row["kind"], frozenset((row["path"], row["other"])) if row["kind"] == "copy" else row["path"])
        for row in rows(out / "audit.csv")
    }
    original, torn = planted.photos[3].path, planted.photos[25].path
    assert listed == {
        ("copy", frozenset((original, planted.leak))),
        ("copy", frozenset((torn, planted.torn))),
        ("label", planted.wrong),
        ("label", planted.torn),
        ("odd", planted.odd),
    }
    (wrong,) = (row for row in rows(out / "audit.csv") if row["path"] == planted.wrong)
    assert (wrong["label"], wrong["split"], wrong["other_label"]) == (LABELS[4], "dev", LABELS[9])
    reason = f"copies with different labels: {LABELS[2]} and {LABELS[7]}"
    assert rows(out / "exclude.csv") == [
        {"path": path, "reason": why}
        for path, why in sorted([(original, f"a copy of {planted.leak}"), (torn, reason), (planted.torn, reason)])
    ]
    assert capsys.readouterr().out == (
        f"{out}: 124 photos: 2 pairs of copies, 0 pairs that may be copies, 2 labels that look wrong, 1 unlike the others;"
        " 3 photos in exclude.csv\n"
    )


def test_wrong_labels_and_odd_ones_are_excluded_from_the_score_that_is_asked_for(planted, tmp_path):
    embeddings, out = planted.written(), tmp_path / "audit"
    run(
        embeddings,
        "--photos",
        tmp_path / "photos",
        "--out",
        out,
        "--drop-labels",
        "0.3",
        "--drop-odd",
        "99",
        "--drop-copies",
    )
    excluded = {row["path"]: row["reason"] for row in rows(out / "exclude.csv")}
    assert re.fullmatch(r"its label looks wrong \(\d\.\d\d\): like " + re.escape(LABELS[9]), excluded[planted.wrong])
    assert "copies with" in excluded[planted.torn], "the first reason stays"
    assert planted.odd not in excluded
    run(embeddings, "--photos", tmp_path / "photos", "--out", out, "--drop-odd", "0.5")
    excluded = {row["path"]: row["reason"] for row in rows(out / "exclude.csv")}
    assert planted.wrong not in excluded
    assert re.fullmatch(r"unlike the others \(\d\.\d\d\), nobody looked for a car in it", excluded[planted.odd])


def test_the_page_shows_the_photos_from_where_they_are(planted, tmp_path):
    out = tmp_path / "some" / "where"
    run(planted.written(), "--photos", tmp_path / "photos", "--out", out, "--drop-copies")
    html = (out / "audit.html").read_text()
    assert "<b> " not in html.replace("<b>make", ""), "labels are escaped"
    sources = re.findall(r'<img src="([^"]*)"[^>]*loading="lazy"', html)
    assert len(sources) == 10
    for source in sources:
        assert (out / unquote(unescape(source))).resolve().is_file()
        assert not set("?# <") & set(unescape(source)), "as a browser reads it"
    assert html.count("<mark>excluded</mark>") == 4, "the torn photo is shown with its copy and for its label"
    assert "<script" not in html
    assert not re.search(r"https?:", html)


def test_a_folder_that_was_not_embedded_is_told_before_any_work(planted, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run(planted.written(), "--photos", tmp_path / "embeddings", "--out", tmp_path / "audit")
    first = tmp_path / "embeddings" / planted.photos[0].path
    assert str(caught.value) == (
        f"vmmr-search: error: {first}: No such file or directory; is {tmp_path / 'embeddings'} what was embedded?"
    )
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize("count", [0, 1])
def test_a_collection_that_has_nothing_to_compare_is_refused(planted, tmp_path, count):
    del planted.photos[count:], planted.vectors[count:]
    planted.vectors = np.array(planted.vectors).reshape(count, 64)
    with pytest.raises(SystemExit, match=f"error: there is nothing to compare: {count} photos$"):
        run(planted.written(), "--photos", tmp_path / "photos", "--out", tmp_path / "audit")


def test_photos_that_cannot_be_read_are_told_and_the_others_are_looked_at(planted, tmp_path, capsys):
    (tmp_path / "photos" / planted.leak).write_bytes(b"no photo")
    out = tmp_path / "audit"
    run(planted.written(), "--photos", tmp_path / "photos", "--out", out)
    assert f"warning: 1 photos cannot be read, the first is {planted.leak!r}" in capsys.readouterr().err
    assert [row["path"] for row in rows(out / "audit.csv") if row["kind"] == "copy"] == [planted.photos[25].path]


@pytest.mark.parametrize("out", ["photos", "photos/audit", "elsewhere/../photos/audit"])
def test_the_folder_of_photos_is_not_written_to(planted, tmp_path, out):
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match="lies in the folder of photos"):
        run(planted.written(), "--photos", tmp_path / "photos", "--out", tmp_path / out)
    assert [path for path in (tmp_path / "photos").rglob("*") if path not in before] == []


def test_without_the_library_of_the_page_one_is_told_what_to_install(planted, tmp_path, monkeypatch):
    for module in ("search_svc.audit.page", "svckit.page.html"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SystemExit) as caught:
        run(planted.written(), "--photos", tmp_path / "photos", "--out", tmp_path / "audit")
    assert (
        str(caught.value)
        == "vmmr-search: error: jinja2 is missing: pip install ./client '.[report]', in a checkout of vmmr"
    )


def test_nothing_is_excluded_that_no_flag_names(planted, tmp_path, capsys):
    run(planted.written(), "--photos", tmp_path / "photos", "--out", tmp_path / "out")
    assert rows(tmp_path / "out/exclude.csv") == []
    assert (
        "0 photos in exclude.csv: look at audit.html, and say with --drop-copies, --drop-labels"
        in capsys.readouterr().out
    )


def test_what_is_alike_but_for_its_colour_or_a_part_may_be_a_copy_and_is_not_excluded(tmp_path, capsys):
    collection = Collection(tmp_path)
    red, green, blue = picture(3).split()
    part = picture(4)
    part.paste(picture(500).resize((22, 22)), (70, 50))
    for of, name, image in ((3, "colour.png", Image.merge("RGB", (green, red, blue))), (4, "part.png", part)):
        vector = collection.vectors[of] + 0.1 * collection.rng.normal(size=64)
        collection.add(LABELS[7], name, "train", vector, image)
    grey = Image.merge("RGB", [red.point(lambda value: value // 2 + 60)] * 3)
    for name, shift in (("white.png", 0), ("tinted.png", 40)):
        tinted = Image.merge(
            "RGB",
            [
                band.point(lambda v, s=s: min(255, v + s))
                for band, s in zip(grey.split(), (shift, 0, -shift), strict=True)
            ],
        )
        collection.add(LABELS[2], name, "train", 9 * np.eye(64)[0] + 0.05 * collection.rng.normal(size=64), tinted)
    run(collection.written(), "--photos", tmp_path / "photos", "--out", tmp_path / "out", "--drop-copies")
    found = [row for row in rows(tmp_path / "out/audit.csv") if row["kind"] in ("alike", "copy")]
    assert {row["kind"] for row in found} == {"alike"}
    assert any({row["path"], row["other"]} == {f"{LABELS[2]}/white.png", f"{LABELS[2]}/tinted.png"} for row in found)
    assert all(row["note"] == "the pixels differ in places" for row in found)
    assert rows(tmp_path / "out/exclude.csv") == []
    page = (tmp_path / "out/audit.html").read_text()
    assert "May be copies" in page
    assert "at least one is wrong" not in page


def test_an_odd_picture_with_a_car_in_it_is_told_so_and_never_excluded(planted, tmp_path, capsys):
    directory = planted.written()
    path = directory / "items.csv"
    heading, *lines = path.read_text().splitlines()
    lines = [f"{line},0,0,1,1,0.9,false,1" for line in lines]
    path.write_text("\n".join([f"{heading},left,top,right,bottom,car_score,no_car_found,cars", *lines, ""]))
    fields = {"kind": "embeddings", "model": "f" * 64, "model_name": "m", "dimension": 64, "normalized": True}
    write_manifest(directory, {**fields, "count": len(lines)})
    run(directory, "--photos", tmp_path / "photos", "--out", tmp_path / "out", "--drop-odd", "0.1")
    (odd,) = (row for row in rows(tmp_path / "out/audit.csv") if row["kind"] == "odd")
    assert odd["note"] == "a car was found in it"
    assert rows(tmp_path / "out/exclude.csv") == []
    assert "1 unlike the others (1 of them with a car)" in capsys.readouterr().out
    assert "a car was found in it" in (tmp_path / "out/audit.html").read_text()
