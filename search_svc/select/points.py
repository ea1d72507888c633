"""The points of the sweep (settings with their measurements), and the file that keeps them for a run to resume from."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_svc.index.version import SearchParams
from search_svc.select.grid import Setting
from svckit import strict_json
from svckit.artifact import ArtifactError, atomic_write


@dataclass(frozen=True)
class Timing:
    """How fast searches are."""

    qps_1: float
    """Queries a second, one at a time."""
    qps_64: float
    """Queries a second, 64 together."""
    p50_ms: float
    """The median latency of queries one at a time."""
    p99_ms: float


@dataclass(frozen=True)
class Point:
    """A setting, and what was measured of it."""

    setting: Setting
    top_1: float
    """The share of dev photos whose nearest photo has their label."""
    top_5: float
    """The share of dev photos one of whose five nearest photos has their label."""
    recall_1: float
    """The share of nearest photos that are as near as the nearest that exact search finds."""
    recall_10: float
    """The share of the ten nearest photos that are as near as the ten that exact search finds."""
    timing: Timing
    bytes_per_photo: float
    """The size of the shard files, per photo of the gallery."""
    build_s: float
    right: str = ""
    """A `1` for each dev photo whose nearest photo has its label, a `0` for each other; empty if that was not kept."""


class Store:
    """Keeps the points in a JSON file, which is complete after each change."""

    def __init__(self, path: Path, measured: Mapping[str, Any]) -> None:
        """Read the file if it exists.

        `measured` describes what was measured: embeddings, photos, shards. Raises ArtifactError if the file holds points of
        anything else, for they cannot be compared.
        """
        self._path = path
        self._measured = dict(measured)
        self._points = _read(path, self._measured) if path.exists() else {}

    @property
    def points(self) -> Mapping[Setting, Point]:
        return self._points

    def add(self, points: Iterable[Point]) -> None:
        """Keep the points, which replace earlier ones of the same settings."""
        self._points |= {point.setting: point for point in points}
        content = {"measured": self._measured, "points": [dataclasses.asdict(each) for each in self._points.values()]}
        atomic_write(self._path, f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode())


def _read(path: Path, measured: Mapping[str, Any]) -> dict[Setting, Point]:
    try:
        content = strict_json.loads(path.read_bytes())
        kept = content["measured"]
        points = [_point(fields) for fields in content["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(path, f"does not hold points that were measured: {error}") from error
    for name, value in measured.items():
        if kept.get(name) != value:
            other = f"its {name} was {kept.get(name)}, here it is {value}"
            raise ArtifactError(
                path, f"holds points that were measured with something else: {other}; name another --out"
            )
    return {point.setting: point for point in points}


def _point(fields: dict[str, Any]) -> Point:
    setting = fields["setting"]
    params = SearchParams(**setting["params"])
    return Point(
        **fields
        | {"setting": Setting(setting["factory"], setting["metric"], params), "timing": Timing(**fields["timing"])}
    )
