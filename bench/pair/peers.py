"""vmmr beside the servers one would pick instead: `python -m bench.pair.peers [--peers NAME ...]`.

The same ONNX file, the same decoding (vmmr's own), the same photos and the same cores for everything, callers included.
Each peer is installed, pinned, in an environment of its own in .cache/peers, and set up as its documentation has it, in two
ways; each way is a row. Peers are asked over HTTP with kept connections and answer bare bytes; vmmr over gRPC.

All servers are started once; in each round each is measured in turn, the others stopped (SIGSTOP) meanwhile: as fast as
answers come, by 1, 4 and 16 callers. Figures are medians over rounds. Three ratios for each peer:

- throughput at equal p99: the most that vmmr does with a p99 no higher than the peer has where it does most, over that;
- p50 of one caller: the peer's over vmmr's, each in its quickest way;
- CPU of a photo: the peer's over vmmr's, callers included, at 16 callers, each in its cheapest way, which other work on the
  machine changes least.

Above 1 vmmr is ahead. Every peer's answer is compared with vmmr's first.
"""

import argparse
import http.client
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count, cycle, islice, product
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.lib import machine
from bench.lib.paths import CARS, RESULTS, ROOT
from bench.lib.photos import photos_of

SERVERS = ROOT / "bench/pair/peer_servers"
CACHE = ROOT / ".cache/peers"
OUT = RESULTS / "peers.json"
MODEL = ROOT / "models/resnet50-cars-int8"
CALLERS = (1, 4, 16)
START_S, TIMEOUT_S, WARM_S, ENDING_S = 180.0, 60.0, 0.4, 15.0

Ask = Callable[[bytes], bytes]
"""Sends a photo over a connection of its own; the embedding's bytes."""


@dataclass(frozen=True)
class Setup:
    """One way to run a server: `workers` processes with the network, of `threads` threads, in runs of up to `batch` photos."""

    name: str
    workers: int
    threads: int
    batch: int = 1


@dataclass(frozen=True)
class Peer:
    packages: tuple[str, ...]
    command: tuple[str, ...]
    path: str
    setups: tuple[Setup, ...]
    form: bool = False
    """Whether the photo is sent as a form's file."""


def peers(cores: int) -> dict[str, Peer]:
    whole, batches = Setup(f"{cores} processes", cores, 1), Setup("1 process, batches", 1, cores, 4)
    stages = Setup("decoding apart, batches", cores, cores, 4)
    return {
        "mosec": Peer(("mosec==0.9.8",), ("python", "mosec_server.py"), "/inference", (whole, stages)),
        "litserve": Peer(
            ("litserve==0.2.19", "python-multipart==0.0.34"),
            ("python", "litserve_server.py"),
            "/predict",
            (whole, batches),
            form=True,
        ),
        "bentoml": Peer(
            ("bentoml==1.4.40",),
            ("bentoml", "serve", "--host", "127.0.0.1", "--port", "{port}", "bentoml_server:Embed"),
            "/embed",
            (whole, Setup("1 process", 1, cores)),
        ),
        "ray": Peer(("ray[serve]==2.60.0",), ("python", "ray_server.py"), "/", (Setup(f"{cores} replicas", cores, 1),)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="*", choices=sorted(peers(1)), metavar="NAME", help="default: all")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="BUNDLE")
    parser.add_argument("--cores", type=int, default=2, help="for servers and callers together")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement in a round")
    parser.add_argument("--photos", type=Path, default=CARS, metavar="DIR", help="a folder of folders of JPEGs")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT, metavar="JSON")
    args = parser.parse_args()
    machine.pin(args.cores)
    about = machine.describe()
    chosen = {name: peer for name, peer in peers(about["cores"]).items() if not args.peers or name in args.peers}
    absent = dict(filter(lambda pair: pair[1], ((name, install(name, peer)) for name, peer in chosen.items())))
    if not args.install_only:
        there = {name: peer for name, peer in chosen.items() if name not in absent}
        report({"machine": about, **compared(there, absent, args)}, args.out)


# --- installing ---


def install(name: str, peer: Peer) -> str:
    """Make a peer's environment unless it is there. Return why that failed, or nothing."""
    done = environment(name, peer) / "installed"
    # What decodes and runs the network is what vmmr has, to the version.
    same = [f"{library}=={importlib.metadata.version(library)}" for library in ("numpy", "pillow", "onnxruntime")]
    wanted = " ".join((*peer.packages, *same))
    if done.exists() and done.read_text() == wanted:
        return ""
    print(f"installing {name} in {done.parent.relative_to(ROOT)}", file=sys.stderr, flush=True)
    shutil.rmtree(done.parent, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", done.parent], check=True)
    pip = [done.parent / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages, *same]
    finished = subprocess.run(pip, capture_output=True, text=True, check=False)
    if finished.returncode:
        return f"does not install: {finished.stderr.strip().splitlines()[-1]}"
    done.write_text(wanted)
    return ""


def environment(name: str, peer: Peer) -> Path:
    return CACHE / f"{name}-{peer.packages[0].rpartition('==')[2]}"


# --- servers ---


@dataclass
class Served:
    """A server that runs, or is held."""

    name: str
    setup: str
    process: psutil.Process
    connect: Callable[[], Ask]
    answers: bool = True
    runs: dict[int, list["Run"]] = field(default_factory=lambda: {callers: [] for callers in CALLERS})

    @contextmanager
    def let_go(self) -> Iterator[None]:
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.hold()

    def hold(self) -> None:
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """Kill its processes, which this bench started: some do not end when asked."""
        tree = self._tree()
        self._signal(signal.SIGCONT)
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            self.process.terminate()
            self.process.wait(ENDING_S)
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._tree())

    def _signal(self, number: signal.Signals) -> None:
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def started(name: str, peer: Peer, setup: Setup, model: Path, log: Path) -> Served:
    port = free_port()
    settings = {"MODEL": model.absolute(), "PORT": port, "WORKERS": setup.workers, "THREADS": setup.threads}
    home = environment(name, peer)
    process = subprocess.Popen(
        [part.format(port=port) for part in (str(home / "bin" / peer.command[0]), *peer.command[1:])],
        cwd=SERVERS,
        env={
            **os.environ,
            **{f"PEER_{key}": str(value) for key, value in {**settings, "BATCH": setup.batch}.items()},
            "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{SERVERS}",
            "DO_NOT_TRACK": "1",
            "BENTOML_DO_NOT_TRACK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Served(name, setup.name, psutil.Process(process.pid), lambda: over_http(port, peer))


def started_vmmr(setup: str, flags: Sequence[str], model: Path, log: Path) -> Served:
    port_file = log.with_suffix(".port")
    command = [sys.executable, "-m", "embedder_svc", "serve", "--model", str(model.absolute()), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--port-file", str(port_file), "--log-level", "warning", *flags], cwd=ROOT, stderr=log.open("wb")
    )

    def connect() -> Ask:
        return over_grpc(json.loads(port_file.read_text())["port"])

    return Served("vmmr", setup, psutil.Process(process.pid), connect)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def over_http(port: int, peer: Peer) -> Ask:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    kind = f"multipart/form-data; boundary={_BOUNDARY}" if peer.form else "image/jpeg"

    def ask(photo: bytes) -> bytes:
        connection.request("POST", peer.path, _form(photo) if peer.form else photo, {"Content-Type": kind})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ConnectionError(f"{response.status}: {answer[:200]!r}")
        return answer

    return ask


_BOUNDARY = "a-line-that-no-photo-has"


def _form(photo: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="p.jpg"\r\n'
    return b"".join((head.encode(), b"Content-Type: image/jpeg\r\n\r\n", photo, f"\r\n--{_BOUNDARY}--\r\n".encode()))


_channels = count()


def over_grpc(port: int) -> Ask:
    # A connection for each caller, as over HTTP.
    options = [("grpc.use_local_subchannel_pool", 1), ("vmmr.bench", next(_channels))]
    stub = embedder_pb2_grpc.EmbedderServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}", options))

    def ask(photo: bytes) -> bytes:
        request = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=photo)])
        return bytes(stub.Embed(request, timeout=TIMEOUT_S).embeddings.data)

    return ask


def first_answer(server: Served, photo: bytes) -> bytes:
    """Wait until the server answers. Raise RuntimeError if it ends, or takes too long."""
    end = time.monotonic() + START_S
    while True:
        try:
            return server.connect()(photo)
        except (OSError, KeyError, grpc.RpcError, http.client.HTTPException, json.JSONDecodeError) as error:
            if not server.process.is_running() or server.process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError("the server ended") from error
            if time.monotonic() > end:
                raise RuntimeError(f"no answer in {START_S:g} s: {error}") from error
            time.sleep(0.25)


# --- measuring ---


@dataclass(frozen=True)
class Run:
    """One server, so many callers, one round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the server's processes, a photo."""
    callers_cpu_ms: float
    """Of the callers, a photo."""


def compared(there: dict[str, Peer], absent: dict[str, str], args: argparse.Namespace) -> dict[str, Any]:
    source, photos = photos_of(args.photos)
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        servers = []
        for server in running(there, absent, args.model, photos[0], Path(work)):
            stack.callback(server.end)
            servers.append(server)
        servers = [server for server in servers if server.answers]
        for round_ in range(args.rounds):
            # As near in time as can be, and first another one each time: what a machine gives changes.
            turns = servers[round_ % len(servers) :] + servers[: round_ % len(servers)]
            for callers, server in product(CALLERS, turns):
                with server.let_go():
                    server.runs[callers].append(measured(server, callers, photos, args.seconds))
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr, flush=True)
    return {
        "model": args.model.name,
        "photos": source,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "peers": {name: " ".join(peer.packages) for name, peer in there.items()},
        "absent": absent,
        "rows": [row(server, callers) for server in servers for callers in CALLERS],
        "ratios": ratios(servers),
    }


def running(there: dict[str, Peer], absent: dict[str, str], model: Path, photo: bytes, work: Path) -> Iterator[Served]:
    """Yield every server that was started. Those that answer as vmmr does are then held; `absent` says why others do not."""
    expected = None
    for server, log in starting(there, model, work):
        yield server  # even one that does not answer has to be ended
        try:
            answer = np.frombuffer(first_answer(server, photo), "<f4")
        except RuntimeError as error:
            why = f"{server.setup}: {error}: {log.read_text(errors='replace')[-500:]}"
            if server.name == "vmmr":
                sys.exit(f"vmmr, {why}")
            absent[server.name] = why
            server.answers = False
            continue
        expected = answer if expected is None else expected
        if not np.allclose(answer, expected, atol=1e-5):
            sys.exit(f"{server.name} answers something else: they differ by {np.abs(answer - expected).max()}")
        server.hold()


def starting(there: dict[str, Peer], model: Path, work: Path) -> Iterator[tuple[Served, Path]]:
    """Start each server, vmmr in both its ways first. Yield it, with its log."""
    cores = len(os.sched_getaffinity(0))
    for workers in (1, cores):
        log = work / f"vmmr-{workers}"
        setup = f"{workers} process{'es' * (workers > 1)}"
        yield started_vmmr(setup, ("--workers", str(workers)), model, log), log
    for name, peer in there.items():
        for number, setup in enumerate(peer.setups):
            log = work / f"{name}-{number}"
            yield started(name, peer, setup, model, log), log


def measured(server: Served, callers: int, photos: Sequence[bytes], seconds: float) -> Run:
    """Measure a server with callers who ask again as soon as they are answered. The first moments don't count."""
    took: list[list[tuple[float, float]]] = [[] for _ in range(callers)]
    asks = [server.connect() for _ in range(callers)]
    start = time.perf_counter() + WARM_S
    end = start + seconds

    def call(number: int) -> None:
        for photo in islice(cycle(photos), number * 7, None):
            began = time.perf_counter()
            if began >= end:
                return
            asks[number](photo)
            took[number].append((began, time.perf_counter()))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    time.sleep(WARM_S)
    before, callers_before = server.cpu_s(), time.process_time()
    for thread in threads:
        thread.join()
    cpu_s, callers_s, last = server.cpu_s() - before, time.process_time() - callers_before, time.perf_counter()
    calls = [(began, ended) for each in took for began, ended in each if ended > start]
    ms = np.array([1e3 * (ended - began) for began, ended in calls])
    p50, p99 = np.percentile(ms, (50, 99))
    return Run(len(ms) / (last - start), float(p50), float(p99), 1e3 * cpu_s / len(ms), 1e3 * callers_s / len(ms))


# --- telling ---


def median(runs: Sequence[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*(asdict(run).values() for run in runs), strict=True)))


def row(server: Served, callers: int) -> dict[str, Any]:
    runs = server.runs[callers]
    return {
        "server": server.name,
        "setup": server.setup,
        "callers": callers,
        **asdict(median(runs)),
        "rounds": [asdict(run) for run in runs],
    }


def ratios(servers: Sequence[Served]) -> dict[str, dict[str, float | None]]:
    """Return the ratios for each peer that this module's docstring explains."""
    points = [(server, callers) for server in servers for callers in CALLERS]
    ours = [point for point in points if point[0].name == "vmmr"]
    return {
        name: {
            "throughput_at_equal_p99": at_equal_p99(ours, [point for point in points if point[0].name == name]),
            "p50_of_one_caller": quickest(servers, name) / quickest(servers, "vmmr"),
            "cpu_of_a_photo": cheapest(servers, name) / cheapest(servers, "vmmr"),
        }
        for name in dict.fromkeys(server.name for server in servers)
        if name != "vmmr"
    }


Point = tuple[Served, int]


def at_equal_p99(ours: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """Return the ratio of throughput at equal p99; None if vmmr is never as quick."""
    most = max((figures(point) for point in theirs), key=lambda run: run.per_second)
    within = [figures(point).per_second for point in ours if figures(point).p99_ms <= most.p99_ms]
    return max(within) / most.per_second if within else None


def figures(point: Point) -> Run:
    server, callers = point
    return median(server.runs[callers])


def quickest(servers: Sequence[Served], name: str) -> float:
    return min(figures((server, 1)).p50_ms for server in servers if server.name == name)


def cheapest(servers: Sequence[Served], name: str) -> float:
    runs = [figures((server, max(CALLERS))) for server in servers if server.name == name]
    return min(run.cpu_ms + run.callers_cpu_ms for run in runs)


def report(result: dict[str, Any], out: Path) -> None:
    print(table(result))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


def table(result: dict[str, Any]) -> str:
    lines = [machine.line(result["machine"]), f"{result['model']}, photos of 500x375: {result['photos']}", ""]
    lines += [
        "| server | set up as | callers | photos/s | p50 ms | p99 ms | CPU ms a photo | of callers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['server']} | {row['setup']} | {row['callers']} | {row['per_second']:.1f} | {row['p50_ms']:.1f} | "
        f"{row['p99_ms']:.1f} | {row['cpu_ms']:.1f} | {row['callers_cpu_ms']:.2f} |"
        for row in result["rows"]
    ]
    lines += ["", "| vmmr beside | throughput at equal p99 | p50 of one caller | CPU of a photo |", "|---|---|---|---|"]
    for name, found in result["ratios"].items():
        equal = found["throughput_at_equal_p99"]
        told = "never as quick" if equal is None else f"{equal:.2f}"
        lines.append(f"| {name} | {told} | {found['p50_of_one_caller']:.2f} | {found['cpu_of_a_photo']:.2f} |")
    lines += [f"| {name} | {why.splitlines()[0]} | | |" for name, why in result["absent"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
