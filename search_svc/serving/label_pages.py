"""Pages of labels, in the order of their names."""

from bisect import bisect_right

from vmmr.search.v1 import search_pb2

from search_svc.live.view import View
from search_svc.serving.pages import PageRequest, token_after
from search_svc.serving.replies import label_message


class LabelPages:
    """The labels of one view that have photos, a page at a time."""

    def __init__(self, view: View) -> None:
        """Make the messages of all labels. No reference to the view is kept."""
        pairs = zip(view.items.labels, view.items.counts.tolist(), strict=False)
        present = sorted(((label, count) for label, count in pairs if count), key=lambda pair: pair[0].label)
        self._names = [label.label for label, _ in present]
        self._labels = [search_pb2.LabelCount(label=label_message(label), items=count) for label, count in present]

    def page(self, request: search_pb2.ListLabelsRequest) -> search_pb2.ListLabelsResponse:
        """Return the page that is asked for. Raises ServiceError, with everything that is wrong, if there is none such."""
        page = PageRequest.of(request)
        start = bisect_right(self._names, page.after)
        stop = start + page.size
        token = token_after(self._names[stop - 1]) if stop < len(self._names) else ""
        return search_pb2.ListLabelsResponse(labels=self._labels[start:stop], next_page_token=token)
