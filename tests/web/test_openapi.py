"""OpenAPI says what is so: checked against the routes, and fuzzed."""

import re

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="the extra dev is not installed: no fuzzing of OpenAPI")


OPERATIONS = {
    ("post", "/v1/identify"),
    ("post", "/v1/detect"),
    ("post", "/v1/embed"),
    ("post", "/v1/search"),
    ("get", "/v1/labels"),
    ("get", "/v1/items"),
    ("post", "/v1/items"),
    ("delete", "/v1/items"),
    ("get", "/v1/info"),
    ("get", "/healthz"),
    ("get", "/readyz"),
}


@pytest.fixture
def schema(door):
    return door.http.get("/v1/openapi.json").json()


def test_it_is_openapi_3_1_with_every_operation(schema):
    assert schema["openapi"].startswith("3.1.")
    assert {(method, path) for path, item in schema["paths"].items() for method in item} == OPERATIONS


def test_every_reference_leads_somewhere(schema):
    names = set(re.findall(r"#/components/schemas/([\w.-]+)", str(schema)))
    assert {"Problem", "PhotoBody", "IdentifyReply", "Identification"} <= names
    assert names <= schema["components"]["schemas"].keys()


def test_every_parameter_and_field_of_a_body_is_described(schema):
    for path, item in schema["paths"].items():
        if path.startswith("/v1"):
            for operation in item.values():
                assert operation["description"], path
                bare = [p["name"] for p in operation.get("parameters", []) if not p["schema"].get("description")]
                assert [name for name in bare if not name.startswith(("item_id", "label", "batch_id"))] == [], path


_checks = pytest.importorskip("schemathesis.specs.openapi.checks")
CHECKS = [
    _checks.content_type_conformance,
    _checks.negative_data_rejection,
    _checks.response_schema_conformance,
    _checks.status_code_conformance,
]


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS), ids=lambda part: part.strip("/"))
def test_fuzzing_finds_no_failure_of_the_server_and_no_answer_but_those_described(door, bearer, method, path):
    """Valid and invalid requests, made from the schema: photos among them are noise, which the embedder refuses."""
    described = schemathesis.openapi.from_url(f"{door.url}/v1/openapi.json")
    operation = described[path][method.upper()]

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def fuzz(case):
        reply = case.call(headers=bearer)
        assert reply.status_code != 500, reply.text
        case.validate_response(reply, checks=CHECKS, headers=bearer)

    fuzz()
