"""The metrics of several processes as those of one server, each with the label `worker`."""

import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_TIMEOUT_S = 2.0

# A proxy in the environment is not meant for processes on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Gathered(Collector):
    """Asks each worker for its metrics, whenever its own are read. One that does not answer is left out."""

    def __init__(self, ports: Callable[[], Mapping[int, int]]) -> None:
        """`ports` are those where workers, by number, serve metrics on the loopback interface at the moment."""
        self._ports = ports

    def collect(self) -> Iterable[Metric]:
        ports = self._ports()
        families: dict[str, Metric] = {}
        with ThreadPoolExecutor(max(1, len(ports))) as pool:
            for worker, text in zip(ports, pool.map(_text, ports.values()), strict=True):
                for family in text_string_to_metric_families(text):
                    of_all = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    of_all.samples += [_labelled(sample, worker) for sample in family.samples]
        return families.values()


def _text(port: int) -> str:
    try:
        with _opener.open(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_S) as reply:
            return str(reply.read().decode())
    except (OSError, HTTPException):
        return ""


def _labelled(sample: Sample, worker: int) -> Sample:
    return sample._replace(labels={**sample.labels, "worker": str(worker)})
