"""Requests as they are sent."""

from hypothesis import given
from hypothesis import strategies as st
from vmmr import Box, _requests
from vmmr.embedder.v1 import embedder_pb2

fractions = st.floats(0, 1, width=32)
boxes = st.none() | st.builds(Box, fractions, fractions, fractions, fractions)
lengths = st.sampled_from([0, 1, 126, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152])


@given(st.lists(st.tuples(lengths, boxes), max_size=4))
def test_photos_are_sent_as_protobuf_sends_them(photos):
    images = [_requests.Image(bytes(length), box) for length, box in photos]
    expected = embedder_pb2.EmbedRequest(
        images=[
            embedder_pb2.Image(content=image.content, crop=None if image.crop is None else _requests._box(image.crop))
            for image in images
        ]
    )
    assert _requests.embed(images) == expected.SerializeToString(deterministic=True)
