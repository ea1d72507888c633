"""The metrics of several workers, as metrics of one server: each sample has the label `worker`."""

import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from prometheus_client import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_TIMEOUT_S = 2.0

# A proxy in the environment is not meant for processes on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class WorkerMetrics(Collector):
    """A collector that asks each worker for its metrics whenever it is read. A worker that does not answer is left out."""

    def __init__(self, ports: Callable[[], Mapping[int, int]]) -> None:
        """`ports` returns the ports of the loopback interface where workers serve metrics at the moment, by worker number."""
        self._ports = ports

    def collect(self) -> Iterable[Metric]:
        ports = self._ports()
        families: dict[str, Metric] = {}
        with ThreadPoolExecutor(max(1, len(ports))) as pool:
            for worker, text in zip(ports, pool.map(_text, ports.values()), strict=True):
                for family in text_string_to_metric_families(text) if text else ():  # type: ignore[no-untyped-call]
                    joined = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    joined.samples += [_labelled(sample, worker) for sample in family.samples]
        return families.values()


def _text(port: int) -> str:
    try:
        # The plain format has no exemplars.
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": CONTENT_TYPE_LATEST})
        with _opener.open(request, timeout=_TIMEOUT_S) as reply:
            return str(reply.read().decode())
    except (OSError, HTTPException):
        return ""


def _labelled(sample: Sample, worker: int) -> Sample:
    return sample._replace(labels={**sample.labels, "worker": str(worker)})
