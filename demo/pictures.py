"""Takes the pictures of docs/web.md: `python -m demo.pictures`.

It draws cars, makes a gallery of some, serves them with the page, and visits the page with Chromium: Playwright's, or else the
system's. Nobody's photo is in a picture.
"""

import argparse
import csv
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from demo.chain import Chain
from demo.commands import ROOT
from demo.drawn_cars import LABELS, draw, photo, scenery
from demo.drawn_cars.canvas import aim
from demo.drawn_cars.weather import WEATHERS
from demo.screen import say
from demo.servers import running, serving
from svckit import cli

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FilePayload, Page

_WORK = ROOT / ".cache" / "pictures"
_OUT = ROOT / "docs" / "pictures"
_CLASSES, _PHOTOS = 24, 16
_SPLITS = {"train": range(10), "dev": range(10, 15), "test": range(15, 16)}
_KNOWN, _OTHER, _UNKNOWN = "aurora_heron_2011", "castell_baron_2013", LABELS[-1]
_TOKEN = "drawn-cars"  # noqa: S105 (of a server on this machine that lasts for a minute)
_WIDE, _PHONE = 1000, 360
_COLOURS = 64
MOST_BYTES = 80_000
"""Of a picture."""
_IN_VIEW = "() => [...document.images].every(i => i.complete || i.getBoundingClientRect().top > innerHeight)"


@dataclass(frozen=True)
class Visit:
    """A browser at the page's door, and the gallery behind it."""

    browser: "Browser"
    url: str
    chain: Chain

    def page(self, width: int = _WIDE, **settings: Any) -> "Page":
        return self.browser.new_page(base_url=self.url, viewport={"width": width, "height": 400}, **settings)

    def asked(self, content: bytes, width: int = _WIDE, **settings: Any) -> "Page":
        """Return the page that says what that photo shows."""
        page = self.page(width, **settings)
        page.goto("/")
        page.get_by_label("Photos of the car").set_input_files(_file("car.jpg", content))
        with page.expect_navigation():
            page.get_by_role("button", name="Identify", exact=True).click()
        return page

    def indexed(self, label: str) -> bytes:
        """Return a photo of the gallery."""
        with self.chain.manifest.open(newline="") as file:
            path = next(
                row["path"] for row in csv.DictReader(file) if row["label"] == label and row["split"] == "train"
            )
        return (self.chain.photos / path).read_bytes()


def _ask(visit: Visit) -> "Page":
    page = visit.page()
    page.goto("/")
    return page


def _answer(visit: Visit) -> "Page":
    page = visit.asked(_street())
    page.get_by_text("Other candidates").click()
    return page


def _compare(visit: Visit) -> "Page":
    page = visit.asked(_car(_KNOWN, 5))
    for place in (0, 1):
        page.locator("input[name=item]").nth(place).check()
    page.get_by_role("button", name="Compare the chosen two").click()
    page.get_by_role("heading", name="Side by side").wait_for()
    return page


def _gallery(visit: Visit) -> "Page":
    page = visit.page()
    page.goto("/gallery")
    return page


def _review(visit: Visit) -> "Page":
    page = visit.page()
    page.goto("/sign-in?next=enrol")
    page.get_by_label("token").fill(_TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Label").fill("castel_baron_2013")
    files = {
        "copy.jpg": _jpeg(Image.open(io.BytesIO(visit.indexed(_OTHER)))),
        "front.jpg": _car(_OTHER, 1),
        "side.jpg": _car(_OTHER, 3),
        "road.jpg": _nobody(),
        "notes.jpg": b"not a photo",
    }
    page.get_by_label("Photos of it").set_input_files([_file(name, content) for name, content in files.items()])
    page.get_by_role("button", name="Check the photos").click()
    page.get_by_role("heading", name="Add these photos?").wait_for()
    return page


PICTURES: Mapping[str, Callable[[Visit], "Page"]] = MappingProxyType(
    {
        "ask.png": _ask,
        "answer.png": _answer,
        "compare.png": _compare,
        "unknown.png": lambda visit: visit.asked(_car(_UNKNOWN, 0)),
        "no_car.png": lambda visit: visit.asked(_nobody()),
        "refused.png": lambda visit: visit.asked(b"not a photo"),
        "phone.png": lambda visit: visit.asked(_car(_KNOWN, 1), _PHONE, device_scale_factor=1.5),
        "dark.png": lambda visit: visit.asked(_car(_OTHER, 1), color_scheme="dark"),
        "gallery.png": _gallery,
        "review.png": _review,
    }
)
"""What makes the page that is on each picture of docs/web.md."""


def _car(label: str, number: int) -> bytes:
    """Return a photo that is in no gallery: those of collections have numbers from 1000 on."""
    return _jpeg(draw(label, number))


def _street() -> bytes:
    """Return a photo of two cars."""
    left, right = draw(_KNOWN, 5), draw(_OTHER, 1)
    street = Image.new("RGB", (left.width + right.width, min(left.height, right.height)))
    street.paste(left, (0, 0))
    street.paste(right, (left.width, 0))
    return _jpeg(street)


def _nobody() -> bytes:
    """Return a photo of a place without cars."""
    size, rng = (640, 480), np.random.default_rng(1)
    corners = np.array([(x, y, z) for x in (-2.0, 2.0) for y in (-1.0, 1.0) for z in (0.0, 1.6)])
    camera = aim(np.array([7.0, 4.0, 1.4]), corners, size, 0.9, (0.0, 0.05))
    return _jpeg(photo.expose(scenery.backdrop(size, camera, WEATHERS["noon"], rng), (320, 240), rng))


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _file(name: str, content: bytes) -> "FilePayload":
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


def take(page: "Page", path: Path) -> None:
    """Write what a reader sees of a page: all of it, or its upper part."""
    width = page.viewport_size["width"] if page.viewport_size else _WIDE
    height = min(page.evaluate("document.documentElement.scrollHeight"), 900)
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function(_IN_VIEW)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise cli.CommandError(f"{path}: has {size} bytes, at most {MOST_BYTES} are small enough for a page")
    say(f"{path}: {size} bytes")


@contextmanager
def _chromium() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (of the extra dev: whoever lists the pictures needs none)

    with sync_playwright() as library:
        own = Path(library.chromium.executable_path)
        path = own if own.exists() else shutil.which("chromium")
        # As root, which containers run as, Chromium has no sandbox.
        yield library.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])


def visit_all(chain: Chain, out: Path) -> None:
    """Serve a chain's gallery with its photos, and take all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    token = chain.work / "token"
    token.write_text(_TOKEN)
    with serving(chain.work, chain.index) as pair:
        services = ("--embedder", pair.embedder, "--search", pair.search)
        with (
            running("web", chain.work, *services, "--photos", chain.photos, "--token-file", token) as door,
            _chromium() as browser,
        ):
            visit = Visit(browser, f"http://127.0.0.1:{door.port()}", chain)
            for name, shown in PICTURES.items():
                with shown(visit) as page:
                    take(page, out / name)
            door.stop()


def _lists(chain: Chain) -> list[Path]:
    """Write lists of the photos for train, dev and test: with a tenth of so few for dev, confidences could not be calibrated."""
    paths = [path.relative_to(chain.photos) for path in sorted(chain.photos.glob("*/*.jpg"))]
    lists = []
    for name, numbers in _SPLITS.items():
        lists.append(chain.work / f"{name}.txt")
        lists[-1].write_text("".join(f"{path}\n" for path in paths if int(path.stem) in numbers))
    return lists


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.pictures", description="Take the pictures of docs/web.md.")
    parser.add_argument("--out", type=Path, metavar="DIR", default=_OUT, help="where they go (default: docs/pictures)")
    args = parser.parse_args()
    chain = Chain(_WORK / "photos", _WORK)
    chain.clear()
    chain.draw(classes=_CLASSES, photos=_PHOTOS)
    chain.split("files", *_lists(chain))
    chain.embed()
    chain.build()
    visit_all(chain, args.out)


if __name__ == "__main__":
    cli.run(main, "pictures")
