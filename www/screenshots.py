"""Take the pictures of docs/web.md: `python www/screenshots.py --url URL --photos DIR --token-file FILE [--out DIR]`.

A `vmmr-web` must run at URL, with `--photos DIR`, over a gallery of drawn cars: a folder that `python -m demo.drawn_cars` has drawn, of which
the class that comes last was left out of the gallery. Pictures of drawn cars alone are in the repository.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

WIDE = {"width": 1180, "height": 820}
PHONE = {"width": 390, "height": 780}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    classes = sorted(folder for folder in args.photos.iterdir() if folder.is_dir())
    known, unknown = (sorted(folder.glob("*.jpg")) for folder in (classes[0], classes[-1]))
    with sync_playwright() as library:
        own = Path(library.chromium.executable_path)
        path = own if own.exists() else shutil.which("chromium")
        browser = library.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(base_url=args.url, viewport=WIDE)
        page.goto("/")
        _take(page, args.out / "ask.png")
        _ask(page, known[1])
        _take(page, args.out / "answer.png")
        _ask(page, unknown[0])
        _take(page, args.out / "unknown.png")
        phone = browser.new_page(base_url=args.url, viewport=PHONE, color_scheme="dark", device_scale_factor=1.5)
        _ask(phone, known[3])
        _take(phone, args.out / "phone.png")
        _review(page, args.token_file.read_text().strip(), [known[0], *unknown[:3], unknown[2]])
        _take(page, args.out / "review.png")


def _ask(page: Any, photo: Path) -> None:
    page.goto("/")
    page.get_by_label("Photos of the car").set_input_files(str(photo))
    page.get_by_role("button", name="Identify", exact=True).click()
    page.wait_for_url("**/answers/*")


def _review(page: Any, token: str, photos: list[Path]) -> None:
    page.goto("/sign-in?next=enrol")
    page.get_by_label("token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Label").fill(photos[1].parent.name)
    page.get_by_label("Photos of it").set_input_files([str(photo) for photo in photos])
    page.get_by_role("button", name="Check the photos").click()
    page.get_by_role("heading", name="Add these photos?").wait_for()


def _take(page: Any, path: Path) -> None:
    page.wait_for_load_state("networkidle")
    page.screenshot(path=path)
    print(path)


if __name__ == "__main__":
    main()
