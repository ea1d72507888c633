"""What the faults are made on: the servers, their disk, their network and their clock. All of it is gone when the block ends."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from vmmr.label_names import canonical

from embedder_svc.network import bundle
from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.spec import IndexSpec
from search_svc.voting.labels import parse

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/resnet50-cars-int8"
ITEMS = 200
DISK_KIB = 120_000
"""Room for some versions and the journal of as many items as the callers add, and not for much more."""
START_S = 180
SERVERS = ("embedder", "writer", "reader")
_BLKIO = Path("/sys/fs/cgroup/blkio")
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Stage:
    """Three servers: an embedder, a search server that is written to, and one that follows the same index."""

    def __init__(self, work: Path, needs: Collection[str]) -> None:
        """`needs` are the parts that faults are to be made of: `disk`, `throttle`, `network`, `clock`."""
        self.work = work
        self._needs = needs
        self.disk, self.index = work / "disk", work / "disk" / "index"
        self.info = bundle.read(MODEL)
        self.base = vectors(ITEMS, self.info.dimension, seed=0)
        self.processes: dict[str, subprocess.Popen] = {}
        self.ports: dict[str, int] = {}
        self._clean = contextlib.ExitStack()
        self.namespace = f"vmmr-{os.getpid()}"
        self.host = "127.0.0.1"
        self.missing: dict[str, str] = {}
        """Parts that cannot be made here, and why."""
        self.clock = work / "clock"
        self._group = _BLKIO / self.namespace

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._clean = stack
            stack.callback(self._remove_group)  # once nobody is in it
            stack.callback(self._kill_all)
            self.disk.mkdir()
            self._part("disk", self._make_disk)
            self._part("throttle", self._make_throttle)
            self._part("network", self._make_network)
            self._part("clock", self._make_clock)
            self._build()
            self._clean = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clean.close()

    def start(self) -> None:
        for name in SERVERS:
            self._start(name)
        for name in SERVERS:
            self.wait(name)

    def restart(self, name: str) -> None:
        """Kill a server, if it lives, start it again, and wait until it is ready."""
        self.kill(name)
        self._start(name)
        self.wait(name)

    def kill(self, name: str) -> None:
        process = self.processes[name]
        process.kill()
        process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def address(self, name: str) -> str:
        return f"{self.host}:{self.ports[name]}"

    def ip(self, *arguments: str) -> None:
        command("ip", *arguments)

    def wait(self, name: str) -> None:
        """Wait until a server is ready. A server keeps its port when it is started again."""
        file, end = self.work / f"{name}.port", time.monotonic() + START_S
        while not file.exists():
            if self.processes[name].poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} did not start: {(self.work / f'{name}.log').read_text()[-2000:]}")
            time.sleep(0.05)
        self.ports[name] = json.loads(file.read_text())["port"]

    def _start(self, name: str) -> None:
        port_file = self.work / f"{name}.port"
        port_file.unlink(missing_ok=True)
        module, flags = {
            "embedder": ("embedder_svc", ("--model", MODEL)),
            "writer": ("search_svc", ("--index", self.index, "--compact-at", 300)),
            "reader": ("search_svc", ("--index", self.index, "--read-only")),
        }[name]
        within = () if "network" in self.missing else ("ip", "netns", "exec", self.namespace)
        environment = dict(os.environ)
        if "clock" not in self.missing:
            environment |= {
                "LD_PRELOAD": str(_FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_CACHE_DURATION": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        arguments = ("serve", "--host", self.host, "--port", self.ports.get(name, 0), "--port-file", port_file, *flags)
        with (self.work / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                [*within, sys.executable, "-m", module, *map(str, arguments)],
                cwd=ROOT,
                env=environment,
                stderr=log,
                start_new_session=True,
            )
        if "throttle" not in self.missing:
            (self._group / "cgroup.procs").write_text(str(self.processes[name].pid))

    def _kill_all(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _part(self, name: str, make: Callable[[], None]) -> None:
        if name not in self._needs:
            self.missing[name] = "no fault was asked for that needs it"
            return
        try:
            make()
        except (OSError, subprocess.CalledProcessError) as error:
            self.missing[name] = getattr(error, "stderr", None) or str(error)

    def _make_disk(self) -> None:
        """A small file system, in a file that a loop device makes a disk of."""
        image = self.work / "disk.img"
        with image.open("wb") as file:
            file.truncate(1024 * DISK_KIB)
        command("mkfs.ext4", "-q", "-m", "0", str(image))
        command("mount", "-o", "loop", str(image), str(self.disk))
        self._clean.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)

    def _make_throttle(self) -> None:
        """A group of processes that may be held to so many writes a second to the disk."""
        if "disk" in self.missing:
            raise OSError(f"there is no disk of its own: {self.missing['disk']}")
        if not _BLKIO.is_dir():
            raise OSError(f"no process can be held to a rate of writes here: there is no {_BLKIO}")
        self._group.mkdir()
        self.throttle(0)

    def throttle(self, writes_per_s: int) -> None:
        """Have the disk take so many writes a second of all servers; 0: as many as it can."""
        disk = self.disk.stat().st_dev
        rule = f"{os.major(disk)}:{os.minor(disk)} {writes_per_s}"
        (self._group / "blkio.throttle.write_iops_device").write_text(rule)

    def _remove_group(self) -> None:
        if self._group.is_dir():
            self._group.rmdir()

    def _make_network(self) -> None:
        """A namespace, and a pair of devices between it and this one."""
        self.ip("netns", "add", self.namespace)
        self._clean.callback(subprocess.run, ["ip", "netns", "del", self.namespace], check=False)
        within = ("netns", "exec", self.namespace, "ip")
        subnet, device = f"10.231.{os.getpid() % 250}", self.device
        self.ip("link", "add", device, "type", "veth", "peer", "name", f"{device}p")
        self.ip("link", "set", f"{device}p", "netns", self.namespace)
        self.ip("addr", "add", f"{subnet}.1/30", "dev", device)
        self.ip(*within, "addr", "add", f"{subnet}.2/30", "dev", f"{device}p")
        self.ip(*within, "link", "set", f"{device}p", "up")
        self.ip(*within, "link", "set", "lo", "up")
        self.ip("link", "set", device, "up")
        self.host = f"{subnet}.2"

    @property
    def device(self) -> str:
        return f"vm{os.getpid()}"

    def _make_clock(self) -> None:
        if not _FAKETIME.exists():
            raise OSError("libfaketime is not installed (apt-get install faketime)")
        self.turn_clock("+0")

    def turn_clock(self, by: str) -> None:
        """Set the clock of all servers so much before or after the machine's: `+3600`, `-600`; they notice within a second."""
        draft = self.clock.with_suffix(".new")
        draft.write_text(f"{by}\n")
        draft.replace(self.clock)

    def _build(self) -> None:
        ids = [f"base {number}" for number in range(ITEMS)]
        gallery = BuildSource(
            embeddings=self.base,
            rows=np.arange(ITEMS),
            item_ids=ids,
            labels=[parse(canonical(f"make{number % 5}_model_2015")) for number in range(ITEMS)],
            uris=ids,
            model=self.info.fingerprint,
            model_name=self.info.name,
        )
        build_version(self.work / "built", gallery, IndexSpec(shards=2))
        shutil.copytree(self.work / "built", self.index)


def vectors(count: int, dimension: int, seed: int) -> np.ndarray:
    """Unit vectors that float16 holds exactly enough for each to be its own nearest. (count, dimension)"""
    made = np.random.default_rng(seed).standard_normal((count, dimension))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def command(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True, text=True)
