"""What bulk embedding on a Ray cluster costs beside `embed` on one machine: `python -m bench.embedder.bulk`.

The same photos, the model that ships and one core for each: `vmmr-embedder embed --threads 1 --workers 1`, and the same with `--ray` and one actor, on
a cluster of one node on this machine, in turns. CPU time a photo is that from when network and actor are ready to when the last photo is done: of the one
process, and of the driver, the actor, and all that Ray runs beside them.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.lib import machine
from bench.lib.memory import tree
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from demo.ray_nodes import ray_nodes
from embedder_svc.network.choice import choose_bundle
from embedder_svc.network.model import Model
from embedder_svc.offline import on_ray
from embedder_svc.offline.chunks import Embedder, LocalEmbedder, Work
from embedder_svc.offline.embed import embed
from embedder_svc.photos.manifest import Manifest
from svckit import ray_cluster, shipped

_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "bulk.json", metavar="JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = compare(Path(folder), args.photos, args.rounds)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def compare(folder: Path, photos: int, rounds: int) -> dict[str, Any]:
    kind, manifest = collection(folder, photos)
    bundle = choose_bundle(shipped.model(), "auto", gpu=False)
    work = Work(folder, "float16", whole=False)
    model = Model.open(bundle, device="cpu", threads=1)
    local, on_cluster = [], []
    with ray_nodes(1) as cluster:
        for number in range(rounds):
            here, there = folder / f"local{number}", folder / f"ray{number}"
            local.append(cost(LocalEmbedder(model, work, workers=1), manifest, work, here, own_cpu_s))
            with ray_cluster.connected(cluster.address) as ray:
                actors = on_ray.RayEmbedder(ray, bundle, work, on_ray.Share())
                on_cluster.append(cost(actors, manifest, work, there, all_cpu_s))
            same(here, there)
    return {
        "machine": machine.describe(("numpy", "onnxruntime", "pillow", "ray")),
        "photos": f"{photos}, {kind}",
        "embed, CPU ms a photo": [round(1e3 * each, 2) for each in local],
        "embed --ray, CPU ms a photo": [round(1e3 * each, 2) for each in on_cluster],
        "embed / embed --ray": [round(here / there, 3) for here, there in zip(local, on_cluster, strict=True)],
        "identical": True,
    }


def collection(folder: Path, photos: int) -> tuple[str, Manifest]:
    kind, contents = photos_of(CARS)
    names = [f"{number}.jpg" for number in range(photos)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(contents[number % len(contents)])
    (folder / "manifest.csv").write_text("\n".join(["path", *names]) + "\n")
    return kind, Manifest.read(folder / "manifest.csv")


def cost(embedder: Embedder, manifest: Manifest, work: Work, out: Path, cpu_s: Callable[[], float]) -> float:
    """Return the CPU seconds of a photo, from when the embedder is ready to when the last photo is done."""
    seen = [cpu_s()]

    class Bar:
        def update(self, photos: int) -> None:  # noqa: ARG002 (as `embed` calls it)
            seen.append(cpu_s())

    @contextmanager
    def bar(total: int) -> Any:  # noqa: ARG001 (as `embed` calls it)
        yield Bar()

    welcome = on_ray.Pool.welcome

    def welcome_and_begin(pool: Any, actor: Any, proof: str) -> None:
        seen[0] = cpu_s()
        welcome(pool, actor, proof)

    with patch.object(on_ray.Pool, "welcome", welcome_and_begin):
        embed(manifest, work, embedder, out, bar=bar)
    return (seen[-1] - seen[0]) / len(manifest.rows)


def own_cpu_s() -> float:
    return time.process_time()


def all_cpu_s() -> float:
    """Return the CPU seconds of this process and of all that it has started and that still run."""
    return sum(map(_cpu_s, tree(os.getpid())))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def same(*artifacts: Path) -> None:
    contents: Sequence[bytes] = [(path / "embeddings.npy").read_bytes() for path in artifacts]
    assert len(set(contents)) == 1
    assert np.isfinite(np.load(artifacts[0] / "embeddings.npy")).all()


if __name__ == "__main__":
    main()
