"""The tensors of the Open Inference Protocol: photos are read from a request's, embeddings written to a response's."""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from vmmr.inference.v2 import inference_pb2

from embedder_svc.network.bundle import BundleInfo
from embedder_svc.serving.pipeline import Embedded
from svckit.errors import Reason, ServiceError, Violation

INPUT, OUTPUT = "images", "embeddings"

_Request = inference_pb2.ModelInferRequest

# Triton's parameters that change where data is or what is sent: to ignore them would give another answer than was asked for.
_REFUSED = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification")
_LENGTH = struct.Struct("<I")
_MAX_INT32 = 2**31 - 1


def metadata(info: BundleInfo) -> inference_pb2.ModelMetadataResponse:
    """Return the description of the model's tensors. (Photos may have the shape [N], too.)"""
    tensor = inference_pb2.ModelMetadataResponse.TensorMetadata
    return inference_pb2.ModelMetadataResponse(
        name=info.name,
        versions=[info.fingerprint],
        platform="onnx_onnxv1",
        inputs=[tensor(name=INPUT, datatype="BYTES", shape=[-1, 1])],
        outputs=[tensor(name=OUTPUT, datatype="FP32", shape=[-1, info.dimension])],
    )


def configuration(info: BundleInfo, max_images: int) -> inference_pb2.ModelConfigResponse:
    """Return the same as `metadata`, in the form of Triton's extension ModelConfig."""
    photos = inference_pb2.ModelInput(name=INPUT, data_type=inference_pb2.TYPE_STRING, dims=[1])
    rows = inference_pb2.ModelOutput(name=OUTPUT, data_type=inference_pb2.TYPE_FP32, dims=[info.dimension])
    return inference_pb2.ModelConfigResponse(
        config=inference_pb2.ModelConfig(
            name=info.name,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            max_batch_size=min(max_images, _MAX_INT32),
            input=[photos],
            output=[rows],
        )
    )


def count(request: _Request) -> int:
    """Return the number of photos in a request, as its shape says.

    Raise ServiceError, INVALID_TENSOR, naming every field that is not as `metadata` says.
    """
    if violations := [*_inputs(request), *_outputs(request), *_contents(request)]:
        raise _invalid(*violations)
    return math.prod(request.inputs[0].shape)


def elements(request: _Request, expected: int) -> list[bytes]:
    """Return the photos of a request that has passed `count`, which returned `expected`.

    Raise ServiceError, INVALID_TENSOR, if there are more or fewer photos.
    """
    if request.raw_input_contents:
        return _raw_elements(request.raw_input_contents[0], expected)
    found = request.inputs[0].contents.bytes_contents
    if len(found) != expected:
        raise _invalid(_content("inputs[0].contents.bytes_contents", f"has {len(found)} elements", expected))
    return list(found)


def response(request: _Request, info: BundleInfo, embedded: Embedded) -> inference_pb2.ModelInferResponse:
    """Return the response: embeddings as raw bytes if the photos were raw, else as numbers, which any client can read."""
    times = {"decode_ms": embedded.decode_ms, "queue_ms": embedded.queue_ms, "infer_ms": embedded.infer_ms}
    output = inference_pb2.ModelInferResponse.InferOutputTensor(
        name=OUTPUT, datatype="FP32", shape=embedded.embeddings.shape
    )
    answer = inference_pb2.ModelInferResponse(
        model_name=info.name,
        model_version=info.fingerprint,
        id=request.id,
        parameters={name: inference_pb2.InferParameter(double_param=ms) for name, ms in times.items()},
        outputs=[output],
    )
    if request.raw_input_contents:
        answer.raw_output_contents.append(np.asarray(embedded.embeddings, "<f4").tobytes())
    else:
        answer.outputs[0].contents.fp32_contents.extend(embedded.embeddings.ravel().tolist())
    return answer


def _inputs(request: _Request) -> Iterator[Violation]:
    if len(request.inputs) != 1:
        yield Violation("inputs", "TENSOR_COUNT", f"must be one tensor, {INPUT!r}, got {len(request.inputs)}")
    for i, tensor in enumerate(request.inputs):
        if tensor.name != INPUT:
            yield Violation(f"inputs[{i}].name", "TENSOR_NAME", f"must be {INPUT!r}, got {tensor.name!r}")
            continue
        if tensor.datatype != "BYTES":
            wrong = f"must be 'BYTES', each element an encoded photo, got {tensor.datatype!r}"
            yield Violation(f"inputs[{i}].datatype", "TENSOR_DATATYPE", wrong)
        if not _is_column(tensor.shape):
            wrong = f"must be [N] or [N, 1], got {list(tensor.shape)[:8]}"
            yield Violation(f"inputs[{i}].shape", "TENSOR_SHAPE", wrong)
        yield from _parameters(f"inputs[{i}]", tensor.parameters)


def _outputs(request: _Request) -> Iterator[Violation]:
    for i, tensor in enumerate(request.outputs):
        if tensor.name != OUTPUT:
            yield Violation(f"outputs[{i}].name", "TENSOR_NAME", f"must be {OUTPUT!r}, got {tensor.name!r}")
        yield from _parameters(f"outputs[{i}]", tensor.parameters)


def _contents(request: _Request) -> Iterator[Violation]:
    """Yield what is wrong with the place of the photos' bytes: raw_input_contents, or the tensor's own contents."""
    raw = len(request.raw_input_contents)
    if raw and raw != len(request.inputs):
        wrong = f"must be one for each of the {len(request.inputs)} inputs, or none, got {raw}"
        yield Violation("raw_input_contents", "TENSOR_CONTENT", wrong)
    for i, tensor in enumerate(request.inputs):
        if raw and tensor.HasField("contents"):
            wrong = "must not be given beside raw_input_contents"
            yield Violation(f"inputs[{i}].contents", "TENSOR_CONTENT", wrong)


def _parameters(tensor: str, given: Mapping[str, inference_pb2.InferParameter]) -> Iterator[Violation]:
    for name in _REFUSED:
        if name in given:
            yield Violation(f"{tensor}.parameters[{name!r}]", "TENSOR_PARAMETER", "is not supported")


def _is_column(shape: Sequence[int]) -> bool:
    return len(shape) in (1, 2) and shape[0] >= 0 and all(side == 1 for side in shape[1:])


def _raw_elements(raw: bytes, expected: int) -> list[bytes]:
    found: list[bytes] = []
    start = 0
    while start < len(raw) and len(found) < expected:
        begin, start = _element(raw, start, len(found))
        found.append(raw[begin:start])
    if start < len(raw) or len(found) < expected:
        more = f", and {len(raw) - start} bytes more" if start < len(raw) else ""
        raise _invalid(_content("raw_input_contents[0]", f"has {len(found)} elements{more}", expected))
    return found


def _element(raw: bytes, start: int, index: int) -> tuple[int, int]:
    """Return where the element begins and ends whose length is at `start`."""
    begin = start + _LENGTH.size
    if begin > len(raw):
        raise _invalid(_ending(f"ends within the length of element {index}"))
    (length,) = _LENGTH.unpack_from(raw, start)
    if begin + length > len(raw):
        raise _invalid(_ending(f"ends within element {index}: it has {len(raw) - begin} of {length} bytes"))
    return begin, begin + length


def _ending(found: str) -> Violation:
    return Violation("raw_input_contents[0]", "TENSOR_CONTENT", found)


def _content(field: str, found: str, expected: int) -> Violation:
    return Violation(field, "TENSOR_CONTENT", f"{found}, the shape says {expected} elements")


def _invalid(*violations: Violation) -> ServiceError:
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return ServiceError(Reason.INVALID_TENSOR, f"{first.field} {first.description}{more}", violations=violations)
