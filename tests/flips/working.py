"""What a process of the pool does: every trial on tables of its own."""

import faulthandler
import tempfile
from pathlib import Path

from tests.flips.scenes import Scene
from tests.flips.trial import RIGHT, Outcome, Place, Table

_tables: dict[str, Table] = {}


def prepare(scenes: list[Scene], directory: Path) -> None:
    """Lays the scenes, and sees that all goes well with them as long as no bit is flipped."""
    faulthandler.enable()
    for scene in scenes:
        _tables[scene.name] = Table(scene, Path(tempfile.mkdtemp(dir=directory)))
        for way in scene.ways:
            outcome = _tables[scene.name].attempt(way)
            assert outcome.kind == RIGHT, f"{scene.name}, untouched, {way}: {outcome}"


def attempt_all(way: str, places: list[Place]) -> tuple[str, list[Place], list[Outcome]]:
    return way, places, [_tables[place.scene].attempt(way, place) for place in places]
