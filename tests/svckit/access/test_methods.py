"""Every RPC has a row in the table of roles, and is counted as what it is."""

import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2
from vmmr import wire
from vmmr.embedder.v1 import embedder_pb2
from vmmr.gallery.v1 import gallery_pb2
from vmmr.inference.v2 import inference_pb2
from vmmr.search.v1 import search_pb2

from svckit import reflection
from svckit.access.access import Call
from svckit.access.callers import Role
from svckit.access.methods import METHODS

FILES = (embedder_pb2, search_pb2, gallery_pb2, inference_pb2, reflection_pb2)
GALLERY = "/vmmr.gallery.v1.GalleryService/"
WRITES = {f"{GALLERY}{name}" for name in ("AddItems", "DeleteItems", "Compact")}


def test_every_rpc_of_the_protocols_has_a_row_and_no_row_is_without_an_rpc():
    reflection._describe_v1()
    services = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]
    services.append(descriptor_pool.Default().FindServiceByName(reflection.V1))
    assert {f"/{service.full_name}/{rpc.name}" for service in services for rpc in service.methods} == set(METHODS)


def test_what_changes_the_gallery_needs_more_than_asking_and_is_noted():
    noted = {name for name, asks in METHODS.items() if asks.asked}
    beyond_asking = {name for name, asks in METHODS.items() if asks.role > Role.QUERY}
    assert noted == beyond_asking == WRITES
    assert METHODS[f"{GALLERY}AddItems"].role is METHODS[f"{GALLERY}DeleteItems"].role is Role.ENROL
    assert METHODS[f"{GALLERY}Compact"].role is Role.ADMIN


def test_an_rpc_that_nobody_has_thought_of_is_the_admins():
    assert Call("/vmmr.gallery.v1.GalleryService/DropEverything", "", "").asks.role is Role.ADMIN


QUERIES = wire.pack("m", [[1.0, 2.0]] * 3)
IMAGES = [embedder_pb2.Image(content=b"1")] * 2
COUNTED = [
    ("/vmmr.embedder.v1.EmbedderService/Embed", embedder_pb2.EmbedRequest(images=IMAGES), 2, 0),
    ("/vmmr.embedder.v1.EmbedderService/Detect", embedder_pb2.DetectRequest(images=IMAGES), 2, 0),
    (
        "/vmmr.search.v1.SearchService/Search",
        search_pb2.SearchRequest(queries=QUERIES, options=search_pb2.SearchOptions(k=7)),
        3,
        7,
    ),
    ("/vmmr.search.v1.SearchService/Classify", search_pb2.ClassifyRequest(queries=QUERIES), 3, 0),
    ("/vmmr.search.v1.SearchService/Classify", search_pb2.ClassifyRequest(), 0, 0),
    (f"{GALLERY}AddItems", gallery_pb2.AddItemsRequest(items=[gallery_pb2.Item()] * 4), 4, 0),
    (f"{GALLERY}ListItems", gallery_pb2.ListItemsRequest(), 0, 0),
]


@pytest.mark.parametrize(("name", "request_", "photos", "k"), COUNTED)
def test_a_request_is_counted_by_its_photos_and_its_k(name, request_, photos, k):
    assert (METHODS[name].photos(request_), METHODS[name].k(request_)) == (photos, k)


@pytest.mark.parametrize(
    ("told", "sent", "counted"), [(2, 2, 2), (2**62, 2, 2), (-5, 2, 0)], ids=["true", "too many", "below none"]
)
def test_photos_over_kserve_are_at_most_what_was_sent(told, sent, counted):
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(shape=[told])
    tensor.contents.bytes_contents.extend([b"photo"] * sent)
    infer = inference_pb2.ModelInferRequest(inputs=[tensor])
    assert METHODS["/inference.GRPCInferenceService/ModelInfer"].photos(infer) == counted


def test_what_a_write_is_about_is_bounded():
    items = [gallery_pb2.Item(item_id=f"{n} {'i' * 500}", label=f"{n} {'x' * 500}", batch_id="b") for n in range(30)]
    facts = METHODS[f"{GALLERY}AddItems"].asked(gallery_pb2.AddItemsRequest(items=items))
    assert (facts["items"], facts["labels_in_all"], facts["batch_ids"]) == (30, 30, ["b"])
    for names in ("labels", "item_ids"):
        assert [len(name) for name in facts[names]] == [128] * 10


@pytest.mark.parametrize(
    ("selector", "facts"),
    [
        ({"label": "lada_niva_1999"}, {"labels": ["lada_niva_1999"], "labels_in_all": 1}),
        ({"batch_id": "b"}, {"batch_ids": ["b"]}),
        ({"item_ids": gallery_pb2.ItemIds(item_ids=["1", "2"])}, {"items": 2, "item_ids": ["1", "2"]}),
        ({}, {"items": 0, "item_ids": []}),
    ],
)
def test_a_deletion_is_noted_by_what_selects_it(selector, facts):
    assert METHODS[f"{GALLERY}DeleteItems"].asked(gallery_pb2.DeleteItemsRequest(**selector)) == facts
