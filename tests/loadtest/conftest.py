"""Load tests of scripted servers in this process, by generator processes of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest.plan import Access, Closed, Open, Plan
from loadtest.result import Result, Step
from loadtest.run import run
from tests.client import conftest as scripted
from tests.loadtest import patient

serve, services, fail, attempts = scripted.serve, scripted.services, scripted.fail, scripted.attempts

Measure = Callable[..., Result]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder whose photos the scripted embedder knows, some of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for n in range(6):
        (folder / ("below" if n % 2 else "") / f"{n}.jpg").write_bytes(b"%d" % n)
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(autouse=True)
def every_call_is_made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """But where a test says that it is about calls that are not."""
    if not request.node.get_closest_marker("calls_are_left_out"):
        monkeypatch.setattr("loadtest.workers.work", patient.work)


@pytest.fixture
def measure(services, photos) -> Measure:
    """`measure("search", Open(20), ...)` runs a short load test of the scripted pair."""

    def measure(target: Any, *loads: Open | Closed, **settings: Any) -> Result:
        usual = {
            "access": Access(*services.targets),
            "photos": photos if target in ("embed", "identify") else None,
            "distinct": 6,
            "duration_s": 1.0,
            "warmup_s": 0.2,
        }
        return run(Plan(target=target, loads=loads, **usual | settings))

    return measure


@pytest.fixture
def one(measure: Measure) -> Callable[..., Step]:
    """The same, of one load: its step."""

    def one(*args: Any, **settings: Any) -> Step:
        [step] = measure(*args, **settings).steps
        return step

    return one
