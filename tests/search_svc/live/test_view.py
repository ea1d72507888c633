"""A living gallery against one kept by hand: whatever is written, every view answers as numpy over the whole of it."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmmr.search.v1 import search_pb2

from search_svc.building.spec import IndexSpec
from search_svc.engine.comparing import pair_scores
from search_svc.engine.local import LocalEngine
from search_svc.index.journal import Entry, StoredItem
from search_svc.index.version import SearchParams
from search_svc.live.delta import Delta
from search_svc.live.filters import Filter
from search_svc.live.view import Opened, View
from search_svc.serving.label_pages import LabelPages
from search_svc.serving.queries import Call, Plan, Query
from search_svc.serving.searcher import Searcher
from search_svc.voting.answer import Answerer
from search_svc.voting.labels import parse
from svckit.errors import Reason, ServiceError
from tests.search_svc.builds import build_version

D = 8
NAMES = ("honda_civic_2005", "honda_pilot_2011", "misc", "toyota_camry_2007")
NEW_NAMES = ("honda_pilot_2027", "lada_niva_1990", "misc 2")
WHOLE = np.random.default_rng(0).integers(-2, 3, (40, D)).astype(np.float32)
"""Scores of whole numbers are exact, however they are summed, and many tie."""
WHOLE[(WHOLE == 0).all(axis=1)] = 1
SPECS = {
    "flat": IndexSpec("Flat", k=5, temperature=1.0),
    "flat of three shards": IndexSpec("Flat", shards=3, k=5, temperature=1.0),
    "flat l2": IndexSpec("Flat", metric="l2", shards=2, k=5, temperature=1.0),
    "all lists": IndexSpec("IVF4,Flat", nprobe=4, shards=3, k=5, temperature=1.0),
    "compressed, reranked": IndexSpec("SQ8", rerank=40, shards=2, k=5, temperature=1.0),
    "a kind that cannot filter": IndexSpec("PQ4x4", rerank=40, k=5, temperature=1.0),
}


@dataclass
class Model:
    """What a gallery holds, by hand: rows in order, (item id, label, vector), or None where one was."""

    rows: list = field(default_factory=list)

    def write(self, item_id, item):
        self.rows = [None if row and row[0] == item_id else row for row in self.rows]
        if item is not None:
            self.rows.append((item_id, item.label, np.frombuffer(item.embedding, np.float16).astype(np.float32)))

    @property
    def live(self):
        return [row for row in self.rows if row]

    def nearest(self, query, k, metric, among=lambda label: True):
        """(item id, score), by (score desc, order asc)."""
        rows = [row for row in self.live if among(row[1])]
        if metric == "ip":
            scored = [(item_id, float(query @ vector)) for item_id, _, vector in rows]
        else:
            scored = [(item_id, float(-np.square(query - vector).sum())) for item_id, _, vector in rows]
        return sorted(scored, key=lambda pair: -pair[1])[:k]


@dataclass
class Gallery:
    """A version with a delta, and the model of it."""

    opened: Opened
    model: Model
    delta: Delta
    sequence: int = 0

    @classmethod
    def of(cls, version, engine):
        items = version.items
        rows = [
            (items.item_id(row), items.labels[items.label_of[row]].label, version.embeddings[row].astype(np.float32))
            for row in range(len(version.items))
        ]
        return cls(Opened(version, engine), Model(rows), Delta(version))

    def write(self, item_id, item):
        self.sequence += 1
        self.delta.write(Entry(self.sequence, item_id, item))
        self.model.write(item_id, item)

    def view(self):
        return View(self.opened, self.delta.snapshot(), self.sequence)

    @property
    def metric(self):
        return self.opened.version.manifest.metric


def stored(label, vector, **how):
    fields = {"uri": "", "batch_id": "", "attributes": {}, **how}
    return StoredItem(label=label, embedding=np.asarray(vector).astype("<f2").tobytes(), **fields)


def build(directory, spec, vectors=WHOLE):
    return build_version(
        directory,
        embeddings=vectors,
        item_ids=[f"photo {row}" for row in range(len(vectors))],
        labels=[parse(NAMES[row % 4]) for row in range(len(vectors))],
        uris=[f"photos/{row}.jpg" for row in range(len(vectors))],
        model="m",
        model_name="test",
        spec=spec,
    )


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search_svc.engine.blocks._BLOCK_ROWS", 4)
        yield


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Of each of SPECS: a version, and what searches it."""
    found = {}
    for name, spec in SPECS.items():
        version = build(tmp_path_factory.mktemp("index"), spec)
        found[name] = (version, LocalEngine.open(version))
    yield found
    for _, engine in found.values():
        engine.close()


def answers(view, queries, k, *, exact=False, params=None, filter_=None):
    """(item id, score) of each query's neighbours, through the Searcher."""
    plan = Plan(k, params or view.manifest.search, exact, filter_)
    found = Searcher(lambda: view).run([Query(query, plan) for query in queries])
    for each in found:
        if isinstance(each, Exception):
            raise each
    names = [view.items.take(each.neighbours.rows)[0] for each in found]
    return [list(zip(ids, each.neighbours.scores, strict=True)) for ids, each in zip(names, found, strict=True)]


item_ids = st.sampled_from([f"photo {row}" for row in range(0, 40, 3)] + [f"new {row}" for row in range(6)])
vectors = st.sampled_from(range(40)).map(lambda row: WHOLE[row])
writes = st.tuples(item_ids, st.none() | st.builds(stored, st.sampled_from(NAMES + NEW_NAMES), vectors))
steps = st.lists(writes | st.sampled_from(["look", "renew"]), max_size=40)


def check_means(view, model, queries, k):
    """The cosines that vote, and that a label without photos has none."""
    of_label = {}
    for _, label, vector in model.live:
        of_label.setdefault(label, []).append(vector)
    sums = {label: np.sum(vectors, axis=0, dtype=np.float64) for label, vectors in of_label.items()}
    plan = Plan(k, view.manifest.search, exact=False)
    for query, found in zip(queries, Searcher(lambda: view).run([Query(each, plan) for each in queries]), strict=True):
        expected = [cosine(query, sums[label.label]) for label in found.neighbours.labels]
        assert found.neighbours.means == pytest.approx(expected, abs=1e-12)
    (silent,) = Searcher(lambda: view).run([Query(queries[0], plan, means=False)])
    assert silent.neighbours.means == []


def cosine(query, sum_):
    lengths = np.linalg.norm(query.astype(np.float64)) * np.linalg.norm(sum_)
    return query @ sum_ / lengths if lengths else 0.0


def check(view, model, metric, draw):
    """Everything that a view tells, against the model."""
    queries = np.stack([draw(vectors), draw(vectors)])
    k = draw(st.integers(1, 50))
    expected = [model.nearest(query, k, metric) for query in queries]
    assert answers(view, queries, k) == expected
    assert answers(view, queries, k, exact=True) == expected
    check_means(view, model, queries, k)
    counts = {}
    for _, label, _ in model.live:
        counts[label] = counts.get(label, 0) + 1
    assert {name: count for name, count in view.items.sizes.items() if count} == counts
    assert (view.size, view.labels) == (len(model.live), len(counts))
    assert [view.means.sum_of(view.items.vocabulary.place(label)).tobytes() for label in sorted(counts)] == [
        np.sum([row[2] for row in model.live if row[1] == label], axis=0, dtype=np.float64).tobytes()
        for label in sorted(counts)
    ]
    listed = LabelPages(view).page(search_pb2.ListLabelsRequest()).labels
    assert [(each.label.label, each.items) for each in listed] == sorted(counts.items())
    live = {row[0] for row in model.live}
    for item_id in ("photo 0", "photo 3", "new 1", "nobody"):
        row = view.written.row(item_id)
        assert (row is not None) == (item_id in live)
        assert row is None or view.items.take([row])[0] == [item_id]
    if not counts:
        return
    chosen = draw(st.lists(st.sampled_from(sorted(counts)), min_size=1, unique=True))
    wanted = Filter(labels=tuple(chosen))
    expected = [model.nearest(query, k, metric, lambda label: label in chosen) for query in queries]
    assert answers(view, queries, k, filter_=wanted) == expected
    assert answers(view, queries, k, exact=True, filter_=wanted) == expected
    late = [model.nearest(query, k, metric, lambda label: (parse(label).year or 0) >= 2006) for query in queries]
    assert answers(view, queries, k, filter_=Filter(min_year=2006)) == late


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=25)
@given(steps=steps, data=st.data())
def test_every_view_answers_as_the_gallery_was_when_it_was_taken(opened, spec, steps, data):
    gallery = Gallery.of(*opened[spec])
    looks = []
    for step in steps:
        if step == "look":
            looks.append((gallery.view(), dataclasses.replace(gallery.model)))
        elif step == "renew":
            gallery.delta = gallery.delta.without_tombstones()
        else:
            gallery.write(*step)
    for view, model in [*looks[-2:], (gallery.view(), gallery.model)]:
        check(view, model, gallery.metric, data.draw)


@pytest.mark.parametrize(("metric", "queries"), [("ip", 3), ("ip", 64), ("l2", 3), ("l2", 64)])
def test_over_a_flat_base_the_answer_is_that_of_one_scan_over_all_to_the_bit(tmp_path, metric, queries):
    rng = np.random.default_rng(5)
    everything = rng.standard_normal((900, 24)).astype(np.float16).astype(np.float32)
    everything[500:600] = everything[:100]  # copies tie, to the bit
    version = build(tmp_path, IndexSpec("Flat", metric=metric, shards=2), everything[:400])
    with LocalEngine.open(version) as engine:
        delta = Delta(version)
        for row in range(400, 900):
            delta.write(Entry(row, f"new {row}", stored("misc", everything[row])))
        for row in range(0, 100, 3):
            delta.write(Entry(1000 + row, f"photo {row}", None))
        view = View(Opened(version, engine), delta.snapshot())
        asked = rng.standard_normal((queries, 24)).astype(np.float32)
        found = answers(view, asked, 30)
    live = np.array([row for row in range(900) if row >= 100 or row % 3])
    for query, hits in zip(asked, found, strict=True):
        scores = pair_scores(query[None], np.zeros(len(live), np.int64), everything[live], np.arange(len(live)), metric)
        order = np.lexsort((live, -scores))[:30]
        names = [f"photo {row}" if row < 400 else f"new {row}" for row in live[order].tolist()]
        assert hits == list(zip(names, scores[order].tolist(), strict=True))


class TestFilters:
    @pytest.fixture
    def gallery(self, opened):
        return Gallery.of(*opened["flat"])

    def test_a_label_that_was_never_there_is_known_once_it_has_a_photo_and_not_before(self, gallery):
        before = gallery.view()
        gallery.write("n", stored("honda_pilot_2027", WHOLE[0]))
        wanted = Filter(makes=("honda",), min_year=2020)
        assert answers(gallery.view(), WHOLE[:1], 3, filter_=wanted) == [[("n", float(WHOLE[0] @ WHOLE[0]))]]
        assert answers(before, WHOLE[:1], 3, filter_=wanted) == [[]]
        with pytest.raises(ServiceError) as caught:
            before.filters.mask(Filter(labels=("honda_pilot_2027",)))
        assert caught.value.violations[0].reason == Reason.UNKNOWN_FILTER_VALUE

    def test_a_label_whose_last_photo_was_deleted_is_unknown_and_is_not_suggested(self, gallery):
        for row in range(2, 40, 4):
            gallery.write(f"photo {row}", None)
        with pytest.raises(ServiceError) as caught:
            gallery.view().filters.mask(Filter(labels=("misc",)))
        assert caught.value.violations[0].description == "no gallery photo has 'misc'"

    def test_a_filter_is_of_the_view_that_answers_not_of_the_one_that_the_call_was_read_for(self, gallery):
        wanted = Filter(makes=("honda",))
        read_for = gallery.view()
        gallery.write("n", stored("honda_pilot_2027", 2 * WHOLE[0]))
        newest = gallery.view()
        query = Query(WHOLE[0], Plan(1, SearchParams(), exact=False, filter=wanted), call=Call(read_for))
        (found,) = Searcher(lambda: newest).run([query])
        assert newest.items.take(found.neighbours.rows)[0] == ["n"]
        assert found.view is newest


class TestCalls:
    def test_all_queries_of_a_call_are_answered_by_one_view_whatever_is_written_between_its_batches(self, opened):
        gallery = Gallery.of(*opened["flat"])
        call, plan = Call(gallery.view()), Plan(40, SearchParams(), exact=False)
        current = [gallery.view()]
        searcher = Searcher(lambda: current[0])
        (first,) = searcher.run([Query(WHOLE[0], plan, call=call)])
        gallery.write("n", stored("misc", 9 * WHOLE[0]))
        current[0] = gallery.view()
        again, newer = searcher.run([Query(WHOLE[0], plan, call=call), Query(WHOLE[0], plan)])
        assert again == first
        assert again.view is first.view
        assert newer.view is current[0]
        assert len(newer.neighbours.rows) == 40
        assert newer.neighbours.rows != first.neighbours.rows

    def test_a_call_that_was_read_for_a_version_is_answered_by_that_version(self, opened):
        flat, l2 = (Gallery.of(*opened[name]) for name in ("flat", "flat l2"))
        old, new = flat.view(), l2.view()
        plan = Plan(3, SearchParams(), exact=False)
        one, other = Searcher(lambda: new).run([Query(WHOLE[0], plan, call=Call(old)), Query(WHOLE[0], plan)])
        assert one.view is old
        assert other.view is new


def test_without_writes_a_view_is_its_version(opened):
    version, engine = opened["flat"]
    view = View(Opened(version, engine))
    assert view.items is version.items
    assert view.typical == version.typical == {}
    assert view.sequence == 0


class TestCalibrated:
    """A label that the calibration has not seen."""

    def test_enrolled_its_cars_are_known_which_they_were_not_before(self, calibrated):
        version = calibrated.version
        with LocalEngine.open(version) as engine:
            opened = Opened(version, engine)
            delta = Delta(version)
            before = View(opened, delta.snapshot())
            for row in range(5):  # strangers come in fives of one car
                delta.write(Entry(row + 1, f"new {row}", stored("lada_niva_1990", calibrated.strangers[row])))
            after = View(opened, delta.snapshot())
            noise = 0.02 * np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
            photos = list(calibrated.strangers[:5] + noise)
            was, now, others = (
                verdicts(view, photos)
                for view, photos in ((before, photos), (after, photos), (after, calibrated.strangers[5:]))
            )
        assert {verdict for _, verdict in was} == {"unknown"}
        assert now == [("lada_niva_1990", "known")] * 5
        assert [verdict for _, verdict in others].count("unknown") >= 0.7 * len(others)

    def test_is_near_to_itself_as_it_would_be_had_it_been_fitted_with_the_others(self, calibrated):
        version = calibrated.version
        delta = Delta(version)
        place = next(place for place, label in enumerate(version.items.labels))
        rows = np.flatnonzero(version.items.label_of == place)
        for row in rows.tolist():
            delta.write(Entry(row + 1, f"copy {row}", stored("lada_niva_1990", version.embeddings[row])))
        delta.write(Entry(99, "lone", stored("lada_samara_1990", version.embeddings[0])))
        delta.write(Entry(99, "dead", stored("lada_niva_1990", -version.embeddings[0])))
        delta.write(Entry(99, "dead", None))
        typical = View(Opened(version, None), delta.snapshot()).typical
        first = version.items.labels[place].label
        assert typical["lada_niva_1990"] == pytest.approx(version.typical[first], abs=1e-5)
        mean = np.mean(list(version.typical.values()))  # all labels have as many photos
        assert typical["lada_samara_1990"] == pytest.approx(mean)
        assert typical[first] == version.typical[first]
        assert typical.get("nobody", 0.5) == 0.5


def verdicts(view, photos):
    """(label, verdict) of each."""
    plan = Plan(view.manifest.k, view.manifest.search, exact=False)
    answers_ = [
        Answerer(view).answer([found.neighbours])
        for found in Searcher(lambda: view).run([Query(each, plan) for each in photos])
    ]
    return [(answer.vote.answer.label, answer.verdict) for answer in answers_]


def test_the_range_of_years_has_those_that_have_photos_now(opened):
    gallery = Gallery.of(*opened["flat"])
    for name, vector in (("n", "honda_pilot_2027"), ("m", "honda_pilot_2013")):
        gallery.write(name, stored(vector, WHOLE[0]))
    model = ("honda", "pilot")
    assert gallery.view().items.years.of(model) == [2011, 2013, 2027]
    before = gallery.view()
    gallery.write("n", None)
    for row in range(1, 40, 4):
        gallery.write(f"photo {row}", None)
    assert gallery.view().items.years.of(model) == [2013]
    assert before.items.years.of(model) == [2011, 2013, 2027]
