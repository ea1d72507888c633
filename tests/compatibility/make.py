"""Makes the artifacts that test_compatibility.py opens, by the code of an older commit: `python make.py TREE OUT.tar.xz`.

TREE is a checkout of that commit: `git worktree add --detach TREE COMMIT`. In the archive are a model bundle, a manifest and embeddings of drawn photos, a
calibrated index that was written to, a backup of it, and `answers.json`: what the old server answered. TREE's commands run in processes of their own.
"""

import colorsys
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

LABELS = [f"make{number // 2}_model {number}_{2000 + number}" for number in range(8)]
EACH = {"train": 6, "dev": 14}
WAIT_S = 60


def main(tree, out):
    sys.path[:0] = [str(tree), str(tree / "client"), str(tree / "tests/embedder_svc")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        draw(work)
        make_artifacts(tree, work)
        with tarfile.open(out, "w:xz", preset=9) as archive:
            for name in ("bundle", "manifest.csv", "embeddings", "index", "backup", "answers.json"):
                archive.add(work / name, name, filter=plain)


def plain(entry):
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def draw(work):
    """Write photos, a colour and its shade for each label, and the manifest that names them."""
    from PIL import Image

    rng = random.Random(0)
    lines = ["path,label,make,model,year,split"]
    for number, label in enumerate(LABELS):
        make, model, year = label.split("_")
        for place in range(sum(EACH.values())):
            path = work / "photos" / label / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (32, 32))
            top, bottom = (colour(number / len(LABELS) + rng.gauss(0, 0.02), rng.uniform(0.5, 1)) for _ in range(2))
            image.putdata([top if pixel < 512 else bottom for pixel in range(1024)])
            image.save(path)
            split = "train" if place < EACH["train"] else "dev"
            lines.append(f"{label}/{place}.png,{label},{make},{model},{year},{split}")
    (work / "manifest.csv").write_text("\n".join(lines) + "\n")


def colour(hue, value):
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, 0.8, value))


def make_artifacts(tree, work):
    import tiny_bundle

    tiny_bundle.make(work / "bundle")
    run = runner(tree)
    run(
        "embedder_svc",
        "embed",
        work / "manifest.csv",
        "--photos",
        work / "photos",
        "--model",
        work / "bundle",
        "--out",
        work / "embeddings",
    )
    run("search_svc", "build", work / "embeddings", "--out", work / "index")
    write_and_ask(tree, work)
    run("search_svc", "backup", work / "index", work / "backup")


def runner(tree):
    path = os.pathsep.join([str(tree), str(tree / "client")])
    environment = {**os.environ, "PYTHONPATH": path}

    def run(module, *arguments):
        subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, env=environment, cwd=tree)

    run.environment = environment
    return run


def write_and_ask(tree, work):
    """Add, replace and delete items by a server, then ask it for the gallery's own embeddings, and write what it answers."""
    command = [
        sys.executable,
        "-m",
        "search_svc",
        "serve",
        "--index",
        work / "index",
        "--port",
        "0",
        "--port-file",
        work / "port",
    ]
    process = subprocess.Popen(
        list(map(str, command)), env=runner(tree).environment, cwd=tree, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + WAIT_S
        while not (work / "port").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        answers = asked(json.loads((work / "port").read_text())["port"], work)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_S)
    (work / "answers.json").write_text(json.dumps(answers, indent=1))


def asked(port, work):
    import grpc
    import numpy as np
    from vmmr import wire
    from vmmr.gallery.v1 import gallery_pb2, gallery_pb2_grpc
    from vmmr.search.v1 import search_pb2, search_pb2_grpc

    model = json.loads((work / "embeddings/manifest.json").read_text())["model"]
    vectors = np.load(work / "embeddings/embeddings.npy").astype(np.float32)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        gallery, search = gallery_pb2_grpc.GalleryServiceStub(channel), search_pb2_grpc.SearchServiceStub(channel)
        items = [gallery_pb2.Item(item_id=f"new {n}", label="make9_model 9_2020", uri=f"new/{n}.jpg") for n in range(2)]
        items.append(gallery_pb2.Item(item_id=f"{LABELS[0]}/0.png", label=LABELS[1], uri="moved.jpg"))
        added = gallery.AddItems(
            gallery_pb2.AddItemsRequest(items=items, embeddings=wire.pack(model, vectors[[7, 8, 9]])), timeout=WAIT_S
        )
        gone = gallery.DeleteItems(
            gallery_pb2.DeleteItemsRequest(item_ids={"item_ids": [f"{LABELS[2]}/1.png"]}), timeout=WAIT_S
        )
        options = search_pb2.SearchOptions(
            k=5, exact=True, min_sequence=gone.journal_sequence or added.journal_sequence
        )
        queries = wire.pack(model, vectors[::5])
        replies = search.Classify(search_pb2.ClassifyRequest(queries=queries, options=options), timeout=WAIT_S)
    return [
        {
            "neighbours": [[each.item_id, each.label.label, each.uri, each.score] for each in result.neighbours],
            "answer": result.answer.label,
            "verdict": result.verdict,
            "confidence": result.label_confidence,
        }
        for result in replies.results
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
