import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vmmr.embedding.v1 import embedding_pb2 as _embedding_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_KNOWN: _ClassVar[Verdict]
    VERDICT_UNSURE: _ClassVar[Verdict]
    VERDICT_UNKNOWN: _ClassVar[Verdict]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_INNER_PRODUCT: _ClassVar[Metric]
    METRIC_L2: _ClassVar[Metric]
VERDICT_UNSPECIFIED: Verdict
VERDICT_KNOWN: Verdict
VERDICT_UNSURE: Verdict
VERDICT_UNKNOWN: Verdict
METRIC_UNSPECIFIED: Metric
METRIC_INNER_PRODUCT: Metric
METRIC_L2: Metric

class Label(_message.Message):
    __slots__ = ("label", "make", "model", "year")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    MAKE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    YEAR_FIELD_NUMBER: _ClassVar[int]
    label: str
    make: str
    model: str
    year: int
    def __init__(self, label: _Optional[str] = ..., make: _Optional[str] = ..., model: _Optional[str] = ..., year: _Optional[int] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("makes", "models", "labels", "min_year", "max_year")
    MAKES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MIN_YEAR_FIELD_NUMBER: _ClassVar[int]
    MAX_YEAR_FIELD_NUMBER: _ClassVar[int]
    makes: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    min_year: int
    max_year: int
    def __init__(self, makes: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ..., min_year: _Optional[int] = ..., max_year: _Optional[int] = ...) -> None: ...

class SearchOptions(_message.Message):
    __slots__ = ("k", "filter", "exact", "nprobe", "ef_search", "rerank", "allow_partial", "shard_timeout_ms", "min_sequence")
    K_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    SHARD_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    k: int
    filter: Filter
    exact: bool
    nprobe: int
    ef_search: int
    rerank: int
    allow_partial: bool
    shard_timeout_ms: int
    min_sequence: int
    def __init__(self, k: _Optional[int] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., exact: _Optional[bool] = ..., nprobe: _Optional[int] = ..., ef_search: _Optional[int] = ..., rerank: _Optional[int] = ..., allow_partial: _Optional[bool] = ..., shard_timeout_ms: _Optional[int] = ..., min_sequence: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("queries", "options")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    queries: _embedding_pb2.Embeddings
    options: SearchOptions
    def __init__(self, queries: _Optional[_Union[_embedding_pb2.Embeddings, _Mapping]] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("item_id", "label", "uri", "score")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    label: Label
    uri: str
    score: float
    def __init__(self, item_id: _Optional[str] = ..., label: _Optional[_Union[Label, _Mapping]] = ..., uri: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Neighbours(_message.Message):
    __slots__ = ("neighbours",)
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    neighbours: _containers.RepeatedCompositeFieldContainer[Neighbour]
    def __init__(self, neighbours: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("results", "provenance", "times")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Neighbours]
    provenance: Provenance
    times: SearchTimes
    def __init__(self, results: _Optional[_Iterable[_Union[Neighbours, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., times: _Optional[_Union[SearchTimes, _Mapping]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("queries", "options", "fuse", "min_confidence", "cuts")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FUSE_FIELD_NUMBER: _ClassVar[int]
    MIN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    queries: _embedding_pb2.Embeddings
    options: SearchOptions
    fuse: bool
    min_confidence: float
    cuts: _containers.RepeatedCompositeFieldContainer[_embedding_pb2.Cut]
    def __init__(self, queries: _Optional[_Union[_embedding_pb2.Embeddings, _Mapping]] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ..., fuse: _Optional[bool] = ..., min_confidence: _Optional[float] = ..., cuts: _Optional[_Iterable[_Union[_embedding_pb2.Cut, _Mapping]]] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("make", "model", "label", "confidence", "nearest_score", "mean_similarity")
    MAKE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    NEAREST_SCORE_FIELD_NUMBER: _ClassVar[int]
    MEAN_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    make: str
    model: str
    label: Label
    confidence: float
    nearest_score: float
    mean_similarity: float
    def __init__(self, make: _Optional[str] = ..., model: _Optional[str] = ..., label: _Optional[_Union[Label, _Mapping]] = ..., confidence: _Optional[float] = ..., nearest_score: _Optional[float] = ..., mean_similarity: _Optional[float] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("answer", "make_confidence", "model_confidence", "label_confidence", "makes", "models", "labels", "neighbours", "verdict", "known_score", "first_year", "last_year", "years_confidence", "no_car_found")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    MAKE_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MAKES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    KNOWN_SCORE_FIELD_NUMBER: _ClassVar[int]
    FIRST_YEAR_FIELD_NUMBER: _ClassVar[int]
    LAST_YEAR_FIELD_NUMBER: _ClassVar[int]
    YEARS_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    NO_CAR_FOUND_FIELD_NUMBER: _ClassVar[int]
    answer: Label
    make_confidence: float
    model_confidence: float
    label_confidence: float
    makes: _containers.RepeatedCompositeFieldContainer[Candidate]
    models: _containers.RepeatedCompositeFieldContainer[Candidate]
    labels: _containers.RepeatedCompositeFieldContainer[Candidate]
    neighbours: _containers.RepeatedCompositeFieldContainer[Neighbour]
    verdict: Verdict
    known_score: float
    first_year: int
    last_year: int
    years_confidence: float
    no_car_found: bool
    def __init__(self, answer: _Optional[_Union[Label, _Mapping]] = ..., make_confidence: _Optional[float] = ..., model_confidence: _Optional[float] = ..., label_confidence: _Optional[float] = ..., makes: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., labels: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., neighbours: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., known_score: _Optional[float] = ..., first_year: _Optional[int] = ..., last_year: _Optional[int] = ..., years_confidence: _Optional[float] = ..., no_car_found: _Optional[bool] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("results", "provenance", "times")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Classification]
    provenance: Provenance
    times: SearchTimes
    def __init__(self, results: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., times: _Optional[_Union[SearchTimes, _Mapping]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("model", "index_version", "journal_sequence", "shards_answered", "shards_total")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    SHARDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    model: str
    index_version: str
    journal_sequence: int
    shards_answered: int
    shards_total: int
    def __init__(self, model: _Optional[str] = ..., index_version: _Optional[str] = ..., journal_sequence: _Optional[int] = ..., shards_answered: _Optional[int] = ..., shards_total: _Optional[int] = ...) -> None: ...

class SearchTimes(_message.Message):
    __slots__ = ("queue_ms", "search_ms", "vote_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_MS_FIELD_NUMBER: _ClassVar[int]
    VOTE_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    search_ms: float
    vote_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., search_ms: _Optional[float] = ..., vote_ms: _Optional[float] = ...) -> None: ...

class GetIndexRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetIndexResponse(_message.Message):
    __slots__ = ("index", "limits")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    index: Index
    limits: QueryLimits
    def __init__(self, index: _Optional[_Union[Index, _Mapping]] = ..., limits: _Optional[_Union[QueryLimits, _Mapping]] = ...) -> None: ...

class Index(_message.Message):
    __slots__ = ("version", "model", "dimension", "items", "labels", "shards", "factory", "metric", "k", "temperature", "journal_sequence", "create_time", "calibration", "nprobe", "ef_search", "rerank", "delta_items", "problem", "lost_entries", "cuts")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    FACTORY_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    DELTA_ITEMS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    LOST_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    version: str
    model: str
    dimension: int
    items: int
    labels: int
    shards: int
    factory: str
    metric: Metric
    k: int
    temperature: float
    journal_sequence: int
    create_time: _timestamp_pb2.Timestamp
    calibration: Calibration
    nprobe: int
    ef_search: int
    rerank: int
    delta_items: int
    problem: str
    lost_entries: int
    cuts: CutCounts
    def __init__(self, version: _Optional[str] = ..., model: _Optional[str] = ..., dimension: _Optional[int] = ..., items: _Optional[int] = ..., labels: _Optional[int] = ..., shards: _Optional[int] = ..., factory: _Optional[str] = ..., metric: _Optional[_Union[Metric, str]] = ..., k: _Optional[int] = ..., temperature: _Optional[float] = ..., journal_sequence: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., calibration: _Optional[_Union[Calibration, _Mapping]] = ..., nprobe: _Optional[int] = ..., ef_search: _Optional[int] = ..., rerank: _Optional[int] = ..., delta_items: _Optional[int] = ..., problem: _Optional[str] = ..., lost_entries: _Optional[int] = ..., cuts: _Optional[_Union[CutCounts, _Mapping]] = ...) -> None: ...

class CutCounts(_message.Message):
    __slots__ = ("car", "whole", "no_car_found", "given", "unknown")
    CAR_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    NO_CAR_FOUND_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    car: int
    whole: int
    no_car_found: int
    given: int
    unknown: int
    def __init__(self, car: _Optional[int] = ..., whole: _Optional[int] = ..., no_car_found: _Optional[int] = ..., given: _Optional[int] = ..., unknown: _Optional[int] = ...) -> None: ...

class Calibration(_message.Message):
    __slots__ = ("photos", "false_alarm_rate", "unknown_threshold")
    PHOTOS_FIELD_NUMBER: _ClassVar[int]
    FALSE_ALARM_RATE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    photos: int
    false_alarm_rate: float
    unknown_threshold: float
    def __init__(self, photos: _Optional[int] = ..., false_alarm_rate: _Optional[float] = ..., unknown_threshold: _Optional[float] = ...) -> None: ...

class QueryLimits(_message.Message):
    __slots__ = ("max_queries", "max_k", "max_request_bytes", "max_neighbours", "max_shard_timeout_ms")
    MAX_QUERIES_FIELD_NUMBER: _ClassVar[int]
    MAX_K_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARD_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    max_queries: int
    max_k: int
    max_request_bytes: int
    max_neighbours: int
    max_shard_timeout_ms: int
    def __init__(self, max_queries: _Optional[int] = ..., max_k: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., max_neighbours: _Optional[int] = ..., max_shard_timeout_ms: _Optional[int] = ...) -> None: ...

class ListLabelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class LabelCount(_message.Message):
    __slots__ = ("label", "items")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    label: Label
    items: int
    def __init__(self, label: _Optional[_Union[Label, _Mapping]] = ..., items: _Optional[int] = ...) -> None: ...

class ListLabelsResponse(_message.Message):
    __slots__ = ("labels", "next_page_token")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[LabelCount]
    next_page_token: str
    def __init__(self, labels: _Optional[_Iterable[_Union[LabelCount, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
