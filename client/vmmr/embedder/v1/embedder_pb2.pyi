from vmmr.embedding.v1 import embedding_pb2 as _embedding_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Subject(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBJECT_UNSPECIFIED: _ClassVar[Subject]
    SUBJECT_WHOLE: _ClassVar[Subject]
    SUBJECT_MAIN_CAR: _ClassVar[Subject]
    SUBJECT_EVERY_CAR: _ClassVar[Subject]
SUBJECT_UNSPECIFIED: Subject
SUBJECT_WHOLE: Subject
SUBJECT_MAIN_CAR: Subject
SUBJECT_EVERY_CAR: Subject

class Box(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("content", "crop", "subject")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    crop: Box
    subject: Subject
    def __init__(self, content: _Optional[bytes] = ..., crop: _Optional[_Union[Box, _Mapping]] = ..., subject: _Optional[_Union[Subject, str]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "times", "parts")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _embedding_pb2.Embeddings
    times: EmbedTimes
    parts: _containers.RepeatedCompositeFieldContainer[EmbeddedPart]
    def __init__(self, embeddings: _Optional[_Union[_embedding_pb2.Embeddings, _Mapping]] = ..., times: _Optional[_Union[EmbedTimes, _Mapping]] = ..., parts: _Optional[_Iterable[_Union[EmbeddedPart, _Mapping]]] = ...) -> None: ...

class EmbeddedPart(_message.Message):
    __slots__ = ("image", "cut")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    image: int
    cut: _embedding_pb2.Cut
    def __init__(self, image: _Optional[int] = ..., cut: _Optional[_Union[_embedding_pb2.Cut, _Mapping]] = ...) -> None: ...

class EmbedTimes(_message.Message):
    __slots__ = ("decode_ms", "queue_ms", "infer_ms", "detect_ms")
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INFER_MS_FIELD_NUMBER: _ClassVar[int]
    DETECT_MS_FIELD_NUMBER: _ClassVar[int]
    decode_ms: float
    queue_ms: float
    infer_ms: float
    detect_ms: float
    def __init__(self, decode_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., infer_ms: _Optional[float] = ..., detect_ms: _Optional[float] = ...) -> None: ...

class DetectRequest(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("detections", "times")
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    detections: _containers.RepeatedCompositeFieldContainer[Detections]
    times: EmbedTimes
    def __init__(self, detections: _Optional[_Iterable[_Union[Detections, _Mapping]]] = ..., times: _Optional[_Union[EmbedTimes, _Mapping]] = ...) -> None: ...

class Detections(_message.Message):
    __slots__ = ("cars",)
    CARS_FIELD_NUMBER: _ClassVar[int]
    cars: _containers.RepeatedCompositeFieldContainer[Detection]
    def __init__(self, cars: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("box", "score")
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    box: Box
    score: float
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "limits")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model: Model
    limits: Limits
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("fingerprint", "name", "dimension", "precision", "input_size", "resize", "normalized", "provider", "detector")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    name: str
    dimension: int
    precision: str
    input_size: int
    resize: str
    normalized: bool
    provider: str
    detector: Detector
    def __init__(self, fingerprint: _Optional[str] = ..., name: _Optional[str] = ..., dimension: _Optional[int] = ..., precision: _Optional[str] = ..., input_size: _Optional[int] = ..., resize: _Optional[str] = ..., normalized: _Optional[bool] = ..., provider: _Optional[str] = ..., detector: _Optional[_Union[Detector, _Mapping]] = ...) -> None: ...

class Detector(_message.Message):
    __slots__ = ("name", "threshold", "margin")
    NAME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    threshold: float
    margin: float
    def __init__(self, name: _Optional[str] = ..., threshold: _Optional[float] = ..., margin: _Optional[float] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_images", "max_image_bytes", "max_image_pixels", "max_aspect_ratio", "max_request_bytes", "max_cars")
    MAX_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_ASPECT_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CARS_FIELD_NUMBER: _ClassVar[int]
    max_images: int
    max_image_bytes: int
    max_image_pixels: int
    max_aspect_ratio: float
    max_request_bytes: int
    max_cars: int
    def __init__(self, max_images: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_aspect_ratio: _Optional[float] = ..., max_request_bytes: _Optional[int] = ..., max_cars: _Optional[int] = ...) -> None: ...
