"""The metrics of answers, of `vmmr-search serve` as a real process over a calibrated index."""

import math
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from vmmr import wire
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

TIMEOUT_S = 30


class Asked:
    """A server, and what its metrics said when they were last read."""

    def __init__(self, calibrated, process, dial):
        ports = process.ready()
        self._model = calibrated.version.manifest.model
        self._stub = dial(ports["port"])
        self._url = f"http://127.0.0.1:{ports['metrics_port']}/metrics"

    def classify(self, photos, **how):
        request = search_pb2.ClassifyRequest(queries=wire.pack(self._model, photos), **how)
        return self._stub.Classify(request, timeout=TIMEOUT_S).results

    def metrics(self):
        text = urllib.request.urlopen(self._url, timeout=TIMEOUT_S).read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}

    def answers(self):
        """Return the number of answers by verdict."""
        return {key[1]: value for key, value in self.metrics().items() if key[0] == "vmmr_answers_total"}


@pytest.fixture
def asked(calibrated, spawn, dial):
    return Asked(calibrated, spawn("--index", calibrated.version.path.parents[1]), dial)


def cuts(*, no_car_found):
    whole = {"left": 0, "top": 0, "right": 1, "bottom": 1}
    return [embedding_pb2.Cut(**whole, no_car_found=each) for each in no_car_found]


def test_answers_are_counted_by_their_verdict(calibrated, asked):
    verdicts = [each.verdict for each in asked.classify(calibrated.photos, min_confidence=0.9)]
    asked.classify(calibrated.photos[:3], cuts=cuts(no_car_found=[True, False, True]), fuse=False)
    nothing = {"filter": search_pb2.Filter(makes=["make0"], min_year=1900, max_year=1901)}
    asked.classify(calibrated.photos[:2], options=nothing)
    counted = asked.answers()
    assert counted["no_car"] == 2
    assert counted["no_neighbours"] == 2
    assert counted["unsure"] == verdicts.count(search_pb2.VERDICT_UNSURE)
    assert counted["unsure"] > 0
    assert sum(counted.values()) == len(verdicts) + 3 + 2


def test_photos_of_one_car_are_one_answer_of_several_queries(calibrated, asked):
    asked.classify(calibrated.photos[:3], fuse=True)
    assert sum(asked.answers().values()) == 1
    assert asked.metrics()["vmmr_query_similarity_count",] == 3


def test_only_queries_with_a_car_that_are_compared_with_the_whole_gallery_count_for_the_drift(calibrated, asked):
    asked.classify(calibrated.photos[:2], cuts=cuts(no_car_found=[True, False]))
    asked.classify(calibrated.photos[:5], options={"filter": search_pb2.Filter(makes=["make0"])})
    assert asked.metrics()["vmmr_query_similarity_count",] == 1


def test_the_drift_is_small_for_photos_like_those_of_the_calibration_and_large_for_other_cars(calibrated, asked):
    asked.classify(calibrated.photos)
    assert math.isnan(asked.metrics()["vmmr_query_drift",])
    asked.classify(calibrated.photos)
    like = asked.metrics()["vmmr_query_drift",]
    for _ in range(4):
        asked.classify(calibrated.strangers)
    assert 0 <= like < 0.25 < asked.metrics()["vmmr_query_drift",]


def test_the_disk_of_the_index_is_told(asked):
    told = asked.metrics()
    assert 0 < told["vmmr_disk_free_bytes",] < told["vmmr_disk_bytes",]
