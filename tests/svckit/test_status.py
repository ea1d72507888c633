from google.rpc import error_details_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from svckit.errors import Reason, ServiceError, Violation
from svckit.status import status_of


def info_and_violations(violations):
    status = status_of(ServiceError(Reason.INVALID_IMAGE, "bad", violations=violations), "id")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return status, info, bad.field_violations


def photo(index: int, description: str = "d" * 90) -> Violation:
    return Violation(f"images[{index}].content", "IMAGE_TOO_MANY_PIXELS", description)


def test_a_few_violations_travel_whole():
    violations = [photo(index) for index in range(8)]
    _, info, sent = info_and_violations(violations)
    assert [Violation(v.field, v.reason, v.description) for v in sent] == violations
    assert "violations_omitted" not in info.metadata


def test_of_many_violations_every_field_is_named_and_the_first_are_described():
    _, info, sent = info_and_violations([photo(index) for index in range(64)])
    assert [v.field for v in sent] == [f"images[{index}].content" for index in range(64)]
    described = [bool(v.description) for v in sent]
    assert described == sorted(described, reverse=True)
    assert any(described)
    assert not all(described)
    assert "violations_omitted" not in info.metadata


def test_violations_without_number_are_counted():
    _, info, sent = info_and_violations([photo(index) for index in range(1000)])
    assert len(sent) + int(info.metadata["violations_omitted"]) == 1000
    assert sent[0].field == "images[0].content"


@example(message="\N{AUTOMOBILE}" * 500, violations=[photo(index) for index in range(1000)])
@given(
    message=st.text(max_size=2000),
    violations=st.lists(st.builds(Violation, st.text(max_size=50), st.just("R"), st.text(max_size=3000)), max_size=200),
)
def test_a_status_never_outgrows_the_metadata_of_a_call(message, violations):
    """8 KB is the usual limit; the details come base64 encoded, the message a second time and percent-encoded."""
    status = status_of(ServiceError(Reason.INVALID_IMAGE, message, violations=violations), "i" * 128)
    assert status.ByteSize() * 4 / 3 + 3 * len(status.message.encode()) < 7700, "the rest is for the other entries"
