"""What HTTP costs beside the SDK: `python -m bench.pair.http_door [--rounds N]`.

Starts the pair that ships and `vmmr-web` before it, and in one run, in turns, a round at a time:

- one at a time: `Client.identify` beside `POST /v1/identify` with the same JPEG as its body, over one connection that is kept: the
  difference of the medians is what the door adds to an answer.
- many: photos a second by callers in threads, each one photo at a time, both ways.

The answers are compared first: label, verdict, confidences and neighbours must be the same. CPU milliseconds a photo are those of the web program,
beside those of this program when it asks by the SDK. Each figure is a median over rounds, with the least and the most.
"""

import argparse
import http.client
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

import vmmr

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS
from bench.lib.photos import photos_of
from bench.lib.servers import Served, Starting, pair, starting

OUT = RESULTS / "http_door.json"
TIMEOUT_S = 120.0

Ask = Callable[[bytes], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--single", type=int, default=30, metavar="N", help="photos one at a time, each way, a round")
    parser.add_argument("--many", type=int, default=64, metavar="N", help="photos of the callers, each way, a round")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    source, photos = photos_of(args.photos)
    with pair() as (embedder, search):
        flags = (
            "--embedder",
            embedder.address,
            "--search",
            search.address,
            "--calls-per-minute",
            0,
            "--log-level",
            "warning",
        )
        with (
            starting("web", *flags) as starting_web,
            vmmr.Client(embedder.address, search.address, timeout_s=TIMEOUT_S) as client,
        ):
            figures = _measured(client, _wait(starting_web), photos, args)
    about = {"machine": machine.describe(), "photos": source}
    settings = {name: getattr(args, name) for name in ("rounds", "single", "many", "callers")}
    for name, (median, least, most) in figures.items():
        print(f"{name:28} {median:8.3f}  [{least:.3f}, {most:.3f}]")
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({**about, **settings, "figures": figures}, indent=1) + "\n")


def _wait(started: Starting) -> Served:
    """Wait until the program has written its ports; it answers no gRPC, which `ready` would ask for."""
    while not started.port_file.exists():
        assert started.process.poll() is None, started.log.read_text()
        time.sleep(0.01)
    port = json.loads(started.port_file.read_text())["port"]
    return Served(started.process.pid, f"127.0.0.1:{port}")


class Door:
    """Asks the door; each thread has a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._own = local()

    def __call__(self, photo: bytes) -> dict:
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        self._own.connection.request("POST", "/v1/identify", photo, {"Content-Type": "image/jpeg"})
        reply = self._own.connection.getresponse()
        content = reply.read()
        assert reply.status == 200, content
        return json.loads(content)["answers"][0]["identification"]


def _measured(
    client: vmmr.Client, web: Served, photos: Sequence[bytes], args: argparse.Namespace
) -> dict[str, tuple[float, ...]]:
    door = Door(web.port)
    _check_same(client, door, photos)
    rounds: dict[str, list[float]] = defaultdict(list)
    for number in range(args.rounds):
        chosen = [photos[(number * args.single + n) % len(photos)] for n in range(args.single)]
        sdk_ms, door_ms = _one_at_a_time(client.identify, door, chosen)
        before = web.cpu_s()
        ways: list[Ask] = [client.identify, door]
        per_s, cpu_ms = {}, {}
        for way in ways if number % 2 else ways[::-1]:
            began = time.process_time()
            per_s[way] = _per_s(way, photos, args.many, args.callers)
            cpu_ms[way] = 1e3 * (time.process_time() - began) / args.many
        rounds["sdk_p50_ms"].append(sdk_ms)
        rounds["door_p50_ms"].append(door_ms)
        rounds["door_adds_ms"].append(door_ms - sdk_ms)
        rounds["sdk_per_s"].append(per_s[client.identify])
        rounds["door_per_s"].append(per_s[door])
        rounds["door_of_sdk_per_s"].append(per_s[door] / per_s[client.identify])
        rounds["sdk_cpu_ms_a_photo"].append(cpu_ms[client.identify])
        rounds["web_cpu_ms_a_photo"].append(1e3 * (web.cpu_s() - before) / args.many)
    return {name: (statistics.median(values), min(values), max(values)) for name, values in rounds.items()}


def _check_same(client: vmmr.Client, door: Door, photos: Sequence[bytes]) -> None:
    for photo in photos[:16]:
        found, told = client.identify(photo), door(photo)
        assert told["answer"] == vars(found.answer)
        assert told["verdict"] == found.verdict
        assert told["label_confidence"] == found.label_confidence
        assert [near["item_id"] for near in told["neighbours"]] == [near.item_id for near in found.neighbours]
        assert [near["score"] for near in told["neighbours"]] == [near.score for near in found.neighbours]


def _one_at_a_time(sdk: Ask, door: Ask, photos: Sequence[bytes]) -> tuple[float, float]:
    """Return the median milliseconds of both, asked in turns, the one first and then the other."""
    took: dict[Ask, list[float]] = {sdk: [], door: []}
    for number, photo in enumerate(photos):
        for ask in (sdk, door) if number % 2 else (door, sdk):
            began = time.perf_counter()
            ask(photo)
            took[ask].append(1e3 * (time.perf_counter() - began))
    return statistics.median(took[sdk]), statistics.median(took[door])


def _per_s(ask: Ask, photos: Sequence[bytes], many: int, callers: int) -> float:
    wanted = [photos[n % len(photos)] for n in range(many)]
    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        for _ in pool.map(ask, wanted):
            pass
        return many / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
