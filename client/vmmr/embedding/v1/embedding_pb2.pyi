from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Embeddings(_message.Message):
    __slots__ = ("model", "dimension", "data")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    model: str
    dimension: int
    data: bytes
    def __init__(self, model: _Optional[str] = ..., dimension: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Cut(_message.Message):
    __slots__ = ("left", "top", "right", "bottom", "car_score", "no_car_found")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    CAR_SCORE_FIELD_NUMBER: _ClassVar[int]
    NO_CAR_FOUND_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    car_score: float
    no_car_found: bool
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ..., car_score: _Optional[float] = ..., no_car_found: _Optional[bool] = ...) -> None: ...
