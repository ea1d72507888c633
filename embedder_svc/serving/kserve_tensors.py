"""The tensors of the Open Inference Protocol: photos are read from a request's, embeddings written to a response's."""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple

import numpy as np
from numpy.typing import NDArray
from vmmr.inference.v2 import inference_pb2

from embedder_svc.network.bundle import BundleInfo
from embedder_svc.serving.pipeline import Embedded
from svckit.errors import Reason, ServiceError, Violation

INPUT, OUTPUT, BOXES = "images", "embeddings", "boxes"

_Request = inference_pb2.ModelInferRequest

# Triton's parameters that change where data is or what is sent: to ignore them would give another answer than was asked for.
_REFUSED = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification")
_LENGTH = struct.Struct("<I")
_BOX_WIDTH = 5
"""Left, top, right, bottom, and the car's score; 0 for the score if no car was found."""
_MAX_INT32 = 2**31 - 1


def outputs(info: BundleInfo) -> dict[str, int]:
    """Return the width of each output: the embeddings, and, of a model with a detector, the boxes that they were cut to."""
    return {OUTPUT: info.dimension, BOXES: _BOX_WIDTH} if info.detector else {OUTPUT: info.dimension}


def metadata(info: BundleInfo) -> inference_pb2.ModelMetadataResponse:
    """Return the description of the model's tensors. (Photos may have the shape [N], too.)"""
    tensor = inference_pb2.ModelMetadataResponse.TensorMetadata
    return inference_pb2.ModelMetadataResponse(
        name=info.name,
        versions=[info.fingerprint],
        platform="onnx_onnxv1",
        inputs=[tensor(name=INPUT, datatype="BYTES", shape=[-1, 1])],
        outputs=[tensor(name=name, datatype="FP32", shape=[-1, width]) for name, width in outputs(info).items()],
    )


def configuration(info: BundleInfo, max_images: int) -> inference_pb2.ModelConfigResponse:
    """Return the same as `metadata`, in the form of Triton's extension ModelConfig."""
    photos = inference_pb2.ModelInput(name=INPUT, data_type=inference_pb2.TYPE_STRING, dims=[1])
    rows = [
        inference_pb2.ModelOutput(name=name, data_type=inference_pb2.TYPE_FP32, dims=[width])
        for name, width in outputs(info).items()
    ]
    return inference_pb2.ModelConfigResponse(
        config=inference_pb2.ModelConfig(
            name=info.name,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            max_batch_size=min(max_images, _MAX_INT32),
            input=[photos],
            output=rows,
        )
    )


def count(request: _Request, info: BundleInfo) -> int:
    """Return the number of photos in a request, as its shape says.

    Raise ServiceError, INVALID_TENSOR, naming every field that is not as `metadata` says.
    """
    if violations := [*_inputs(request), *_outputs(request, outputs(info)), *_contents(request)]:
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
    """Return the response: the outputs that the request names, or all; as raw bytes if the photos were raw, else as numbers,
    which any client can read.
    """
    tensors = {OUTPUT: embedded.embeddings, BOXES: _boxes(embedded)}
    wanted = [output.name for output in request.outputs] or list(outputs(info))
    answer = inference_pb2.ModelInferResponse(
        model_name=info.name,
        model_version=info.fingerprint,
        id=request.id,
        parameters={name: inference_pb2.InferParameter(double_param=ms) for name, ms in asdict(embedded.times).items()},
    )
    for name in wanted:
        tensor = answer.outputs.add(name=name, datatype="FP32", shape=tensors[name].shape)
        if request.raw_input_contents:
            answer.raw_output_contents.append(np.asarray(tensors[name], "<f4").tobytes())
        else:
            tensor.contents.fp32_contents.extend(tensors[name].ravel().tolist())
    return answer


def _boxes(embedded: Embedded) -> NDArray[np.float32]:
    rows = [(*astuple(cut.box), cut.car_score or 0.0) for cut in embedded.cuts]
    return np.array(rows, np.float32)  # (N, 5)


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


def _outputs(request: _Request, known: Mapping[str, int]) -> Iterator[Violation]:
    names = " or ".join(repr(name) for name in known)
    for i, tensor in enumerate(request.outputs):
        if tensor.name not in known:
            yield Violation(f"outputs[{i}].name", "TENSOR_NAME", f"must be {names}, got {tensor.name!r}")
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
