"""A bundle without its projection: `python -m bench.quality.pooled BUNDLE OUT [--raw]`.

Its embeddings are the 2048 pooled features of the network, at unit length, or as they are. `bench/lib/synthetic.py fit` takes from them what
embeddings of that dimension look like; `bench.quality.heads` fits heads to them as they are.
"""

import dataclasses
import sys
from pathlib import Path

import onnx

from embedder_svc.exporting import graph, heads
from embedder_svc.network import bundle


def main(source: Path, out: Path, raw: str = "") -> None:
    info = bundle.read(source)
    pooled = heads.without_products(onnx.load(source / bundle.GRAPH))
    fields = {
        field.name: getattr(info, field.name) for field in dataclasses.fields(info) if field.name != "fingerprint"
    }
    if raw:
        pooled = heads.without_length(pooled)
        fields["normalized"] = False
    fields |= {"name": f"{info.name}-pooled", "dimension": graph.dimension(pooled), "parity": {}, "metrics": {}}
    print(bundle.write(out, pooled.SerializeToString(), **fields).fingerprint)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
