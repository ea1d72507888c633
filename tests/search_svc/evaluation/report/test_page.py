"""The page that `vmmr-search evaluate --html` writes, parsed as HTML."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from search_svc.dataset.photo_list import Photo
from search_svc.evaluation.report.page import page
from search_svc.voting.labels import parse

HOSTILE = '<script>alert(1)</script>_"><img src=//evil onerror=x>_2005'
TWIN = "{{ 7 * 7 }}&amp;'_$x^{2}$_2006"
VOID = {"meta", "wbr", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Parses a page into its elements with their attributes, its text, and the figures and cells of each table by its id."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], ""
        self.figures, self.cells = {}, {}
        self._table = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = attributes["id"]
            self.figures[self._table], self.cells[self._table] = [], []
        if tag == "td":
            self.cells[self._table].append("")
        if tag == "data" and self._table:
            self.figures[self._table].append(float(attributes["value"]))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements are closed in the order in which they were opened"
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        self.text += data
        if "td" in self.open:
            self.cells[self._table][-1] += data


def evaluate(*arguments):
    """Run the command as a process that prints whether matplotlib and jinja2 were imported."""
    code = "import sys; from search_svc.__main__ import main; main(); print(sorted({'matplotlib', 'jinja2'} & {*sys.modules}))"
    command = [sys.executable, "-c", code, "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def index(tmp_path, write_embeddings):
    """An index, with photos of two labels that look alike, of two others, of a label that it lacks, and of no car."""
    rng = np.random.default_rng(0)
    names = [HOSTILE, TWIN, "honda_civic_2005", "honda_civic_2006", "kia_soul_2012"]
    centres = np.eye(16)[[0, 0, 1, 2, 3]]
    matrix = np.repeat(centres, 12, axis=0) + 0.2 * rng.standard_normal((60, 16))
    photos = [
        Photo(f"<b>&{row}.jpg", parse(names[row // 12]), "unseen-test" if row >= 48 else ("train", "test")[row % 2])
        for row in range(60)
    ]
    write_embeddings(tmp_path / "embeddings", matrix, photos, model_name="<i>model</i>")
    scenes = [Photo(f"scene {row}.jpg", parse("scene"), "test") for row in range(9)]
    write_embeddings(tmp_path / "scenes", rng.standard_normal((9, 16)), scenes)
    command = [sys.executable, "-m", "search_svc", "build", tmp_path / "embeddings", "--out", tmp_path / "index"]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def run_of(index):
    def made(*flags):
        asked = ("--split", "test,unseen-test", "--not-cars", index / "scenes")
        done = evaluate(index / "embeddings", "--index", index / "index", *asked, *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return made


def test_the_command_writes_a_page_of_its_own_that_says_what_the_json_says(run_of, index):
    stdout = run_of("--json", index / "out" / "r.json", "--html", index / "out" / "r.html")
    report = json.loads((index / "out" / "r.json").read_text())
    found = Page((index / "out" / "r.html").read_text())
    assert found.open == []
    assert_standalone((index / "out" / "r.html").read_text(), found)
    assert_same_figures(found, report)
    assert {HOSTILE, TWIN} <= set(found.cells["confused"]), "labels are text, whatever they hold"
    assert {each["item"] for each in report["worst"]} <= set(found.cells["worst"])
    assert "<i>model</i>" in found.text
    assert f"{report['photos']} photos of the split test,unseen-test" in stdout


def test_neither_the_table_nor_the_json_needs_what_the_page_needs(run_of, index):
    assert run_of("--json", index / "r.json").splitlines()[-1] == "[]"
    assert run_of("--html", index / "r.html").splitlines()[-1] == "['jinja2', 'matplotlib']"


def test_without_the_extra_the_page_is_refused_before_any_work(index):
    code = "import sys; sys.modules['matplotlib'] = None; from search_svc.__main__ import main; main()"
    flags = ("--index", index / "nothing here", "--html", index / "r.html")
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "none", *map(str, flags)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "vmmr-search: error: --html needs matplotlib: pip install ./client '.[report]', in a checkout of vmmr\n"
    )


def test_a_calibrated_index_shows_before_and_after_and_its_verdicts(examined, assembled):
    known = [examined("audi_a4_2011", "audi_a4_2011", confidence=0.8, verdict="known", score=0.9) for _ in range(9)]
    known += [examined("audi_a4_2011", "bmw_m3_2012", confidence=0.9, verdict="unsure", score=0.45)]
    unknown = [
        examined("kia", "misc", known=False, confidence=0.2, verdict=name, score=0.3) for name in ("unknown", "known")
    ]
    report = assembled([*known, *unknown], calibrated=True)
    text = page(report)
    found = Page(text)
    assert_standalone(text, found)
    level = report.confidence[0]
    assert found.figures["ece"][:4] == [
        level.shares.ece.value,
        level.calibrated.ece.value,
        level.calibrated.by_chance.value,
        level.aurc.value,
    ]
    assert found.figures["verdicts"] == [0, 0.5]
    assert (
        "0.4: set to call 5\u00a0% of known cars unknown where a car is found in the photo, on the 77 photos"
        in found.text
    )
    assert "unsure" in found.cells["worst"]
    assert "threshold" in found.text
    assert "not calibrated" not in found.text


def test_sections_of_what_was_not_asked_for_are_left_out(examined, assembled):
    found = Page(page(assembled([examined("misc", "misc")])))
    assert found.figures.keys() == {"accuracy", "vote-gain", "recall", "ece", "cuts", "makes"}


def test_the_same_report_is_the_same_page(examined, assembled):
    report = assembled([examined("misc", "misc"), examined("misc", "audi_a4_2011")])
    assert page(report) == page(report)


def assert_standalone(text, found):
    """Assert that the page fetches nothing and runs nothing."""
    assert "://" not in text
    tags = {tag for tag, _ in found.elements}
    assert not tags & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "image",
        "video",
        "i",
        "b>",
    }
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")]
        assert all(value.startswith("#") for name, value in attributes.items() if name.endswith("href"))
        assert all(
            target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", attributes.get("style") or "")
        )
    policy = {
        attributes.get("http-equiv"): attributes.get("content") for tag, attributes in found.elements if tag == "meta"
    }
    assert policy["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    drawn = sum(tag == "svg" for tag, _ in found.elements)
    assert drawn >= 5
    assert {value[1:] for _, attributes in found.elements for name, value in attributes.items() if name == "href"} <= {
        *ids
    }


def assert_same_figures(found, report):
    """Assert that every table has the figures of the JSON, in order."""
    order = {name: place for place, name in enumerate(found.cells["accuracy"])}
    levels = ("label", "model", "make", "year")
    scores = sorted(report["scores"], key=lambda each: (order[each["measure"]], levels.index(each["level"])))
    assert found.figures["accuracy"] == [each["value"] for each in scores]
    assert found.figures["vote-gain"] == [each["gain"]["value"] for each in report["vote_gain"]]
    assert found.figures["recall"] == [each["recall"]["value"] for each in report["recall"]]
    ece = [(each["shares"]["ece"]["value"], each["aurc"]["value"]) for each in report["confidence"]]
    assert found.figures["ece"] == [figure for pair in ece for figure in pair]
    cuts = [
        (cut["covers"], cut["right"] and cut["right"]["value"], cut["unknown"])
        for cut in report["confidence"][0]["cuts"]
    ]
    assert found.figures["cuts"] == [figure for row in cuts for figure in row if figure is not None]
    detectors = [each for kind in report["unknown"] for each in kind["detectors"]]
    assert len({kind["kind"] for kind in report["unknown"]}) == 2
    assert found.figures["unknown"] == [each[name]["value"] for each in detectors for name in ("auroc", "fpr95")]
    fused = [(each["single"], each["fused"]["value"], each["gain"]["value"]) for each in report["fused"]]
    assert found.figures["fused"] == [figure for row in fused for figure in row]
    assert found.figures["worst"] == [each["confidence"] for each in report["worst"]]
    assert found.figures["intruders"] == [each["confidence"] for each in report["intruders"]]
    makes = [(each["label"]["value"], each["model"], each["make_right"]) for each in report["makes"]]
    assert found.figures["makes"] == [figure for row in makes for figure in row]
    pairs = [(each["one"], each["other"]) for each in report["confused"]]
    assert list(zip(found.cells["confused"][::4], found.cells["confused"][1::4], strict=True)) == pairs
