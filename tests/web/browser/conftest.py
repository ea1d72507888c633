"""Real Chromium before a real door, with the pair that ships behind it, or scripted services."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import conftest as shared
from tests.web.conftest import TOKEN, Running

playwright = pytest.importorskip("playwright.sync_api", reason="the extra dev is not installed: no tests in a browser")

from playwright._impl._driver import compute_driver_executable  # noqa: E402  # after it was asked for

MODEL = "models/resnet50-cars-int8"
GALLERY = "models/stanford-cars"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
WAIT_MS = 60_000

running = pytest.fixture(shared._running, scope="session")


@pytest.fixture(scope="module")  # as long as playwright is there, no other test in its thread can run an event loop
def chromium() -> Iterator[Any]:
    """Chromium: playwright's own, or else the system's."""
    # As root, which containers run as, Chromium has no sandbox.
    flags = [*CAMERA, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    started = subprocess.run([compute_driver_executable()[0], "--version"], check=False, capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"playwright's driver does not run here: {started.stderr.strip()}")
    with playwright.sync_playwright() as library:
        own = Path(library.chromium.executable_path)
        path = own if own.exists() else shutil.which("chromium") or shutil.which("google-chrome")
        if path is None:
            pytest.skip("no Chromium: run `.venv/bin/playwright install chromium`, or install the system's")
        browser = library.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium) -> Iterator[Callable[..., Any]]:
    """`tab(url, **settings)` opens a page in a browser without cookies.

    If it is `watched`, the test fails if a script fails, or if anything breaks the page's policy.
    """
    contexts, faults = [], []

    def opened(url: str, *, watched: bool = True, **settings: Any) -> Any:
        context = chromium.new_context(base_url=url, **settings)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        if watched:
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on(
                "console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None
            )
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="session")
def pair(root: Path, running, tmp_path_factory) -> tuple[str, str]:
    """The pair that ships, over a copy of its gallery."""
    index = tmp_path_factory.mktemp("gallery") / "index"
    shutil.copytree(root / GALLERY, index)
    embedder = running("-m", "embedder_svc", "serve", "--port", 0, "--model", root / MODEL)
    search = running("-m", "search_svc", "serve", "--port", 0, "--index", index)
    return f"127.0.0.1:{embedder.ready()['port']}", f"127.0.0.1:{search.ready()['port']}"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> list[Path]:
    """Eight drawn photos of one car, which the gallery that ships does not have."""
    from demo.drawn_cars import LABELS, jpeg

    folder = tmp_path_factory.mktemp("drawn")
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(jpeg(LABELS[0], number))
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def street(tmp_path_factory, drawn) -> Path:
    """A photo of two cars, side by side."""
    from PIL import Image

    left, right = (Image.open(path) for path in drawn[:2])
    photo = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "grey")
    photo.paste(left, (0, 0))
    photo.paste(right, (left.width, 0))
    path = tmp_path_factory.mktemp("street") / "street.png"
    photo.save(path)
    return path


@pytest.fixture
def real(opened, pair) -> Running:
    """A door before the pair that ships."""
    embedder, search = pair
    return opened(embedder=embedder, search=search)


@pytest.fixture
def signed_in(tab) -> Callable[..., Any]:
    """`signed_in(door)` opens a page of somebody who may change the gallery."""

    def enter(door: Running, **settings: Any) -> Any:
        page = tab(door.url, **settings)
        page.goto("/sign-in?next=enrol")
        page.get_by_label("token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/enrol")
        return page

    return enter
