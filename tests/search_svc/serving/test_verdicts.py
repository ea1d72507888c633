"""Verdicts and calibrated confidences of a calibrated index, by `vmmr-search serve` as a real process."""

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vmmr import wire
from vmmr.embedding.v1 import embedding_pb2
from vmmr.search.v1 import search_pb2

from search_svc.engine.local import LocalEngine
from search_svc.live.view import Opened, View
from search_svc.serving.queries import Plan, Query
from search_svc.serving.replies import Replies
from search_svc.serving.searcher import Searcher
from search_svc.voting.answer import Answerer

TIMEOUT_S = 30


@pytest.fixture(scope="module")
def stub(calibrated, module_spawn, module_dial):
    return module_dial(module_spawn("--index", calibrated.version.path.parents[1]).ready()["port"])


def classify(stub, calibrated, photos, **how):
    queries = wire.pack(calibrated.version.manifest.model, photos)
    return stub.Classify(search_pb2.ClassifyRequest(queries=queries, **how), timeout=TIMEOUT_S).results


def direct(calibrated, photos):
    """What was found for each, and the answerer, without a server."""
    manifest = calibrated.version.manifest
    plan = Plan(manifest.k, manifest.search, exact=False)
    with LocalEngine.open(calibrated.version) as shards:
        found = Searcher(lambda: View(Opened(calibrated.version, shards))).run([Query(photo, plan) for photo in photos])
    return [each.neighbours for each in found], Answerer(calibrated.version)


def messages(calibrated, answered):
    replies = Replies(calibrated.version)
    return replies.classify(*zip(*answered, strict=True)).results


def test_get_index_says_what_they_were_fitted_on(stub, calibrated):
    fitted = calibrated.version.calibration
    sent = stub.GetIndex(search_pb2.GetIndexRequest(), timeout=TIMEOUT_S).index.calibration
    assert sent.photos == fitted.photos == 240
    assert sent.false_alarm_rate == pytest.approx(fitted.false_alarm_rate)
    assert sent.unknown_threshold == pytest.approx(fitted.unknown_threshold)


def test_known_cars_are_known_and_others_are_not(stub, calibrated):
    known = [each.verdict for each in classify(stub, calibrated, calibrated.photos)]
    others = [each.verdict for each in classify(stub, calibrated, calibrated.strangers)]
    assert set(known) <= {search_pb2.VERDICT_KNOWN, search_pb2.VERDICT_UNKNOWN}
    assert known.count(search_pb2.VERDICT_KNOWN) >= 0.8 * len(known)
    assert others.count(search_pb2.VERDICT_UNKNOWN) >= 0.8 * len(others)
    assert all(each.HasField("answer") for each in classify(stub, calibrated, calibrated.strangers))


def test_verdicts_follow_from_the_known_score_and_the_confidence_that_is_asked_for(stub, calibrated):
    threshold = stub.GetIndex(search_pb2.GetIndexRequest(), timeout=TIMEOUT_S).index.calibration.unknown_threshold
    photos = np.concatenate([calibrated.photos, calibrated.strangers])
    seen = set()
    for each in classify(stub, calibrated, photos, min_confidence=0.75):
        if each.known_score < threshold:
            expected = search_pb2.VERDICT_UNKNOWN
        else:
            expected = search_pb2.VERDICT_UNSURE if each.label_confidence < 0.75 else search_pb2.VERDICT_KNOWN
        assert each.verdict == expected
        seen.add(expected)
    assert len(seen) == 3


def test_a_photo_without_a_car_is_unknown_however_surely_its_neighbours_agree(stub, calibrated):
    whole = {"left": 0, "top": 0, "right": 1, "bottom": 1}
    cuts = [embedding_pb2.Cut(**whole, no_car_found=row % 2 == 0) for row in range(len(calibrated.photos))]
    plain = classify(stub, calibrated, calibrated.photos)
    for each, before, cut in zip(classify(stub, calibrated, calibrated.photos, cuts=cuts), plain, cuts, strict=True):
        assert each.no_car_found == cut.no_car_found
        assert each.verdict == (search_pb2.VERDICT_UNKNOWN if cut.no_car_found else before.verdict)
        assert (each.known_score, each.answer) == (before.known_score, before.answer)


def test_levels_and_years_never_contradict_each_other(stub, calibrated):
    ranges = 0
    for photos in (calibrated.photos, calibrated.strangers):
        for each in classify(stub, calibrated, photos):
            assert 0 <= each.label_confidence <= each.years_confidence <= each.model_confidence
            assert each.model_confidence <= each.make_confidence <= 1
            assert each.first_year <= each.answer.year <= each.last_year
            ranges += each.first_year < each.last_year
    assert ranges


def test_answers_are_those_of_the_answerer_called_directly(stub, calibrated):
    photos = calibrated.photos[::5]
    found, answerer = direct(calibrated, photos)
    served = classify(stub, calibrated, photos, min_confidence=0.75)
    assert served == messages(calibrated, [([each], answerer.answer([each], 0.75)) for each in found])


def test_fused_answers_too_and_they_are_right_more_often(stub, calibrated):
    surer = []
    for start in range(0, len(calibrated.photos), 5):
        photos = calibrated.photos[start : start + 5]
        found, answerer = direct(calibrated, photos)
        [fused] = classify(stub, calibrated, photos, fuse=True, min_confidence=0.75)
        assert [fused] == messages(calibrated, [(found, answerer.answer(found, 0.75))])
        alone = classify(stub, calibrated, photos)
        assert fused.neighbours[0].score == max(each.neighbours[0].score for each in alone)
        right = np.mean([each.answer.label == calibrated.names[start] for each in alone])
        surer.append(float(fused.answer.label == calibrated.names[start]) - right)
    assert np.mean(surer) > 0


def test_a_confidence_that_is_none_is_refused_and_the_next_call_answered(stub, calibrated):
    for bad in (-0.01, 1.01, np.nan, np.inf):
        with pytest.raises(grpc.RpcError) as caught:
            classify(stub, calibrated, calibrated.photos[:1], min_confidence=bad)
        bad_request = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad_request) for detail in rpc_status.from_call(caught.value).details)
        [violation] = bad_request.field_violations
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (violation.field, violation.reason) == ("min_confidence", "INVALID_MIN_CONFIDENCE")
    assert len(classify(stub, calibrated, calibrated.photos[:1], min_confidence=1.0)) == 1
