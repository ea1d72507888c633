"""Make, model and year of a car from a photo: the client of the vmmr services.

```python
with vmmr.Client() as client:
    print(client.identify("car.jpg"))  # for example: honda pilot 2009-2011
```
"""

from vmmr import _quiet  # noqa: F401  # before anything else imports gRPC

# isort: split
from vmmr._aio import AsyncClient
from vmmr._batches import Outcome
from vmmr._channel import TLS
from vmmr._client import Client
from vmmr._connection import request_id
from vmmr._errors import (
    CallError,
    DeadlineExceededError,
    FetchError,
    InvalidPhotoError,
    InvalidRequestError,
    ItemNotFoundError,
    MessageTooLargeError,
    ModelMismatchError,
    OverloadedError,
    PhotoError,
    ProtocolError,
    ServerError,
    UnauthenticatedError,
    UnavailableError,
    UnreadablePhotoError,
    Violation,
    VmmrError,
)
from vmmr._fetch import URL
from vmmr._gallery import AddOutcome, AddResult, Compaction, DeleteResult, IndexVersion, IndexVersions, NewItem
from vmmr._photos import Photo, PhotoSource
from vmmr._served import (
    Calibration,
    CutCounts,
    Detector,
    EmbedLimits,
    IndexInfo,
    Info,
    LabelCount,
    ModelInfo,
    QueryLimits,
)
from vmmr._tracing import traceparent
from vmmr._types import (
    Box,
    Candidate,
    Classification,
    ClassifyResult,
    Cut,
    Detection,
    EmbeddedPart,
    Embeddings,
    EmbedTimes,
    Filter,
    Identification,
    Item,
    Label,
    Neighbour,
    Provenance,
    SearchOptions,
    SearchResult,
    SearchTimes,
    Subject,
    Times,
    Verdict,
)
from vmmr._version import __version__ as __version__

__all__ = [
    "TLS",
    "URL",
    "AddOutcome",
    "AddResult",
    "AsyncClient",
    "Box",
    "Calibration",
    "CallError",
    "Candidate",
    "Classification",
    "ClassifyResult",
    "Client",
    "Compaction",
    "Cut",
    "CutCounts",
    "DeadlineExceededError",
    "DeleteResult",
    "Detection",
    "Detector",
    "EmbedLimits",
    "EmbedTimes",
    "EmbeddedPart",
    "Embeddings",
    "FetchError",
    "Filter",
    "Identification",
    "IndexInfo",
    "IndexVersion",
    "IndexVersions",
    "Info",
    "InvalidPhotoError",
    "InvalidRequestError",
    "Item",
    "ItemNotFoundError",
    "Label",
    "LabelCount",
    "MessageTooLargeError",
    "ModelInfo",
    "ModelMismatchError",
    "Neighbour",
    "NewItem",
    "Outcome",
    "OverloadedError",
    "Photo",
    "PhotoError",
    "PhotoSource",
    "ProtocolError",
    "Provenance",
    "QueryLimits",
    "SearchOptions",
    "SearchResult",
    "SearchTimes",
    "ServerError",
    "Subject",
    "Times",
    "UnauthenticatedError",
    "UnavailableError",
    "UnreadablePhotoError",
    "Verdict",
    "Violation",
    "VmmrError",
    "request_id",
    "traceparent",
]
