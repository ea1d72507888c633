"""What compressing the chain's messages would gain and cost: `python -m bench.pair.compression`.

Starts the pair that ships, makes the four messages of `identify` and of a batch of 16, and compresses each as gRPC would
(zlib's level 6, which both gzip and deflate are there). Printed: bytes, what is left of them, and the CPU time of compressing and of
expanding, medians of many; last, the same calls on loopback with gRPC's gzip on and off, in turns: this process' CPU a pair of calls.
"""

import statistics
import time
import zlib
from collections.abc import Callable, Sequence

import grpc
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from vmmr.search.v1 import search_pb2, search_pb2_grpc

from bench.lib.paths import CARS
from bench.lib.photos import photos_of
from bench.lib.servers import Served, pair

REPEATS, ROUNDS, CALLS = 25, 5, 15


def main() -> None:
    _, photos = photos_of(CARS)
    with pair() as served:
        for size in (1, 16):
            for name, message in messages(served, photos[:size]).items():
                print(row(f"{name}, {size}", message), flush=True)
        print(beside(served, photos[0]))


def stubs(served: Sequence[Served], *options: tuple[str, int]) -> tuple[Callable, Callable]:
    embedder, search = (
        grpc.insecure_channel(each.address, [("grpc.use_local_subchannel_pool", 1), *options]) for each in served
    )
    return embedder_pb2_grpc.EmbedderServiceStub(embedder).Embed, search_pb2_grpc.SearchServiceStub(search).Classify


def messages(served: Sequence[Served], photos: list[bytes]) -> dict[str, bytes]:
    embed, classify = stubs(served)
    request = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=photo) for photo in photos])
    embedded = embed(request)
    query = search_pb2.ClassifyRequest(queries=embedded.embeddings)
    found = {"photos": request, "embeddings": embedded, "queries": query, "answers": classify(query)}
    return {name: message.SerializeToString() for name, message in found.items()}


def row(name: str, message: bytes) -> str:
    small = zlib.compress(message, 6)
    packing, unpacking = cpu_ms(lambda: zlib.compress(message, 6)), cpu_ms(lambda: zlib.decompress(small))
    return (
        f"{name:16} {len(message):8} bytes, {len(small) / len(message):4.0%} left; "
        f"{packing:7.3f} ms to compress, {unpacking:6.3f} to expand"
    )


def cpu_ms(call: Callable[[], object]) -> float:
    def once() -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    return 1e3 * statistics.median(once() for _ in range(REPEATS))


def beside(served: Sequence[Served], photo: bytes) -> str:
    request = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=photo)])
    gzip = ("grpc.default_compression_algorithm", 2)
    ways = {"off": stubs(served), "gzip": stubs(served, gzip)}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (embed, classify) in ways.items():
            began = time.process_time()
            for _ in range(CALLS):
                classify(search_pb2.ClassifyRequest(queries=embed(request).embeddings))
            spent[name].append(1e3 * (time.process_time() - began) / CALLS)
    return "; ".join(
        f"{name}: {statistics.median(values):.2f} ms of CPU a pair of calls" for name, values in spent.items()
    )


if __name__ == "__main__":
    main()
