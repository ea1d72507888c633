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
