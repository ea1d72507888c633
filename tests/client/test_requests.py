"""Requests as they are sent."""

from vmmr import Box, _requests
from vmmr.embedder.v1 import embedder_pb2


def test_a_photo_is_sent_with_its_crop_and_without_one_as_a_whole():
    images = [_requests.Image(b"first", Box(0.25, 0.5, 0.75, 1)), _requests.Image(b"second")]
    first, second = embedder_pb2.EmbedRequest.FromString(_requests.embed(images).SerializeToString()).images
    assert first == embedder_pb2.Image(
        content=b"first", crop=embedder_pb2.Box(left=0.25, top=0.5, right=0.75, bottom=1)
    )
    assert (second.content, second.HasField("crop")) == (b"second", False)
