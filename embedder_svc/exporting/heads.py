"""A head in the graph of a model bundle: one matrix product between the pooled features and the embeddings' unit length."""

from collections.abc import MutableSequence

import onnx
from onnx import helper, numpy_helper, shape_inference

from embedder_svc.exporting.whitening import Head
from svckit.cli import CommandError

_PRODUCTS = ("Gemm", "MatMul")
_LENGTHS = ("ReduceL2", "LpNormalization")
_FEATURES, _MATRIX, _BIAS = "head.features", "head.matrix", "head.bias"


def without_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without its matrix products: a projection of the pooled features, or a head that was fitted before.

    Raise CommandError if the rest does not fit together without them.
    """
    changed = _copied(model)
    graph = changed.graph
    for product in [node for node in graph.node if node.op_type in _PRODUCTS]:
        features, result = product.input[0], product.output[0]
        graph.node.remove(product)
        for node in graph.node:
            _rename(node.input, features, result)
            _rename(node.output, features, result)
    _remove_unread(graph)
    return _inferred(changed)


def without_length(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with the features as its embeddings, not brought to unit length."""
    changed = _copied(model)
    graph = changed.graph
    features, output = _features(graph), graph.output[0].name
    if features != output:
        graph.node.remove(_producer(graph, output))
        _rename(_producer(graph, features).output, features, output)
        for node in graph.node:
            _rename(node.input, features, output)
        _remove_unread(graph)
    return _inferred(changed)


def with_head(model: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """Return the graph with the head before its unit length, or at its end if its embeddings have other lengths."""
    changed = _copied(model)
    graph = changed.graph
    features = _features(graph)
    producer = _producer(graph, features)
    _rename(producer.output, features, _FEATURES)
    # It takes over the name, so that whatever read the features reads its result.
    product = helper.make_node("Gemm", [_FEATURES, _MATRIX, _BIAS], [features], name="head")
    graph.node.insert(1 + list(graph.node).index(producer), product)
    graph.initializer.append(numpy_helper.from_array(head.matrix, _MATRIX))
    graph.initializer.append(numpy_helper.from_array(head.bias, _BIAS))
    return _inferred(changed)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy, without the shapes that hold before it is changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.value_info[:]
    changed.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    return changed


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with the dimension of its embeddings; raise CommandError if its parts do not fit each other."""
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        raise CommandError(f"the graph can't be given another head: {error}") from error
    shape = inferred.graph.output[0].type.tensor_type.shape
    if len(shape.dim) != 2 or not shape.dim[1].dim_value:
        raise CommandError(
            "the graph can't be given another head: what is left of it gives no embeddings (N, dimension)"
        )
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = shape.dim[1].dim_value
    return model


def _features(graph: onnx.GraphProto) -> str:
    """Return the name of what is brought to unit length; that of the output if nothing is."""
    return next((node.input[0] for node in graph.node if node.op_type in _LENGTHS), graph.output[0].name)


def _producer(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(node for node in graph.node if name in node.output)


def _rename(names: MutableSequence[str], old: str, new: str) -> None:
    names[:] = [new if name == old else name for name in names]


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Remove the nodes and weights that nothing reads any more."""
    while unread := _unread(graph):
        for node in unread:
            graph.node.remove(node)
    read = _read(graph)
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _unread(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    read = _read(graph)
    return [node for node in graph.node if read.isdisjoint(node.output)]


def _read(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
