"""The service in this process, on real gRPC; the thread that searches can be kept busy."""

import asyncio
import hashlib
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from search_svc.building.build import IndexSpec
from search_svc.engine.local import LocalEngine
from search_svc.engine.shard import Shard
from search_svc.index.items import Items
from search_svc.index.version import IndexVersion
from search_svc.live.live_gallery import LiveGallery
from search_svc.live.view import Opened, View
from search_svc.serving.config import SearchConfig
from search_svc.serving.queries import Limits, Plan, Query
from search_svc.serving.replies import Replies
from search_svc.serving.searcher import Searcher
from search_svc.serving.service import SERVICE, SearchService
from search_svc.voting.answer import Answerer
from search_svc.voting.vote import elect, weights
from svckit.batcher import Batcher
from svckit.server import Server

D = 8
TIMEOUT_S = 20
NAMES = ("honda_civic_2005", "honda_pilot_2011", "misc", "toyota_camry_2007")
Options = search_pb2.SearchOptions
Filter = search_pb2.Filter


@dataclass
class Served:
    stub: search_pb2_grpc.SearchServiceStub
    version: IndexVersion
    batcher: Batcher
    busy: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    """Queries in each batch."""

    @property
    def model(self):
        return self.version.manifest.model

    def search(self, queries, *, options=None, model=None, **call):
        request = search_pb2.SearchRequest(queries=self.pack(queries, model), options=options)
        return self.stub.Search(request, **{"timeout": TIMEOUT_S, **call})

    def classify(self, queries, *, options=None, fuse=False, min_confidence=0.0, **call):
        request = search_pb2.ClassifyRequest(
            queries=self.pack(queries), options=options, fuse=fuse, min_confidence=min_confidence
        )
        return self.stub.Classify(request, **{"timeout": TIMEOUT_S, **call})

    def classify_cuts(self, queries, *cuts, options=None, fuse=False):
        request = search_pb2.ClassifyRequest(queries=self.pack(queries), cuts=cuts, options=options, fuse=fuse)
        return self.stub.Classify(request, timeout=TIMEOUT_S)

    def pack(self, queries, model=None):
        if isinstance(queries, embedding_pb2.Embeddings):
            return queries
        return wire.pack(self.model if model is None else model, queries)

    @asynccontextmanager
    async def searching_held(self):
        """While inside, a search is running; what is asked meanwhile, waits."""
        self.free.clear()
        self.busy.clear()
        first = asyncio.ensure_future(self.search(unit(1)))
        await asyncio.to_thread(self.busy.wait, TIMEOUT_S)
        try:
            yield
        finally:
            self.free.set()
            await first


def unit(rows, seed=1):
    vectors = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@asynccontextmanager
async def serving(version, *, max_batch=4, max_queue=8, callers=None):
    config = SearchConfig(
        port=0, index=version.path, drain_pause_s=0.0, max_queries=6, max_k=20, max_queue=max_queue, callers=callers
    )
    limits = Limits(config.max_queries, config.max_k, config.max_request_bytes, max_shard_timeout_ms=9000)
    server = Server(config, name="search")
    with LocalEngine.open(version) as shards:
        gallery = LiveGallery(View(Opened(version, shards)))
        searcher = Searcher(lambda: gallery.view)

        def run(queries):
            served.batches.append(len(queries))
            served.busy.set()
            assert served.free.wait(TIMEOUT_S)
            return searcher.run(queries)

        batcher = server.metrics.batcher("search", run, max_batch=max_batch, max_queue=config.max_queue)
        servicer = SearchService(gallery, batcher, limits=limits)
        server.add(search_pb2_grpc.add_SearchServiceServicer_to_server, servicer, SERVICE)
        await server.start()
        await server.open()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            served = Served(search_pb2_grpc.SearchServiceStub(channel), version, batcher)
            served.free.set()
            yield served
            await server.stop()
        await batcher.close()


@pytest.fixture(scope="module")
def version(build_index, tmp_path_factory):
    names = [NAMES[row % 4] for row in range(40)]
    return build_index(unit(40, 0), names=names, directory=tmp_path_factory.mktemp("index"), spec=IndexSpec(shards=2))


@pytest.fixture
async def served(version):
    async with serving(version) as served:
        yield served


def details(error):
    """The error's details, by their type."""
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    found = {kind: kind() for kind in kinds}
    for detail in rpc_status.from_call(error).details:
        for message in found.values():
            detail.Unpack(message)
    return found


async def refusal(call):
    """The status, ErrorInfo's reason, and (field, reason) of each violation."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    found = details(caught.value)
    violations = [(each.field, each.reason) for each in found[error_details_pb2.BadRequest].field_violations]
    return caught.value.code(), found[error_details_pb2.ErrorInfo].reason, violations


def nearest(version, query, k):
    """(row, score) of the nearest gallery photos, by numpy."""
    scores = version.embeddings.astype(np.float32) @ query
    return [(int(row), float(scores[row])) for row in np.argsort(-scores, kind="stable")[:k]]


class TestSearch:
    async def test_gives_the_nearest_photos_of_each_query_in_order(self, served):
        queries = unit(5)
        response = await served.search(queries, options=Options(k=7))
        items = served.version.items
        for query, result in zip(queries, response.results, strict=True):
            expected = nearest(served.version, query, 7)
            assert [each.item_id for each in result.neighbours] == [items.item_id(row) for row, _ in expected]
            assert [each.uri for each in result.neighbours] == [items.uri(row) for row, _ in expected]
            assert [each.label.label for each in result.neighbours] == [NAMES[row % 4] for row, _ in expected]
            assert [each.score for each in result.neighbours] == pytest.approx([score for _, score in expected])

    async def test_labels_come_with_make_model_and_year_if_they_have_them(self, served):
        response = await served.search(unit(1), options=Options(k=20))
        labels = {each.label.label: each.label for each in response.results[0].neighbours}
        camry, misc = labels["toyota_camry_2007"], labels["misc"]
        assert (camry.make, camry.model, camry.year) == ("toyota", "camry", 2007)
        assert (misc.make, misc.model, misc.HasField("year")) == ("", "", False)

    async def test_finds_as_many_as_the_index_was_built_for_unless_told(self, served):
        response = await served.search(unit(1))
        assert len(response.results[0].neighbours) == served.version.manifest.k

    @pytest.mark.parametrize("options", [None, Options(), Options(k=5)], ids=["no options", "no k", "k"])
    async def test_a_caller_gets_no_more_neighbours_than_agreed_even_if_it_does_not_say_how_many(
        self, version, tmp_path, options
    ):
        sha256 = hashlib.sha256(b"shop").hexdigest()
        limited = f'[caller.shop]\nrole = "query"\nmax_k = 4\n[[token]]\ncaller = "shop"\nsha256 = "{sha256}"\n'
        (tmp_path / "callers.toml").write_text(limited)
        shop = (("authorization", "Bearer shop"),)
        assert version.manifest.k > 4
        async with serving(version, callers=tmp_path / "callers.toml") as served:
            for ask in (served.search, served.classify):
                found = await refusal(ask(unit(1), options=options, metadata=shop))
                assert found == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", [])
            few = await served.search(unit(1), options=Options(k=4), metadata=shop)
            assert len(few.results[0].neighbours) == 4

    async def test_reranking_gives_the_scores_of_an_exact_search(self, build_index, tmp_path):
        version = build_index(unit(40), directory=tmp_path, spec=IndexSpec("SQ4"))
        async with serving(version) as served:
            plain, again, exact = [
                (await served.search(unit(3, seed=5), options=options)).results
                for options in (Options(), Options(rerank=8), Options(exact=True))
            ]
        assert again == exact != plain

    async def test_a_filter_restricts_what_is_found(self, served):
        options = Options(k=20, filter=Filter(makes=["Honda"], min_year=2006))
        response = await served.search(unit(2), options=options)
        for result in response.results:
            assert {each.label.label for each in result.neighbours} == {"honda_pilot_2011"}
            assert len(result.neighbours) == 10

    async def test_a_filter_that_leaves_nothing_finds_nothing(self, served):
        options = Options(filter=Filter(makes=["honda"], models=["camry"]))
        assert [len(each.neighbours) for each in (await served.search(unit(2), options=options)).results] == [0, 0]

    async def test_calls_that_wait_together_each_get_what_they_asked_for(self, served):
        queries = unit(4)
        options = [Options(k=1), Options(k=3), Options(k=3, exact=True), Options(k=2, filter=Filter(labels=["misc"]))]
        pairs = list(zip(queries, options, strict=True))
        alone = [await served.search(query[None], options=each) for query, each in pairs]
        async with served.searching_held():
            calls = [asyncio.ensure_future(served.search(query[None], options=each)) for query, each in pairs]
            await until(lambda: served.batcher.waiting == 4)
        together = await asyncio.gather(*calls)
        assert [each.results for each in together] == [each.results for each in alone]
        assert served.batches[-1] == 4

    async def test_says_what_answered_and_where_the_time_went(self, served):
        response = await served.search(unit(1))
        assert response.provenance == search_pb2.Provenance(
            model=served.model, index_version="000001", shards_answered=2, shards_total=2
        )
        assert response.times.search_ms > 0
        assert response.times.queue_ms >= 0
        assert response.times.vote_ms == 0


class TestClassify:
    async def test_answers_with_the_vote_of_the_neighbours_it_shows(self, served):
        response = await served.classify(unit(3), options=Options(k=9))
        items, temperature = served.version.items, served.version.manifest.temperature
        for query, result in zip(unit(3), response.results, strict=True):
            rows, scores = zip(*nearest(served.version, query, 9), strict=True)
            labels = [items.labels[items.label_of[row]] for row in rows]
            expected = elect(list(zip(labels, weights(scores, temperature), strict=True)))
            assert result.answer.label == expected.answer.label
            assert result.make_confidence == pytest.approx(expected.make_confidence, rel=1e-4)
            assert result.model_confidence == pytest.approx(expected.model_confidence, rel=1e-4)
            assert result.label_confidence == pytest.approx(expected.label_confidence, rel=1e-4)
            assert [each.item_id for each in result.neighbours] == [items.item_id(row) for row in rows]
            assert [each.make for each in result.makes] == [each.make for each in expected.makes]
            assert [(each.make, each.model) for each in result.models] == [
                (each.make, each.model) for each in expected.models
            ]
            assert [each.label.label for each in result.labels] == [each.label.label for each in expected.labels]
            assert not any(each.HasField("label") for each in [*result.makes, *result.models])

    async def test_is_absent_where_nothing_was_found(self, served):
        options = Options(filter=Filter(makes=["honda"], models=["camry"]))
        assert (await served.classify(unit(1), options=options)).results == [search_pb2.Classification()]

    async def test_tells_how_long_the_vote_took(self, served):
        assert (await served.classify(unit(1))).times.vote_ms > 0


class TestFused:
    """All queries are photos of one car."""

    async def test_is_one_entry_of_all_neighbours_each_once_with_its_best_score(self, served):
        queries = unit(3)
        [result] = (await served.classify(queries, options=Options(k=9), fuse=True)).results
        best = {}
        for query in queries:
            for row, score in nearest(served.version, query, 9):
                best[row] = max(score, best.get(row, score))
        expected = sorted(best, key=lambda row: (-best[row], row))
        assert 9 < len(expected) < 27, "some photo is near to several queries"
        assert [each.item_id for each in result.neighbours] == [served.version.items.item_id(row) for row in expected]
        assert [each.score for each in result.neighbours] == pytest.approx([best[row] for row in expected])

    async def test_answers_as_the_answerer_does_that_is_called_directly(self, served):
        queries = unit(3)
        [result] = (await served.classify(queries, options=Options(k=9), fuse=True)).results
        with LocalEngine.open(served.version) as shards:
            plan = Plan(9, served.version.manifest.search, exact=False)
            found = Searcher(lambda: View(Opened(served.version, shards))).run(
                [Query(query, plan) for query in queries]
            )
            found = [each.neighbours for each in found]
        expected = Answerer(served.version).answer(found)
        assert result == Replies(served.version).classify([found], [expected]).results[0]
        assert result.label_confidence == pytest.approx(expected.label_confidence)
        assert (result.first_year, result.last_year) == expected.years

    async def test_of_one_photo_is_that_photos_answer(self, served):
        alone, fused = await served.classify(unit(1)), await served.classify(unit(1), fuse=True)
        assert fused.results == alone.results

    async def test_of_the_same_photo_twice_is_that_photos_answer(self, served):
        [alone] = (await served.classify(unit(1))).results
        [fused] = (await served.classify(np.repeat(unit(1), 2, axis=0), fuse=True)).results
        assert (fused.answer, fused.neighbours) == (alone.answer, alone.neighbours)
        assert fused.label_confidence == pytest.approx(alone.label_confidence)

    async def test_is_an_empty_entry_where_nothing_was_found(self, served):
        options = Options(filter=Filter(makes=["honda"], models=["camry"]))
        assert (await served.classify(unit(3), options=options, fuse=True)).results == [search_pb2.Classification()]


CAR = embedding_pb2.Cut(left=0.25, top=0.25, right=0.75, bottom=1, car_score=0.875)
NO_CAR = embedding_pb2.Cut(right=1, bottom=1, no_car_found=True)


class TestCuts:
    """The parts of photos that the queries are of."""

    async def test_a_photo_without_a_car_is_unknown_though_the_index_is_not_calibrated(self, served):
        with_car, without = (await served.classify_cuts(unit(2), CAR, NO_CAR)).results
        plain = (await served.classify(unit(2))).results
        assert (with_car, with_car.no_car_found) == (plain[0], False)
        assert (without.verdict, without.no_car_found) == (search_pb2.VERDICT_UNKNOWN, True)
        without.ClearField("verdict")
        without.ClearField("no_car_found")
        assert without == plain[1], "what comes nearest is given all the same"

    async def test_several_photos_of_a_car_are_unknown_if_none_shows_it(self, served):
        [none] = (await served.classify_cuts(unit(2), NO_CAR, NO_CAR, fuse=True)).results
        assert (none.verdict, none.no_car_found) == (search_pb2.VERDICT_UNKNOWN, True)
        none.ClearField("verdict")
        none.ClearField("no_car_found")
        assert [none] == list((await served.classify(unit(2), fuse=True)).results), "all of them vote"

    async def test_of_several_photos_of_a_car_those_without_it_neither_vote_nor_give_neighbours(self, served):
        near, other = unit(2)
        assert near @ other < 0.5, "they have other neighbours"
        [fused] = (await served.classify_cuts(unit(2), CAR, NO_CAR, fuse=True)).results
        assert [fused] == list((await served.classify(unit(2)[:1], fuse=True)).results)

    async def test_it_is_told_where_the_filter_left_no_neighbour_too(self, served):
        options = Options(filter=Filter(makes=["honda"], models=["camry"]))
        found = (await served.classify_cuts(unit(2), CAR, NO_CAR, options=options)).results
        unknown = search_pb2.Classification(no_car_found=True, verdict=search_pb2.VERDICT_UNKNOWN)
        assert list(found) == [search_pb2.Classification(), unknown]

    @pytest.mark.parametrize(
        ("cuts", "fields"),
        [
            ([CAR], ["cuts"]),
            ([CAR] * 3, ["cuts"]),
            ([CAR, embedding_pb2.Cut()], ["cuts[1]"]),
            (
                [embedding_pb2.Cut(right=1, bottom=2), embedding_pb2.Cut(right=1, bottom=1, car_score=2)],
                ["cuts[0]", "cuts[1]"],
            ),
            ([embedding_pb2.Cut(right=1, bottom=1, car_score=0.5, no_car_found=True)] * 2, ["cuts[0]", "cuts[1]"]),
            ([embedding_pb2.Cut()] * 1000, ["cuts"]),
        ],
    )
    async def test_cuts_that_are_not_one_a_query_or_no_parts_of_a_photo_are_refused(self, served, cuts, fields):
        code, reason, violations = await refusal(served.classify_cuts(unit(2), *cuts))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CUTS")
        assert violations == [(field, "INVALID_CUTS") for field in fields]


class TestWithoutCalibration:
    async def test_there_is_no_verdict(self, served):
        for result in (await served.classify(unit(6))).results:
            assert result.verdict == search_pb2.VERDICT_UNSPECIFIED
            assert not result.HasField("known_score")

    async def test_a_confidence_cannot_be_asked_for(self, served):
        refused = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MIN_CONFIDENCE")
        violations = [("min_confidence", "INVALID_MIN_CONFIDENCE")]
        for wanted in (0.5, 1.0, 1.01, -0.01, np.nan, np.inf):
            assert await refusal(served.classify(unit(1), min_confidence=wanted)) == (*refused, violations)
        assert len((await served.classify(unit(1), min_confidence=0.0)).results) == 1


class TestReplies:
    @pytest.mark.parametrize(("k", "thread"), [(16, "MainThread"), (17, "replies_0")])
    async def test_of_many_neighbours_are_written_beside_the_event_loop(self, served, monkeypatch, k, thread):
        threads = []

        def record(self, found):
            threads.append(threading.current_thread().name)
            return take(self, found)

        take = Items.take
        monkeypatch.setattr(Items, "take", record)
        await served.search(unit(4), options=Options(k=k))
        await served.classify(unit(4), options=Options(k=k))
        assert threads == [thread, thread]


class TestGetIndex:
    async def test_describes_the_index_and_the_limits(self, served):
        response = await served.stub.GetIndex(search_pb2.GetIndexRequest(), timeout=TIMEOUT_S)
        index, manifest = response.index, served.version.manifest
        assert (index.version, index.model, index.dimension) == ("000001", served.model, D)
        assert (index.items, index.labels, index.shards) == (40, 4, 2)
        assert (index.factory, index.metric, index.k) == ("Flat", search_pb2.METRIC_INNER_PRODUCT, 5)
        assert index.temperature == pytest.approx(manifest.temperature)
        assert index.create_time.ToDatetime(manifest.created.tzinfo) == manifest.created
        assert response.limits == search_pb2.QueryLimits(
            max_queries=6, max_k=20, max_request_bytes=32 * 2**20, max_neighbours=65536, max_shard_timeout_ms=9000
        )
        assert not index.HasField("calibration")
        assert index.cuts == search_pb2.CutCounts(unknown=40)
        assert not any(index.HasField(name) for name in ("nprobe", "ef_search", "rerank"))

    async def test_tells_what_a_search_does_that_does_not_say_otherwise(self, build_index, tmp_path):
        version = build_index(unit(40), directory=tmp_path, spec=IndexSpec("IVF4,Flat", nprobe=3))
        async with serving(version) as served:
            index = (await served.stub.GetIndex(search_pb2.GetIndexRequest(), timeout=TIMEOUT_S)).index
        assert (index.nprobe, index.HasField("ef_search"), index.HasField("rerank")) == (3, False, False)


class TestListLabels:
    async def pages(self, served, **first):
        request = search_pb2.ListLabelsRequest(**first)
        while True:
            response = await served.stub.ListLabels(request, timeout=TIMEOUT_S)
            yield [(each.label.label, each.items) for each in response.labels]
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    @pytest.mark.parametrize(("size", "counts"), [(1, [1, 1, 1, 1]), (3, [3, 1]), (4, [4]), (10_000, [4])])
    async def test_gives_every_label_once_in_order(self, served, size, counts):
        pages = [page async for page in self.pages(served, page_size=size)]
        assert [len(page) for page in pages] == counts
        assert [each for page in pages for each in page] == [(name, 10) for name in NAMES]

    async def test_gives_a_thousand_unless_told(self, served):
        assert [len(page) async for page in self.pages(served)] == [4]

    @pytest.mark.parametrize("token", ["x", "000001-4", "000001-0", "000001--1", "000002-1", "000001-1 "])
    async def test_refuses_a_token_it_never_gave_and_a_bad_size_at_once(self, served, token):
        request = search_pb2.ListLabelsRequest(page_size=0, page_token=token)
        assert await refusal(served.stub.ListLabels(request, timeout=TIMEOUT_S)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_PAGE",
            [("page_size", "INVALID_PAGE"), ("page_token", "INVALID_PAGE")],
        )

    async def test_refuses_a_page_that_is_too_large(self, served):
        request = search_pb2.ListLabelsRequest(page_size=10_001)
        assert (await refusal(served.stub.ListLabels(request)))[1] == "INVALID_PAGE"


def spoilt(value, position=(1, 2)):
    queries = unit(3)
    queries[position] = value
    return queries


MODEL = "c0ffee" + 58 * "0"
ONE_ROW = 4 * D


class TestBadCalls:
    @pytest.mark.parametrize(
        ("queries", "violation"),
        [
            (embedding_pb2.Embeddings(), ("queries", "INVALID_QUERY_COUNT")),
            (unit(0), ("queries", "INVALID_QUERY_COUNT")),
            (unit(7), ("queries", "INVALID_QUERY_COUNT")),
            (np.ones((1, D + 1)), ("queries.dimension", "DIMENSION_MISMATCH")),
            (embedding_pb2.Embeddings(model=MODEL, data=b"x" * ONE_ROW), ("queries.dimension", "DIMENSION_MISMATCH")),
            (
                embedding_pb2.Embeddings(model=MODEL, dimension=D, data=b"x" * (ONE_ROW + 1)),
                ("queries.data", "MALFORMED_EMBEDDINGS"),
            ),
            (spoilt(np.nan), ("queries.data", "MALFORMED_EMBEDDINGS")),
            (spoilt(np.inf), ("queries.data", "MALFORMED_EMBEDDINGS")),
            (spoilt(3e38), ("queries.data", "MALFORMED_EMBEDDINGS")),
            (np.zeros((1, D)), ("queries.data", "MALFORMED_EMBEDDINGS")),
        ],
    )
    async def test_bad_queries_are_refused_by_name(self, served, queries, violation):
        for call in (served.search(queries), served.classify(queries)):
            assert await refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, violation[1], [violation])

    @pytest.mark.parametrize(
        ("options", "violation"),
        [
            (Options(k=0), ("options.k", "INVALID_K")),
            (Options(k=21), ("options.k", "INVALID_K")),
            (Options(nprobe=1), ("options.nprobe", "INVALID_SEARCH_PARAMETER")),
            (Options(ef_search=1), ("options.ef_search", "INVALID_SEARCH_PARAMETER")),
            (Options(rerank=0), ("options.rerank", "INVALID_SEARCH_PARAMETER")),
            (Options(rerank=1001), ("options.rerank", "INVALID_SEARCH_PARAMETER")),
            (Options(shard_timeout_ms=0), ("options.shard_timeout_ms", "INVALID_SEARCH_PARAMETER")),
            (Options(shard_timeout_ms=9001), ("options.shard_timeout_ms", "INVALID_SEARCH_PARAMETER")),
            (Options(filter=Filter(makes=["lada"])), ("options.filter.makes", "UNKNOWN_FILTER_VALUE")),
            (Options(filter=Filter(min_year=2, max_year=1)), ("options.filter.min_year", "INVALID_FILTER")),
        ],
    )
    async def test_bad_options_are_refused_by_name(self, served, options, violation):
        for call in (served.search(unit(1), options=options), served.classify(unit(1), options=options)):
            assert await refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, violation[1], [violation])

    async def test_the_largest_of_the_other_options_are_taken(self, served):
        options = Options(k=4, rerank=1000, shard_timeout_ms=9000, allow_partial=True)
        assert len((await served.search(unit(2), options=options)).results) == 2

    async def test_a_query_has_no_more_candidates_than_the_engine_looks_at(self, served, monkeypatch):
        monkeypatch.setattr("search_svc.serving.queries.MOST_CANDIDATES", 60)
        assert len((await served.search(unit(1), options=Options(k=20, rerank=3))).results) == 1
        violation = ("options.rerank", "INVALID_SEARCH_PARAMETER")
        for options in (Options(k=20, rerank=4), Options(rerank=13)):
            assert (await refusal(served.search(unit(1), options=options)))[1:] == (violation[1], [violation])
        monkeypatch.setattr("search_svc.serving.queries.MOST_CANDIDATES", 10)
        assert len((await served.search(unit(1), options=Options(k=20, rerank=1))).results) == 1

    async def test_the_rerank_of_the_index_is_used_and_never_refused(self, build_index, tmp_path):
        version = build_index(unit(300), directory=tmp_path, spec=IndexSpec(factory="SQ4", rerank=1000))
        async with serving(version) as served:
            found = await served.search(unit(1), options=Options(k=20))
            exact = await served.search(unit(1), options=Options(k=20, exact=True))
        assert found.results == exact.results

    async def test_no_neighbours_and_reranking_are_refused_together(self, served):
        call = served.search(unit(1), options=Options(k=0, rerank=2))
        assert (await refusal(call))[2] == [("options.k", "INVALID_K")]

    async def test_a_call_finds_no_more_neighbours_than_a_reply_can_hold(self, served, monkeypatch):
        monkeypatch.setattr("search_svc.serving.queries.MAX_NEIGHBOURS", 60)
        assert len((await served.search(unit(3), options=Options(k=20))).results) == 3
        violation = ("options.k", "INVALID_K")
        for queries, options in ((unit(4), Options(k=16)), (unit(6), Options(k=11))):
            assert (await refusal(served.search(queries, options=options)))[1:] == ("INVALID_K", [violation])

    async def test_all_faults_are_told_at_once_and_the_next_good_call_is_answered(self, served):
        options = Options(k=0, nprobe=4, filter=Filter(makes=["hnoda"], min_year=2, max_year=1))
        assert await refusal(served.search(spoilt(np.nan), options=options)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "MALFORMED_EMBEDDINGS",
            [
                ("queries.data", "MALFORMED_EMBEDDINGS"),
                ("options.k", "INVALID_K"),
                ("options.nprobe", "INVALID_SEARCH_PARAMETER"),
                ("options.filter.makes", "UNKNOWN_FILTER_VALUE"),
                ("options.filter.min_year", "INVALID_FILTER"),
            ],
        )
        assert served.batches == []
        assert len((await served.search(unit(1))).results) == 1

    @pytest.mark.parametrize("model", ["", "f" * 64, MODEL + "0", "nonsense" * 10_000])
    async def test_queries_of_another_model_are_refused_with_both_fingerprints(self, served, model):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.search(unit(1), model=model)
        info = details(caught.value)[error_details_pb2.ErrorInfo]
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert info.reason == "MODEL_MISMATCH"
        assert info.metadata == {"expected": served.model, "got": model[:64]}
        assert "embed them with the index's model" in caught.value.details()
        assert "`vmmr-search migrate`" in caught.value.details()

    @pytest.mark.parametrize(
        ("factory", "parameter", "other"), [("IVF4,Flat", "nprobe", "ef_search"), ("HNSW4,Flat", "ef_search", "nprobe")]
    )
    async def test_an_index_takes_its_own_search_parameter_in_its_range(
        self, build_index, tmp_path, factory, parameter, other
    ):
        version = build_index(unit(40), directory=tmp_path, spec=IndexSpec(factory=factory))
        async with serving(version) as served:
            for good in (1, 65536):
                await served.search(unit(1), options=Options(**{parameter: good}))
            for bad in ({parameter: 0}, {parameter: 65537}, {other: 1}):
                reason = (await refusal(served.search(unit(1), options=Options(**bad))))[1]
                assert reason == "INVALID_SEARCH_PARAMETER"


class TestManyCallersOfOneQuery:
    async def test_are_searched_together_a_shard_a_matrix(self, version, monkeypatch):
        async with serving(version, max_batch=64, max_queue=128) as served:
            alone = [await served.search(query[None]) for query in unit(64)]
            asked, answer = [], Shard.answer

            def record(shard, question):
                asked.append((shard.rows.start, len(question.queries)))
                return answer(shard, question)

            monkeypatch.setattr(Shard, "answer", record)
            async with served.searching_held():
                calls = [asyncio.ensure_future(served.search(query[None])) for query in unit(64)]
                await until(lambda: served.batcher.waiting == 64)
            together = await asyncio.gather(*calls)
        assert [each.results for each in together] == [each.results for each in alone]
        assert sorted(asked) == [(shard.start, queries) for shard in version.manifest.shards for queries in (1, 64)]


class TestOverload:
    async def test_what_does_not_fit_the_queue_is_refused_at_once(self, served):
        async with served.searching_held():
            waiting = asyncio.ensure_future(served.search(unit(6)))
            await until(lambda: served.batcher.waiting == 6)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.search(unit(3))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(caught.value)[error_details_pb2.ErrorInfo].reason == "QUEUE_FULL"
        assert details(caught.value)[error_details_pb2.RetryInfo].retry_delay.ToNanoseconds() > 0
        assert len((await waiting).results) == 6


class TestCallersWhoLeft:
    async def test_cost_no_search(self, served):
        async with served.searching_held():
            leaving = served.search(unit(2))
            await until(lambda: served.batcher.waiting == 2)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await until(lambda: served.batcher.waiting == 0)
        assert served.batches == [1]

    async def test_or_whose_deadline_passed_either(self, served):
        async with served.searching_held():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.search(unit(2), timeout=0.2)
            await until(lambda: served.batcher.waiting == 0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert served.batches == [1]


async def until(condition):
    """Lets the event loop run until the condition holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 (nothing tells when a call has reached the servicer)
            await asyncio.sleep(0.001)


async def test_classify_asks_for_means_and_search_does_not(served, monkeypatch):
    asked = []
    means = View.means
    monkeypatch.setattr(View, "means", property(lambda view: asked.append(view) or means.fget(view)))
    await served.search(unit(1))
    assert not asked
    await served.classify(unit(1))
    assert asked
