"""A bundle without its projection: `python -m bench.quality.pooled BUNDLE OUT`.

Its embeddings are the 2048 pooled features of the network, at unit length. `bench/lib/synthetic.py fit` takes from them what
embeddings of that dimension look like.
"""

import dataclasses
import sys
from pathlib import Path

import onnx

from embedder_svc.exporting.resnet import FEATURES
from embedder_svc.network import bundle


def main(source: Path, out: Path) -> None:
    info = bundle.read(source)
    graph = onnx.load(source / bundle.GRAPH)
    _unproject(graph.graph)
    onnx.checker.check_model(graph)
    fields = {
        field.name: getattr(info, field.name) for field in dataclasses.fields(info) if field.name != "fingerprint"
    }
    fields |= {"name": f"{info.name}-pooled", "dimension": FEATURES, "parity": {}, "metrics": {}}
    print(bundle.write(out, graph.SerializeToString(), **fields).fingerprint)


def _unproject(graph: onnx.GraphProto) -> None:
    """Take out the last matrix product: what read its result now reads its input."""
    product = next(node for node in reversed(graph.node) if node.op_type == "Gemm")
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == product.output[0]:
                node.input[place] = product.input[0]
    graph.node.remove(product)
    del graph.value_info[:]
    graph.output[0].type.tensor_type.shape.dim[-1].dim_value = FEATURES


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
