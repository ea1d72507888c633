"""Pages of labels, in the order of their names."""

from bisect import bisect_right
from collections.abc import Iterator

from vmmr.search.v1 import search_pb2

from search_svc.live.view import View
from search_svc.serving.page_tokens import key_before, token_after
from search_svc.serving.replies import label_message
from svckit.errors import Reason, Violation, rejected

_DEFAULT_SIZE = 1000
_LARGEST_SIZE = 10_000


class LabelPages:
    """Of the labels of one view that have photos."""

    def __init__(self, view: View) -> None:
        pairs = zip(view.items.labels, view.items.counts.tolist(), strict=False)
        present = sorted(((label, count) for label, count in pairs if count), key=lambda pair: pair[0].label)
        self._names = [label.label for label, _ in present]
        self._labels = [search_pb2.LabelCount(label=label_message(label), items=count) for label, count in present]

    def page(self, request: search_pb2.ListLabelsRequest) -> search_pb2.ListLabelsResponse:
        """Raises ServiceError, with everything that is wrong, if there is no such page."""
        if violations := list(_violations(request)):
            raise rejected(violations)
        last = key_before(request.page_token)
        start = 0 if last is None else bisect_right(self._names, last)
        stop = start + (request.page_size or _DEFAULT_SIZE)
        token = token_after(self._names[stop - 1]) if stop < len(self._names) else ""
        return search_pb2.ListLabelsResponse(labels=self._labels[start:stop], next_page_token=token)


def _violations(request: search_pb2.ListLabelsRequest) -> Iterator[Violation]:
    if request.HasField("page_size") and not 1 <= request.page_size <= _LARGEST_SIZE:
        text = f"must be 1 to {_LARGEST_SIZE}, got {request.page_size}"
        yield Violation("page_size", Reason.INVALID_PAGE, text)
    if request.page_token and key_before(request.page_token) is None:
        yield Violation("page_token", Reason.INVALID_PAGE, "no page gave this token: start again without one")
