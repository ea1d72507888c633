"""Real servers over one index that others write to, compact and rebuild; every answer is checked against numpy."""

import importlib.util
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.search.v1 import search_pb2

from search_svc.building.build import IndexSpec
from search_svc.building.compaction import compact
from search_svc.index.index_dir import make_current
from search_svc.index.retention import retire, versions

_found = importlib.util.spec_from_file_location("live_index", Path(__file__).parents[1] / "live_index.py")
live_index = importlib.util.module_from_spec(_found)
_found.loader.exec_module(live_index)
MODEL, NAMES, Index = live_index.MODEL, live_index.NAMES, live_index.Index
build, unit = live_index.build, live_index.unit

TIMEOUT_S = 60
D = 8
K = 7
WHOLE = np.random.default_rng(3).integers(-2, 3, (60, D)).astype(np.float32)
"""Scores of whole numbers are exact however they are summed, and many tie."""
WHOLE[(WHOLE == 0).all(axis=1)] = 1
Options, Filter = search_pb2.SearchOptions, search_pb2.Filter


class Served:
    """An index of WHOLE, and what was in its gallery after each entry of the journal."""

    def __init__(self, path):
        self.path = path
        self.index = Index(path)
        self._galleries = {0: {f"photo {row}": vector for row, vector in enumerate(WHOLE)}}
        self._last = 0

    def add(self, **items):
        gallery = {name: vector for name, vector in self._galleries[self._last].items() if name not in items}
        sequence = self.index.add(**{name: ("misc", vector) for name, vector in items.items()})
        return self._keep(sequence, gallery | items)

    def delete(self, *names):
        gallery = {name: vector for name, vector in self._galleries[self._last].items() if name not in names}
        return self._keep(self.index.delete(*names), gallery)

    def _keep(self, sequence, gallery):
        self._galleries[sequence] = gallery
        self._last = sequence
        return sequence

    def expected(self, query, sequence):
        """(item id, score): the gallery's order is that of photos, then of the last write."""
        gallery = self._galleries[sequence]
        scored = [(name, float(query @ vector)) for name, vector in gallery.items()]
        return sorted(scored, key=lambda pair: -pair[1])[:K]

    def wrong(self, queries, response):
        """Whether the answer is not that of the gallery at the very entry that it names."""
        end = time.monotonic() + TIMEOUT_S
        while (
            response.provenance.journal_sequence not in self._galleries
        ):  # a write of which the writer has not heard yet
            assert time.monotonic() < end
            time.sleep(0.001)
        found = [[(each.item_id, each.score) for each in result.neighbours] for result in response.results]
        return found != [self.expected(query, response.provenance.journal_sequence) for query in queries]


@pytest.fixture
def served(tmp_path):
    build(tmp_path / "index", IndexSpec("Flat", shards=2, k=K, temperature=1.0), WHOLE)
    return Served(tmp_path / "index")


def request(queries, model=MODEL, **options):
    return search_pb2.SearchRequest(queries=wire.pack(model, queries), options=Options(**options))


def details(error):
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info)
    return info


def until(condition):
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestTwoProcesses:
    def test_who_asks_for_what_another_process_wrote_gets_it_from_any_server(self, served, spawn, dial):
        stubs = [dial(spawn("--index", served.path).ready()["port"]) for _ in range(2)]
        program = [sys.executable, live_index.__file__, str(served.path), "40", "0.01"]
        queries = unit(40, seed=7)
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:
            for row, line in enumerate(writer.stdout):
                sequence = int(line.split()[0])
                for stub in stubs:
                    response = stub.Search(request(queries[row][None], k=1, min_sequence=sequence), timeout=TIMEOUT_S)
                    assert response.provenance.journal_sequence >= sequence
                    (found,) = stub.Search(
                        request(queries[row][None], min_sequence=sequence, filter=Filter(labels=["honda_pilot_2027"])),
                        timeout=TIMEOUT_S,
                    ).results
                    assert found.neighbours[0].item_id == f"late {row}"
                    assert (found.neighbours[0].label.make, found.neighbours[0].label.year) == ("honda", 2027)
        assert writer.returncode == 0
        index = stubs[0].GetIndex(search_pb2.GetIndexRequest()).index
        assert (index.items, index.delta_items, index.labels, index.journal_sequence) == (100, 40, 5, 40)
        assert index.problem == ""
        labels = stubs[1].ListLabels(search_pb2.ListLabelsRequest()).labels
        assert {each.label.label: each.items for each in labels}["honda_pilot_2027"] == 40

    def test_a_sequence_number_that_nobody_gave_is_refused_at_the_deadline(self, served, spawn, dial):
        stub = dial(spawn("--index", served.path).ready()["port"])
        served.add(new=WHOLE[0])
        with pytest.raises(grpc.RpcError) as caught:
            stub.Search(request(WHOLE[:1], min_sequence=99), timeout=0.5)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not served.wrong(WHOLE[:1], stub.Search(request(WHOLE[:1], min_sequence=1), timeout=TIMEOUT_S))


class TestMeans:
    def test_every_server_tells_those_of_the_photos_that_are_there_after_any_writes_and_compactions(
        self, tmp_path, spawn, dial
    ):
        build(tmp_path / "index", IndexSpec("Flat", shards=3, k=K, temperature=1.0), WHOLE)
        index, rng = Index(tmp_path / "index"), np.random.default_rng(4)
        gallery = {f"photo {row}": (NAMES[row % 4], vector) for row, vector in enumerate(WHOLE)}
        stubs = [dial(spawn("--index", index.path, "--compact-at", "0").ready()["port"]) for _ in range(2)]
        for round_ in range(4):
            for _ in range(20):
                name = f"photo {rng.integers(0, 60)}"
                gallery[name] = (rng.choice([*NAMES, "kia_rio_2020"]).item(), WHOLE[rng.integers(0, 60)])
                index.add(**{name: gallery[name]})
                if gone := [f"photo {row}" for row in rng.integers(0, 60, 2) if f"photo {row}" in gallery]:
                    sequence = index.delete(*gone)
                    gallery = {name: item for name, item in gallery.items() if name not in gone}
            if round_ % 2:
                compact(index.path)
            asked = search_pb2.ClassifyRequest(
                queries=wire.pack(MODEL, WHOLE[:5]), options=Options(k=60, min_sequence=sequence)
            )
            for stub in stubs:
                results = stub.Classify(asked, timeout=TIMEOUT_S).results
                assert [told(result) for result in results] == [expected(gallery, query) for query in WHOLE[:5]]


def told(result):
    return {
        each.label.label: (each.nearest_score, pytest.approx(each.mean_similarity, abs=1e-6)) for each in result.labels
    }


def expected(gallery, query):
    """Label -> (the score of its nearest photo, the cosine with the mean of its photos)."""
    found = {}
    for label in {label for label, _ in gallery.values()}:
        vectors = [vector for of, vector in gallery.values() if of == label]
        mean = np.mean(vectors, axis=0, dtype=np.float64)
        cosine = query @ mean / (np.linalg.norm(query) * np.linalg.norm(mean) or 1)
        found[label] = (float(max(vector @ query for vector in vectors)), float(cosine))
    return found


KEEPS_ALL = ("--keep-versions", "99")
"""The server removes no versions by itself, for which it would keep others from making some."""


class TestSwitching:
    def test_under_load_no_call_fails_and_none_is_answered_wrong(self, served, spawn, dial):
        process = spawn("--index", served.path, *KEEPS_ALL)
        port = process.ready()["port"]
        done, asked, wrong, failed = threading.Event(), [], [], []

        def ask(caller):
            stub, rng = dial(port), np.random.default_rng(caller)
            while not done.is_set():
                queries = WHOLE[rng.integers(0, len(WHOLE), rng.choice([1, 3, 100]))]
                try:
                    response = stub.Search(request(queries, exact=bool(rng.integers(2))), timeout=TIMEOUT_S)
                except grpc.RpcError as error:
                    failed.append(error)
                    return
                asked.append(response.provenance.index_version)
                if served.wrong(queries, response):
                    wrong.append(response)

        callers = [threading.Thread(target=ask, args=[caller]) for caller in range(4)]
        for caller in callers:
            caller.start()
        until(lambda: "000001" in asked)
        rng = np.random.default_rng(9)
        for round_ in range(4):
            for _ in range(15):
                name = f"{rng.choice(['photo', 'new'])} {rng.integers(0, 60)}"
                served.add(**{name: WHOLE[rng.integers(0, 60)], f"more {round_}": WHOLE[rng.integers(0, 60)]})
                served.delete(f"photo {rng.integers(0, 60)}", f"new {rng.integers(0, 60)}")
            compact(served.path)
            until(lambda version=f"{round_ + 2:06d}": version in asked)
        retire(served.path, 1)
        done.set()
        for caller in callers:
            caller.join(TIMEOUT_S)
        assert (failed, wrong) == ([], [])
        assert {*asked} == {f"{version:06d}" for version in range(1, 6)}
        until(lambda: len(process.logged("switched version")) == 4)

    def test_versions_that_were_left_can_be_removed_while_the_server_is_idle(self, served, spawn, dial):
        stub = dial(spawn("--index", served.path, *KEEPS_ALL).ready()["port"])
        for vector in WHOLE[:2]:
            served.add(new=vector)
            stub.Search(request(WHOLE[:20]), timeout=TIMEOUT_S)
            stub.Classify(search_pb2.ClassifyRequest(queries=wire.pack(MODEL, WHOLE[:20])), timeout=TIMEOUT_S)
            stub.ListLabels(search_pb2.ListLabelsRequest())
            version = compact(served.path).manifest.version
            until(lambda version=version: stub.GetIndex(search_pb2.GetIndexRequest()).index.version == version)
        until(lambda: not any(kept.in_use for kept in versions(served.path)[:-1]))
        assert retire(served.path, 1) == ["000001", "000002"]
        assert not served.wrong(WHOLE[:9], stub.Search(request(WHOLE[:9]), timeout=TIMEOUT_S))

    def test_queries_of_the_model_before_are_refused_from_then_on_and_told_which_to_use(self, served, spawn, dial):
        stub = dial(spawn("--index", served.path).ready()["port"])
        stub.Search(request(WHOLE[:1]), timeout=TIMEOUT_S)
        other = "beef" + 60 * "0"
        build(served.path, IndexSpec("Flat", k=3), unit(50, seed=5), model=other)
        until(lambda: stub.GetIndex(search_pb2.GetIndexRequest()).index.version == "000002")
        with pytest.raises(grpc.RpcError) as caught:
            stub.Search(request(WHOLE[:1]), timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert details(caught.value).reason == "MODEL_MISMATCH"
        assert details(caught.value).metadata == {"expected": other, "got": MODEL}
        (found,) = stub.Search(request(unit(1, seed=5), model=other), timeout=TIMEOUT_S).results
        assert [found.neighbours[0].item_id, len(found.neighbours)] == ["photo 0", 3]


def test_a_server_is_told_to_be_at_fault_while_it_cannot_follow(served, spawn, dial):
    process = spawn("--index", served.path)
    stub = dial(process.ready()["port"])
    make_current(served.path, "000007")
    until(lambda: "000007: there is no such index version" in stub.GetIndex(search_pb2.GetIndexRequest()).index.problem)
    assert process.first("the current version cannot be served")["reason"].startswith(
        f"{served.path}/versions/000007: there is no such index version: `vmmr-search rollback {served.path} "
    )
    assert not served.wrong(WHOLE[:2], stub.Search(request(WHOLE[:2]), timeout=TIMEOUT_S))
