"""The labels of an index version, a page at a time."""

from collections.abc import Iterator

import numpy as np
from vmmr.search.v1 import search_pb2

from search_svc.rejections import rejected
from search_svc.replies import label_message
from search_svc.version import IndexVersion
from svckit.errors import Reason, Violation

_DEFAULT_SIZE = 1000
_LARGEST_SIZE = 10_000


class LabelPages:
    def __init__(self, version: IndexVersion) -> None:
        items = version.items
        counts = np.bincount(items.label_of, minlength=len(items.labels)).tolist()
        self._version = version.manifest.version
        self._labels = [
            search_pb2.LabelCount(label=label_message(label), items=count)
            for label, count in zip(items.labels, counts, strict=True)
        ]
        self._starts = {self._token(start): start for start in range(len(self._labels))}

    def page(self, request: search_pb2.ListLabelsRequest) -> search_pb2.ListLabelsResponse:
        """Raises ServiceError, with everything that is wrong, if there is no such page."""
        if violations := list(self._violations(request)):
            raise rejected(violations)
        start = self._starts[request.page_token]
        stop = start + (request.page_size or _DEFAULT_SIZE)
        token = self._token(stop) if stop < len(self._labels) else ""
        return search_pb2.ListLabelsResponse(labels=self._labels[start:stop], next_page_token=token)

    def _violations(self, request: search_pb2.ListLabelsRequest) -> Iterator[Violation]:
        if request.HasField("page_size") and not 1 <= request.page_size <= _LARGEST_SIZE:
            text = f"must be 1 to {_LARGEST_SIZE}, got {request.page_size}"
            yield Violation("page_size", Reason.INVALID_PAGE, text)
        if request.page_token not in self._starts:
            text = f"no page of index version {self._version} gave this token: start again without one"
            yield Violation("page_token", Reason.INVALID_PAGE, text)

    def _token(self, start: int) -> str:
        return f"{self._version}-{start}" if start else ""
