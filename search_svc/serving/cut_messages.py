"""Cuts in the messages of the contracts."""

from vmmr.embedding.v1 import embedding_pb2

from search_svc.dataset.cuts import Cut


def read_cut(message: embedding_pb2.Cut) -> Cut:
    """Return the cut of a message, whether or not it makes sense: see Cut.problem."""
    score = message.car_score if message.HasField("car_score") else None
    return Cut(message.left, message.top, message.right, message.bottom, score, message.no_car_found)


def cut_message(cut: Cut) -> embedding_pb2.Cut:
    return embedding_pb2.Cut(
        left=cut.left,
        top=cut.top,
        right=cut.right,
        bottom=cut.bottom,
        car_score=cut.car_score,
        no_car_found=cut.no_car_found,
    )
