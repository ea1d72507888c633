"""`vmmr-search evaluate --enrol`: what it tells of new cars is what a server would answer after their photos were added."""

import numpy as np
import pytest

from search_svc.dataset.embeddings import Embeddings
from search_svc.dataset.photo_list import Photo
from search_svc.engine.local import LocalEngine
from search_svc.evaluation import enrolment
from search_svc.evaluation.enrolment import DRAWS, Enroller, Photos
from search_svc.index.journal import Journal
from search_svc.live.following import Replay
from search_svc.live.view import Opened
from search_svc.serving.queries import Plan, Query
from search_svc.serving.searcher import Searcher
from search_svc.voting.answer import Answerer
from search_svc.voting.labels import parse
from svckit.errors import Reason, ServiceError
from tests.search_svc.evaluation.evaluations import build_calibrated, evaluated, run, write_embeddings
from tests.search_svc.live_index import Index


@pytest.fixture
def version(tmp_path):
    return build_calibrated(tmp_path)


@pytest.fixture
def shards(version):
    with LocalEngine.open(version) as opened:
        yield opened


def photos_of(embeddings, split):
    rows = [row for row, photo in enumerate(embeddings.photos) if photo.split == split]
    return Photos([embeddings.photos[row] for row in rows], embeddings.matrix[rows].astype(np.float32))


def served(index_dir, opened, new, added, asked):
    """Add photos through the journal of an index, and ask for others: for each, the label and the verdict."""
    items = {f"item {row}": (new.photos[row].label.label, new.vectors[row]) for row in added}
    Index(index_dir).add(**items)
    replay = Replay(opened, Journal.open(index_dir))
    replay.finish()
    view, manifest = replay.view(), opened.version.manifest
    plan = Plan(manifest.k, manifest.search, exact=False)
    found = Searcher(lambda: view).run([Query(vector, plan) for vector in asked])
    answers = [Answerer(view).answer([each.neighbours]) for each in found]
    return [answer.vote.answer.label for answer in answers], [answer.verdict == "unknown" for answer in answers]


def test_the_figures_are_those_of_a_gallery_to_which_the_photos_were_added(version, shards, tmp_path, monkeypatch):
    """One draw of three photos of each new label, once by `enrol` and once through the journal and the server's view."""
    monkeypatch.setattr(enrolment, "DRAWS", 1)
    embeddings, opened = Embeddings.open(tmp_path / "embeddings"), Opened(version, shards)
    known, new = photos_of(embeddings, "test"), photos_of(embeddings, "unseen-test")
    told = []
    enroller = Enroller(opened, known, new, seed=7, asked=told.append)
    found = enroller.enrol(3)

    rng, added, asked = np.random.default_rng((7, 3, 0)), [], []
    for label in sorted({photo.label.label for photo in new.photos}):
        rows = rng.permutation([row for row, photo in enumerate(new.photos) if photo.label.label == label])
        added += rows[:3].tolist()
        asked += rows[3:].tolist()
    vectors = np.vstack([new.vectors[asked], known.vectors])
    labels, unknown = served(tmp_path / "index", opened, new, added, vectors)
    truth = [new.photos[row].label.label for row in asked] + [photo.label.label for photo in known.photos]
    right = np.array([given == wanted for given, wanted in zip(labels, truth, strict=True)])
    assert (found.enrolled, found.labels, found.photos, found.known) == (3, 2, 74, 80)
    assert found.right.value == pytest.approx(right[:74].mean())
    assert found.called_unknown.value == pytest.approx(np.mean(unknown[:74]))
    assert found.known_right.value == pytest.approx(right[74:].mean())
    assert 0.2 < found.right.value < 0.8, "or the test could not tell a wrong figure"
    assert sum(told) == 80 + 80 + 74 + 80


def test_a_report_has_a_row_for_each_number_and_shows_it_everywhere(version, tmp_path, capsys):
    flags = ("--split", "test,unseen-test", "--enrol", "8,1", "--html", tmp_path / "r.html")
    report = evaluated(tmp_path, "embeddings", *flags)
    one, eight = report["enrolment"]
    assert [(row["enrolled"], row["labels"], row["known"]) for row in (one, eight)] == [(1, 2, 80), (8, 2, 80)]
    assert (one["draws"], one["photos"], eight["photos"]) == (DRAWS, 80, 80)
    assert eight["right"]["value"] > one["right"]["value"] > 0.05
    for row in (one, eight):
        assert row["right"]["low"] < row["right"]["value"] < row["right"]["high"]
        lost = report_right(report) - row["known_right"]["value"]
        assert row["known_lost"]["value"] == pytest.approx(lost)
        assert sum(each["right"] * each["asked"] for each in row["of_label"]) / 80 == pytest.approx(
            row["right"]["value"]
        )
    assert eight["called_unknown"]["value"] < eight["called_unknown_before"]["value"]
    assert eight["called_unknown_before"]["value"] == report["unknown"][0]["called_unknown"]["value"]
    text, page = capsys.readouterr().out, (tmp_path / "r.html").read_text().replace("<wbr>", "")
    shown = (
        f"{100 * eight['right']['value']:.1f} [{100 * eight['right']['low']:.1f}, {100 * eight['right']['high']:.1f}]"
    )
    assert "\n8, 80 of 2 " in text
    assert shown in text
    assert f'<data value="{eight["right"]["value"]}">' in page.split('id="enrolment"')[1].split("</table>")[0]
    assert all(each["label"] in page.split('id="enrolled-labels"')[1] for each in one["of_label"])


def report_right(report):
    scores = {(each["level"], each["measure"]): each["value"] for each in report["scores"]}
    return scores["label", "vote, top-1"]


def test_without_it_nothing_is_enrolled(version, tmp_path):
    report = evaluated(tmp_path, "embeddings", "--html", tmp_path / "r.html")
    assert report["enrolment"] == []
    assert "New cars" not in (tmp_path / "r.html").read_text()


def test_cars_of_another_collection_replace_nothing_and_leave_out_nothing(version, tmp_path):
    """Their paths may be those of photos in the gallery, and labels that the gallery has are not enrolled."""
    embeddings = Embeddings.open(tmp_path / "embeddings")
    rows = [row for row, photo in enumerate(embeddings.photos) if photo.split == "unseen-test"]
    train = [photo.path for photo in embeddings.photos if photo.split == "train"]
    photos = [Photo(train[place], embeddings.photos[row].label, "train") for place, row in enumerate(rows)]
    old = Photo("old.jpg", next(photo for photo in embeddings.photos if photo.split == "train").label, "train")
    matrix = np.vstack([embeddings.matrix[rows], embeddings.matrix[:1]])
    write_embeddings(tmp_path / "others", matrix, [*photos, old])
    direct = evaluated(tmp_path, "embeddings", "--split", "test,unseen-test", "--enrol", "4")
    other = evaluated(tmp_path, "embeddings", "--enrol", "4", "--enrol-from", tmp_path / "others")
    assert other["enrolment"] == direct["enrolment"]


def test_a_label_with_no_more_photos_than_are_added_takes_no_part(version, tmp_path):
    embeddings = Embeddings.open(tmp_path / "embeddings")
    rows = [row for row, photo in enumerate(embeddings.photos) if photo.split == "unseen-test"]
    few = rows[:5] + [row for row in rows if embeddings.photos[row].label != embeddings.photos[rows[0]].label]
    write_embeddings(tmp_path / "few", embeddings.matrix[few], [embeddings.photos[row] for row in few])
    flags = ("--enrol", "4,5", "--enrol-from", tmp_path / "few")
    four, five = evaluated(tmp_path, "embeddings", *flags)["enrolment"]
    assert (four["labels"], five["labels"]) == (2, 1)
    few_asked, many_asked = sorted(each["asked"] for each in four["of_label"])
    assert 1 <= few_asked <= 5, "one in each draw"
    assert many_asked == 40


def test_without_a_calibration_there_are_no_verdicts_to_tell(tmp_path):
    build_calibrated(tmp_path)
    embeddings = Embeddings.open(tmp_path / "embeddings")
    kept = [row for row, photo in enumerate(embeddings.photos) if photo.split != "dev"]
    write_embeddings(tmp_path / "plain", embeddings.matrix[kept], [embeddings.photos[row] for row in kept])
    run("build", tmp_path / "plain", "--out", tmp_path / "index")
    flags = ("--split", "test,unseen-test", "--enrol", "2", "--html", tmp_path / "r.html")
    (row,) = evaluated(tmp_path, "plain", *flags)["enrolment"]
    assert (row["called_unknown"], row["called_unknown_before"]) == (None, None)
    assert {each["called_unknown"] for each in row["of_label"]} == {None}
    assert (
        "called unknown before" not in (tmp_path / "r.html").read_text().split('id="enrolment"')[1].split("</thead>")[0]
    )


def test_known_photos_that_are_in_the_gallery_are_not_asked(version, tmp_path):
    (row,) = evaluated(tmp_path, "embeddings", "--split", "train,unseen-test", "--enrol", "2")["enrolment"]
    assert (row["known"], row["known_right"], row["known_lost"]) == (0, None, None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--enrol", "1"), "--enrol needs photos of labels that the index lacks"),
        (
            ("--enrol", "40", "--split", "test,unseen-test"),
            "--enrol 40: no label that the index lacks has more than 40",
        ),
        (("--enrol-from", "nowhere"), "--enrol-from needs --enrol"),
    ],
)
def test_what_cannot_be_enrolled_is_refused(version, tmp_path, flags, message):
    with pytest.raises(SystemExit, match=message):
        evaluated(tmp_path, "embeddings", *flags)


@pytest.mark.parametrize(("counts", "got"), [("0", "0"), ("1,-2", "-2"), ("few", "few"), ("", ""), ("1,,2", "")])
def test_counts_that_are_none_are_refused_and_the_first_is_named(tmp_path, capsys, counts, got):
    with pytest.raises(SystemExit):
        evaluated(tmp_path, "embeddings", f"--enrol={counts}")
    assert f"argument --enrol: must be a whole number >= 1, got {got!r}" in capsys.readouterr().err


def test_cars_of_another_model_are_refused(version, tmp_path):
    write_embeddings(
        tmp_path / "other",
        np.eye(16, dtype=np.float32)[:2],
        [Photo("a", parse("a"), "test"), Photo("b", parse("b"), "test")],
        "e" * 64,
    )
    with pytest.raises(SystemExit, match="the photos of --enrol-from were embedded with model eeeeeeeeeeee"):
        evaluated(tmp_path, "embeddings", "--enrol", "1", "--enrol-from", tmp_path / "other")


def test_a_search_that_fails_is_not_reported_as_an_answer(version, shards, tmp_path):
    embeddings = Embeddings.open(tmp_path / "embeddings")
    shards.close()
    with pytest.raises(ServiceError) as caught:
        Enroller(
            Opened(version, shards),
            photos_of(embeddings, "test"),
            photos_of(embeddings, "unseen-test"),
            seed=0,
            asked=print,
        )
    assert caught.value.reason is Reason.SHUTTING_DOWN
