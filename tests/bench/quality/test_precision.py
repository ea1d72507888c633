"""bench/quality/precision.py chooses what ships, so it is tested."""

import re
from pathlib import Path

import numpy as np
import pytest

from bench.quality import precision as bench_precision
from embedder_svc.network import bundle
from tests.embedder_svc import tiny_bundle


@pytest.fixture
def precision():
    return bench_precision


def row(name, label, split, make=""):
    return {"path": name, "label": label, "make": make or label, "split": split}


class TestHits:
    def test_by_hand(self, precision):
        """In the plane; the vectors' lengths do not matter. The second query is nearest to a car of its make alone."""
        degrees = {"g0": 0, "g1": 40, "g2": 90, "q0": 10, "q1": 35, "q2": 300}
        rows = [row("g0", "a1", "train", "a"), row("g1", "a2", "train", "a"), row("g2", "b", "train")]
        rows += [row("q0", "a1", "dev", "a"), row("q1", "a1", "dev", "a"), row("q2", "b", "dev")]
        radians = np.radians([degrees[each["path"]] for each in rows])
        vectors = np.stack([np.cos(radians), np.sin(radians)], 1) * np.arange(1, 7)[:, None]
        hits = precision.Photos(("path",), rows).hits(vectors, "dev")
        assert hits.top1.tolist() == [True, False, False]
        assert hits.make.tolist() == [True, True, False]
        assert hits.top5.tolist() == [True, True, True]  # there are but three photos

    def test_top5_is_of_five_photos(self, precision):
        rows = [row(f"g{number}", "other" if number < 5 else "own", "train") for number in range(6)]
        vectors = np.array([[1, 0.1 * number] for number in range(6)] + [[1, 0]])
        assert not precision.Photos(("path",), [*rows, row("q", "own", "dev")]).hits(vectors, "dev").top5[0]


def test_the_interval_of_a_difference_is_that_of_its_standard_error(precision):
    differences = 100.0 * np.repeat([1, -1, 0], [30, 10, 360])
    low, high = precision.interval(differences)
    reach = 1.96 * differences.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((5 - reach, 5 + reach), abs=0.4)
    assert precision.interval(np.zeros(9)) == (0, 0)


@pytest.fixture
def place(tmp_path, encode):
    """Photos of two drawn cars and their manifest, and two bundles: the second embeds all photos alike, nearly."""
    rng = np.random.default_rng(0)
    lines = ["path,label,make,model,year,split"]
    for label, level in (("a_x_2001", 60), ("b_y_2002", 200)):
        for number, split in enumerate(("train", "train", "dev", "test", "train")):
            pixels = np.clip(level + rng.normal(0, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
            (tmp_path / f"{label}{number}.png").write_bytes(encode(pixels, "PNG"))
            lines.append(f"{label}{number}.png,{label},{label[0]},x,2001,{split}")
    (tmp_path / "manifest.csv").write_text("\n".join([*lines, "gone.png,c_z_2003,c,z,2003,dev"]))
    tiny_bundle.make(tmp_path / "full")
    tiny_bundle.make(tmp_path / "small", dimension=8, precision="int8", flip=True)
    return tmp_path


def measure(precision, place, *flags):
    bundles = [str(place / name) for name in ("full", "small")]
    where = [f"--photos={place}", f"--work={place / 'work'}", "--rounds=1"]
    precision.main([str(place / "manifest.csv"), *bundles, *where, *flags])


def test_a_table_says_what_each_bundle_is_and_finds(precision, place, capsys):
    """The dev photo of a label that the gallery lacks is not looked for."""
    measure(precision, place)
    told = capsys.readouterr()
    rows = [line.strip("| ").split(" | ") for line in told.out.splitlines() if re.match(r"\| (full|small) ", line)]
    assert "dev: 2 photos, 6 in the gallery" in told.out
    assert [cells[:6] for cells in rows] == [
        ["full", "fp32", "squash", "32", "no", "16"],
        ["small", "int8", "squash", "32", "yes", "8"],
    ]
    assert rows[0][7:10] == ["100.00"] * 3
    assert re.fullmatch(r"[+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\]", rows[1][10])
    assert rows[0][12] == "1.00"
    assert float(rows[1][11]) / float(rows[0][11]) == pytest.approx(float(rows[1][12]), abs=0.0051)  # of two decimals
    assert "best top-1: " in told.out
    assert "NO GPU: CUDA IS NOT MEASURED" in told.err


def test_embeddings_that_are_there_are_used_and_only_the_same_models(precision, place, capsys):
    measure(precision, place)
    made = sorted((place / "work").glob("*/embeddings.npy"))
    assert len(made) == 2
    first = capsys.readouterr().out
    (place / "a_x_20010.png").write_bytes(b"gone")
    measure(precision, place)
    assert sorted((place / "work").glob("*/embeddings.npy")) == made
    again = capsys.readouterr().out
    assert [line.split(" | ")[:11] for line in again.splitlines()] == [
        line.split(" | ")[:11] for line in first.splitlines()
    ]


def test_embeddings_of_some_of_the_photos_do_not_stand_for_all(precision, place, capsys):
    measure(precision, place, "--per-class=1")
    assert "dev: 2 photos, 2 in the gallery" in capsys.readouterr().out
    measure(precision, place)
    assert "dev: 2 photos, 6 in the gallery" in capsys.readouterr().out
    assert len(list((place / "work").glob("*/embeddings.npy"))) == 4


def test_nothing_is_chosen_by_the_test_photos(precision, place, capsys):
    measure(precision, place, "--split=test")
    told = capsys.readouterr().out
    assert "test: 2 photos" in told
    assert "best" not in told
    assert "smallest" not in told


def test_the_smallest_file_that_costs_little_is_named(precision, capsys):
    def measured(name, top1, megabytes):
        interval = (0.0, 0.0)
        return precision.Row(Path(name), bundle, megabytes, top1, 99.0, 99.0, 0.0, interval)

    rows = [measured("fp32", 90.0, 94.0), measured("fp16", 90.1, 47.0), measured("int8", 89.75, 24.0)]
    precision._choose(rows)
    assert capsys.readouterr().out.split("\n")[1:3] == [
        "best top-1: fp16",
        "smallest within 0.3 points of the first: int8",
    ]
    precision._choose([*rows[:2], measured("int8", 89.65, 24.0)])
    assert "smallest within 0.3 points of the first: fp16" in capsys.readouterr().out
