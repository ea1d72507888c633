"""What is measured of each point of the sweep, and the file that keeps it, so that a run that was stopped goes on."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_svc.index.version import SearchParams
from search_svc.select.grid import Setting
from svckit.artifact import ArtifactError, atomic_write


@dataclass(frozen=True)
class Timing:
    """Searches of one query at a time, and of 64 together."""

    qps_1: float
    qps_64: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Point:
    setting: Setting
    top_1: float
    """Share of dev photos whose nearest photo is of their label; `top_5`: one of the five nearest is."""
    top_5: float
    recall_1: float
    """Share of the nearest photo, or the ten nearest, that are as near as those that exact search finds."""
    recall_10: float
    timing: Timing
    bytes_per_photo: float
    """Of the shard files."""
    build_s: float


class Store:
    """The points that were measured, in a JSON file that is whole after each change."""

    def __init__(self, path: Path, measured: Mapping[str, Any]) -> None:
        """`measured` is what the points are of. Raises ArtifactError if the file holds points of something else."""
        self._path = path
        self._measured = dict(measured)
        self._points = _read(path, self._measured) if path.exists() else {}

    @property
    def points(self) -> Mapping[Setting, Point]:
        return self._points

    def add(self, points: Iterable[Point]) -> None:
        """Keeps points; in the stead of earlier ones of the same setting."""
        self._points |= {point.setting: point for point in points}
        content = {"measured": self._measured, "points": [dataclasses.asdict(each) for each in self._points.values()]}
        atomic_write(self._path, f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode())


def _read(path: Path, measured: Mapping[str, Any]) -> dict[Setting, Point]:
    try:
        content = json.loads(path.read_bytes())
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
