import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vmmr.embedding.v1 import embedding_pb2 as _embedding_pb2
from vmmr.search.v1 import search_pb2 as _search_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Item(_message.Message):
    __slots__ = ("item_id", "label", "uri", "batch_id", "attributes", "cut")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    label: str
    uri: str
    batch_id: str
    attributes: _containers.ScalarMap[str, str]
    cut: _embedding_pb2.Cut
    def __init__(self, item_id: _Optional[str] = ..., label: _Optional[str] = ..., uri: _Optional[str] = ..., batch_id: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., cut: _Optional[_Union[_embedding_pb2.Cut, _Mapping]] = ...) -> None: ...

class AddItemsRequest(_message.Message):
    __slots__ = ("items", "embeddings")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    embeddings: _embedding_pb2.Embeddings
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., embeddings: _Optional[_Union[_embedding_pb2.Embeddings, _Mapping]] = ...) -> None: ...

class AddItemsResponse(_message.Message):
    __slots__ = ("added", "replaced", "journal_sequence", "unchanged")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    added: int
    replaced: int
    journal_sequence: int
    unchanged: int
    def __init__(self, added: _Optional[int] = ..., replaced: _Optional[int] = ..., journal_sequence: _Optional[int] = ..., unchanged: _Optional[int] = ...) -> None: ...

class ItemIds(_message.Message):
    __slots__ = ("item_ids",)
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteItemsRequest(_message.Message):
    __slots__ = ("item_ids", "label", "batch_id")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    item_ids: ItemIds
    label: str
    batch_id: str
    def __init__(self, item_ids: _Optional[_Union[ItemIds, _Mapping]] = ..., label: _Optional[str] = ..., batch_id: _Optional[str] = ...) -> None: ...

class DeleteItemsResponse(_message.Message):
    __slots__ = ("deleted", "journal_sequence")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    journal_sequence: int
    def __init__(self, deleted: _Optional[int] = ..., journal_sequence: _Optional[int] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("item_id",)
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    def __init__(self, item_id: _Optional[str] = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item",)
    ITEM_FIELD_NUMBER: _ClassVar[int]
    item: Item
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ...) -> None: ...

class ListItemsRequest(_message.Message):
    __slots__ = ("filter", "batch_id", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: _search_pb2.Filter
    batch_id: str
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[_search_pb2.Filter, _Mapping]] = ..., batch_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListItemsResponse(_message.Message):
    __slots__ = ("items", "next_page_token")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    next_page_token: str
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompactResponse(_message.Message):
    __slots__ = ("index_version", "items", "create_time", "journal_sequence")
    INDEX_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    index_version: str
    items: int
    create_time: _timestamp_pb2.Timestamp
    journal_sequence: int
    def __init__(self, index_version: _Optional[str] = ..., items: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., journal_sequence: _Optional[int] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Version(_message.Message):
    __slots__ = ("index_version", "items", "create_time", "model", "journal_sequence", "current", "in_use", "problem")
    INDEX_VERSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    IN_USE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    index_version: str
    items: int
    create_time: _timestamp_pb2.Timestamp
    model: str
    journal_sequence: int
    current: bool
    in_use: bool
    problem: str
    def __init__(self, index_version: _Optional[str] = ..., items: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[str] = ..., journal_sequence: _Optional[int] = ..., current: _Optional[bool] = ..., in_use: _Optional[bool] = ..., problem: _Optional[str] = ...) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions", "journal_sequence", "journal_depth", "journal_bytes")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_DEPTH_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    journal_sequence: int
    journal_depth: int
    journal_bytes: int
    def __init__(self, versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., journal_sequence: _Optional[int] = ..., journal_depth: _Optional[int] = ..., journal_bytes: _Optional[int] = ...) -> None: ...
