"""What bulk embedding on a Ray cluster costs beside `embed` on one machine: `python -m bench.embedder.bulk`.

The same photos, the model that ships and one core for each: `vmmr-embedder embed --threads 1 --workers 1`, and the same with `--ray` and one actor, on
a cluster of one node on this machine, in turns. CPU time a photo is that from when network and actor are ready to when the last photo is done: of the one
process, and of the driver and the actor. What Ray itself runs beside them takes time of its own by the clock, not by the photo: it is told as a share of a core.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.lib import machine
from bench.lib.memory import cpu_s, tree
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from demo.ray_nodes import ray_nodes
from embedder_svc.network.choice import choose_bundle
from embedder_svc.network.model import Model
from embedder_svc.offline import on_ray
from embedder_svc.offline.chunks import Embedder, LocalEmbedder, Work
from embedder_svc.offline.embed import embed
from embedder_svc.photos.manifest import Manifest
from embedder_svc.photos.photo_folder import LocalFolder
from svckit import ray_cluster, shipped


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
    work = Work(LocalFolder(folder), "float16", whole=False)
    model = Model.open(bundle, device="cpu", threads=1)
    on_one, on_cluster = [], []
    with ray_nodes(1) as cluster:
        for number in range(rounds):
            here, there = folder / f"local{number}", folder / f"ray{number}"
            while any(map(is_actor, tree(os.getpid()))):  # those of the round before are about to end
                time.sleep(0.1)
            on_one.append(cost(LocalEmbedder(model, work, workers=1), manifest, work, here))
            with ray_cluster.connected(cluster.address) as ray:
                actors = on_ray.RayEmbedder(ray, bundle, work, on_ray.Share())
                on_cluster.append(cost(actors, manifest, work, there))
            same(here, there)
    local, there = ([each["CPU ms a photo"] for each in taken] for taken in (on_one, on_cluster))
    return {
        "machine": machine.describe(("numpy", "onnxruntime", "pillow", "ray")),
        "photos": f"{photos}, {kind}",
        "embed, CPU ms a photo": local,
        "embed --ray, CPU ms a photo": there,
        "Ray beside it, % of a core": [each["Ray beside it, % of a core"] for each in on_cluster],
        "embed / embed --ray": [round(one / other, 3) for one, other in zip(local, there, strict=True)],
        "identical": True,
    }


def collection(folder: Path, photos: int) -> tuple[str, Manifest]:
    kind, contents = photos_of(CARS)
    names = [f"{number}.jpg" for number in range(photos)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(contents[number % len(contents)])
    (folder / "manifest.csv").write_text("\n".join(["path", *names]) + "\n")
    return kind, Manifest.read(folder / "manifest.csv")


@dataclass(frozen=True)
class Used:
    """CPU seconds that were used so far, and the time."""

    ours: float
    rays: float
    at: float

    @classmethod
    def now(cls) -> "Used":
        """Return what this process and its actors have used, and all else that it has started and that still runs."""
        times = {pid: cpu_s(pid) for pid in tree(os.getpid())}
        ours = sum(seconds for pid, seconds in times.items() if pid == os.getpid() or is_actor(pid))
        return cls(ours, sum(times.values()) - ours, time.monotonic())


def cost(embedder: Embedder, manifest: Manifest, work: Work, out: Path) -> dict[str, float]:
    """Return the CPU time of a photo, from when the embedder is ready to when the last photo is done, and what Ray took meanwhile."""
    seen = [Used.now()]

    class Bar:
        def update(self, photos: int) -> None:  # noqa: ARG002 (as `embed` calls it)
            seen.append(Used.now())

    @contextmanager
    def bar(total: int) -> Any:  # noqa: ARG001 (as `embed` calls it)
        yield Bar()

    welcome = on_ray.Pool.welcome

    def welcome_and_begin(pool: Any, actor: Any, proof: str) -> None:
        seen[0] = Used.now()
        welcome(pool, actor, proof)

    with patch.object(on_ray.Pool, "welcome", welcome_and_begin):
        embed(manifest, work, embedder, out, bar=bar)
    begun, ended = seen[0], seen[-1]
    return {
        "CPU ms a photo": round(1e3 * (ended.ours - begun.ours) / len(manifest.rows), 2),
        "Ray beside it, % of a core": round(100 * (ended.rays - begun.rays) / (ended.at - begun.at), 2),
    }


def is_actor(pid: int) -> bool:
    """Return whether a process is one that embeds, by Ray's name for it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::Actor")
    except OSError:  # it has just ended
        return False


def same(*artifacts: Path) -> None:
    contents = [(path / "embeddings.npy").read_bytes() for path in artifacts]
    assert len(set(contents)) == 1
    assert np.isfinite(np.load(artifacts[0] / "embeddings.npy")).all()


if __name__ == "__main__":
    main()
