"""The pages in real Chromium, with the pair that ships behind them."""

import base64
import re
import struct
import zlib

import pytest
import vmmr

from tests.web.conftest import TOKEN
from web.door import door as doors
from web.pages.views import view

VIEWS = [{"width": 360, "height": 740}, {"width": 1280, "height": 900}]


def upload(page, *paths):
    """Chooses photos and sends the form; waits for the answer."""
    page.goto("/")
    page.get_by_label("Photos of the car").set_input_files([str(path) for path in paths])
    page.get_by_role("button", name="Identify", exact=True).click()
    page.wait_for_url("**/answers/*")


def heading(page) -> str:
    return page.get_by_role("heading", level=1).text_content()


def told(pair, photo: bytes) -> str:
    """What the SDK says of a photo, as a page has it for its heading: models come and go, and know other cars."""
    with vmmr.Client(*pair, timeout_s=60) as client:
        return view(client.identify_every_car(photo)[0]).heading


def test_a_photo_is_uploaded_and_answered_with_its_evidence(real, pair, tab, drawn):
    page = tab(real.url)
    upload(page, drawn[0])
    assert heading(page) == told(pair, drawn[0].read_bytes())
    assert page.get_by_role("img", name="The photo that was sent").bounding_box()["width"] > 100
    assert page.locator("ul.photos li").count() == 12
    page.get_by_text("How long it took").click()
    assert re.fullmatch(r"\d+\.\d ms", page.get_by_role("row", name="Embedding").locator("td").inner_text())
    assert page.get_by_role("textbox", name="A link to this answer", include_hidden=True).input_value() == page.url


def test_without_javascript_the_main_job_is_done(real, pair, tab, drawn):
    page = tab(real.url, java_script_enabled=False)
    upload(page, drawn[0])
    assert heading(page) == told(pair, drawn[0].read_bytes())
    assert page.get_by_role("button", name="Take a photo").count() == 0
    page.locator("input[name=item]").nth(0).check()
    page.locator("input[name=item]").nth(3).check()
    page.get_by_role("button", name="Compare the chosen two").click()
    page.get_by_role("heading", name="Side by side").wait_for()
    assert page.locator("ul.side li").count() == 3


def test_a_photo_is_fetched_from_its_address(opened, pair, tab, drawn, web_server):
    embedder, search = pair
    door = opened(embedder=embedder, search=search, allow_private=True)
    page = tab(door.url)
    page.goto("/")
    page.get_by_label("Or the address of a photo").fill(web_server({"/car.jpg": drawn[0].read_bytes()}) + "/car.jpg")
    page.get_by_role("button", name="Identify", exact=True).click()
    page.wait_for_url("**/answers/*")
    assert heading(page) == told(pair, drawn[0].read_bytes())


def test_an_address_that_is_not_public_is_refused_in_words(real, tab):
    page = tab(real.url)
    page.goto("/")
    page.get_by_label("Or the address of a photo").fill("http://127.0.0.1:1/car.jpg")
    page.get_by_role("button", name="Identify", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert heading(page) == "The photo can't be fetched from that address."


def test_a_photo_is_taken_with_the_camera(real, pair, tab):
    """Chromium's own camera draws a green picture."""
    page = tab(real.url, permissions=["camera"])
    page.goto("/")
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("button", name="Take the photo").click()
    page.wait_for_url("**/answers/*")
    photo = page.request.get(f"{page.url}/photo").body()
    assert photo.startswith(b"\xff\xd8")
    assert heading(page) == told(pair, photo)


def test_a_photo_is_dropped_and_pasted(real, pair, tab, drawn):
    page = tab(real.url)
    send = """([kind, bytes]) => {
        const files = new DataTransfer();
        files.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], "car.jpg", {type: "image/jpeg"}));
        document.dispatchEvent(kind === "drop" ? new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true})
            : new ClipboardEvent(kind, {clipboardData: files, bubbles: true, cancelable: true}));
    }"""
    for kind in ("drop", "paste"):
        page.goto("/")
        page.evaluate(send, [kind, base64.b64encode(drawn[0].read_bytes()).decode()])
        page.wait_for_url("**/answers/*")
        assert heading(page) == told(pair, drawn[0].read_bytes())


def test_every_car_of_a_photo_can_be_clicked(real, tab, street):
    page = tab(real.url)
    upload(page, street)
    boxes = page.locator(".boxes a")
    assert boxes.count() == 2
    assert page.get_by_role("list").filter(has_text="Car 1").get_by_role("link").count() == 2
    page.locator(".boxes a:not(.chosen)").click()
    page.wait_for_url("**/answers/*?car=1")
    assert page.locator(".boxes a").nth(1).get_attribute("class") == "chosen"


def test_a_box_can_be_drawn(real, tab, street):
    page = tab(real.url)
    upload(page, street)
    first = page.url
    area = page.locator(".boxes").bounding_box()
    x, y, width, height = (area[side] for side in ("x", "y", "width", "height"))
    page.mouse.move(x + 0.55 * width, y + 0.1 * height)
    page.mouse.down()
    page.mouse.move(x + 0.7 * width, y + 0.5 * height)
    page.mouse.move(x + 0.95 * width, y + 0.9 * height)
    page.mouse.up()
    page.wait_for_url(lambda url: "/answers/" in url and url != first)
    box = page.locator(".boxes rect").first
    assert [round(float(box.get_attribute(name)), 1) for name in ("x", "y", "width", "height")] == pytest.approx(
        [0.5, 0.1, 0.4, 0.8], abs=0.11
    )


def test_a_car_is_enrolled_recognised_and_taken_back(real, pair, tab, signed_in, drawn):
    *known, asked = drawn
    before = told(pair, asked.read_bytes())
    owner = signed_in(real)
    owner.get_by_label("Label").fill("drawn_car_2026")
    owner.get_by_label("Photos of it").set_input_files([str(path) for path in known])
    owner.get_by_role("button", name="Check the photos").click()
    owner.wait_for_url(lambda url: re.search(r"/enrol/.", url))
    assert owner.get_by_role("checkbox", checked=True).count() >= 5
    owner.get_by_role("button", name="Add to the gallery").click()
    owner.wait_for_url("**/enrol/added/*")
    try:
        page = tab(real.url)
        upload(page, asked)
        assert heading(page) == "drawn car 2026"
        assert page.locator("ul.photos li").first.locator("strong").text_content() == "drawn car 2026"
        bars = page.locator(".levels svg").all()
        assert [bar.get_attribute("aria-label").partition(":")[0] for bar in bars] == ["Make", "Model", "Year"]
        widths = [float(bar.locator(".fill").get_attribute("width").rstrip("%")) for bar in bars]
        assert widths == sorted(widths, reverse=True)
    finally:
        owner.get_by_role("button", name="Undo: remove this batch").click()
        owner.get_by_role("heading", name=re.compile("Removed . photos? of batch")).wait_for()
    upload(page, asked)
    assert heading(page) == before != "drawn car 2026"


def test_the_same_photo_again_is_pointed_out_before_it_is_added(real, signed_in, drawn):
    owner = signed_in(real)
    for reviewed in (False, True):
        owner.goto("/enrol")
        owner.get_by_label("Label").fill("Drawn Car 2026" if reviewed else "drawn_car_2026")
        owner.get_by_label("Photos of it").set_input_files([str(path) for path in drawn[:2]])
        owner.get_by_role("button", name="Check the photos").click()
        owner.get_by_role("heading", name="Add these photos?").wait_for()
        if not reviewed:
            owner.get_by_role("button", name="Add to the gallery").click()
            owner.wait_for_url("**/enrol/added/*")
            added = owner.url
    try:
        assert owner.get_by_text("Nearly the same photo is in the gallery").count() == 2
        assert owner.get_by_role("checkbox", checked=True).count() == 0
        assert "drawn_car_2026" in owner.get_by_text("labels that are nearly the same").inner_text()
    finally:
        owner.goto(added)
        owner.get_by_role("button", name="Undo: remove this batch").click()
        owner.get_by_role("heading", name=re.compile("Removed 2 photos")).wait_for()


def test_photos_that_cannot_be_checked_are_told_of_and_can_be_sent_again(real, signed_in, drawn):
    owner = signed_in(real)
    owner.route("**/enrol", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    owner.get_by_label("Label").fill("drawn_car_2026")
    owner.get_by_label("Photos of it").set_input_files([str(path) for path in drawn[:2]])
    owner.get_by_role("button", name="Check the photos").click()
    owner.get_by_text("The photos could not be checked: ").wait_for()
    assert owner.get_by_role("button", name="Check the photos").is_enabled()


def test_labels_are_searched_as_one_types(real, tab):
    page = tab(real.url)
    page.goto("/gallery")
    page.get_by_text("196 labels").wait_for()
    page.get_by_label("Search labels").press_sequentially("odyssey 2012")
    page.get_by_text("1 label, 33 photos").wait_for()
    page.get_by_role("link", name="honda odyssey minivan 2012").click()
    page.wait_for_url("**/gallery/label*")
    assert page.locator("ul.photos li").count() == 33


def test_a_photo_that_is_too_large_is_refused_before_it_is_sent(opened, tab, tmp_path):
    page = tab(opened(max_photo_bytes=1_000_000).url)
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(1_500_000))
    page.goto("/")
    page.get_by_label("Photos of the car").set_input_files(str(tmp_path / "large.jpg"))
    page.get_by_role("button", name="Identify", exact=True).click()
    page.get_by_text("large.jpg has 1.5 MB; at most 1 MB are taken.").wait_for()


def test_a_refusal_of_the_server_is_readable_even_in_the_middle_of_an_upload(opened, tab, tmp_path):
    page = tab(opened(max_upload_bytes=1_000_000, max_photo_bytes=1_000_000).url, java_script_enabled=False)
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(30_000_000))
    page.goto("/")
    page.get_by_label("Photos of the car").set_input_files(str(tmp_path / "large.jpg"))
    page.get_by_role("button", name="Identify", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert heading(page) == "That is too large."


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few bytes more than a megabyte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    side = 30_000
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + side)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "The file is text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "The file is an SVG"),
        (bomb, "pixels"),
    ],
    ids=["text", "svg", "bomb"],
)
def test_what_is_no_photo_is_refused_in_words(real, tab, tmp_path, content, says):
    page = tab(real.url)
    (tmp_path / "bad.jpg").write_bytes(content() if callable(content) else content)
    page.goto("/")
    page.get_by_label("Photos of the car").set_input_files(str(tmp_path / "bad.jpg"))
    page.get_by_role("button", name="Identify", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert heading(page) == "The photo can't be used."
    assert says in page.get_by_role("alert").inner_text()


def test_services_that_are_dead_or_late_are_told_in_words(opened, tab, stuck, drawn, monkeypatch):
    late = opened(timeout_s=0.3)
    monkeypatch.setattr(doors, "_RECONNECT_S", 0.01)  # the first answer counts
    for door, says in ((late, "It took too long"), (opened(embedder="127.0.0.1:1"), "reached")):
        page = tab(door.url)
        page.goto("/")
        page.get_by_label("Photos of the car").set_input_files(str(drawn[0]))
        page.get_by_role("button", name="Identify", exact=True).click()
        page.get_by_role("alert").wait_for()
        assert says in heading(page)
        page.get_by_role("link", name="Identify another car").click()
        page.get_by_role("heading", name="Which car is this?").wait_for()


def test_whoever_waits_is_told_so_and_cannot_send_twice(opened, tab, stuck, drawn):
    """The page itself says what it shows, for a browser that waits for the next page runs nothing that a test asks it to."""
    page = tab(opened().url)
    page.add_init_script("""document.addEventListener("DOMContentLoaded", () => new MutationObserver(() =>
        console.log(document.getElementById("status").textContent, document.querySelector("#ask button.main").disabled)
    ).observe(document.getElementById("status"), {childList: true}));""")
    page.goto("/")
    page.get_by_label("Photos of the car").set_input_files(str(drawn[0]))
    with page.expect_console_message(lambda line: line.text.startswith("Looking")) as told:
        page.get_by_role("button", name="Identify", exact=True).click(no_wait_after=True)
    assert told.value.text == "Looking at it… true"


def test_another_site_can_neither_frame_a_page_nor_post_its_form(real, tab, web_server):
    attack = f"""<iframe src="{real.url}/"></iframe>
        <form method="post" action="{real.url}/sign-in"><input name="token" value="{TOKEN}"><button>go</button></form>"""
    # Another port is another origin, and another name another site.
    evil = web_server({"/": attack.encode(), "/favicon.ico": b""}).replace("127.0.0.1", "localhost")
    page = tab(real.url, watched=False)
    page.goto(f"{evil}/")
    frame = page.frames[1]
    assert "Which car" not in frame.content()
    page.get_by_role("button", name="go").click()
    page.get_by_role("alert").wait_for()
    assert "CROSS_SITE" in page.get_by_role("alert").inner_text()
    assert page.context.cookies() == []


# --- for whom ---


def states(page, real, drawn):
    """Shows each kind of page in turn; yields what it is called."""
    page.goto("/")
    yield "ask"
    upload(page, drawn[0])
    for summary in page.locator("summary").all():
        summary.click()
    yield "answer"
    page.locator("input[name=item]").nth(0).check()
    page.locator("input[name=item]").nth(1).check()
    page.get_by_role("button", name="Compare the chosen two").click()
    page.get_by_role("heading", name="Side by side").wait_for()
    yield "compare"
    for path in ("/gallery", "/gallery/label?label=acura_rl_sedan_2012", "/answers/gone"):
        page.goto(path)
        yield path
    page.goto("/gallery/label?label=acura_rl_sedan_2012")
    page.locator("ul.photos a").first.click()
    page.get_by_role("heading", name="What looks like this one").wait_for()
    yield "item"
    page.go_back()
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Remove the chosen").click()
    page.get_by_role("heading", name="Remove from the gallery?").wait_for()
    yield "remove"
    page.goto("/enrol")
    yield "enrol"
    page.get_by_label("Label").fill("acura_rl_sedan")
    page.get_by_label("Photos of it").set_input_files(str(drawn[0]))
    page.get_by_role("button", name="Check the photos").click()
    page.get_by_role("heading", name="Add these photos?").wait_for()
    yield "review"
    page.goto("/sign-in")
    yield "sign-in"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page_and_no_page_is_wider_than_its_window(real, signed_in, drawn, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra dev is not installed").Axe()
    page = signed_in(real, color_scheme=scheme, viewport=VIEWS[0])
    wanted = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    seen = []
    for name in states(page, real, drawn):
        for size in VIEWS:
            page.set_viewport_size(size)
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, (name, size)
        found = axe.run(page, options=wanted)
        assert found.violations_count == 0, (name, found.generate_report())
        seen.append(name)
    assert len(seen) == 11


def test_dark_mode_is_dark(real, tab):
    def brightness(scheme: str) -> int:
        page = tab(real.url, color_scheme=scheme)
        page.goto("/")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness("dark") < 150
    assert brightness("light") > 600


def test_the_keyboard_alone_does_the_main_job(tab, web_server, opened, pair, drawn):
    embedder, search = pair
    door = opened(embedder=embedder, search=search, allow_private=True)
    page = tab(door.url)
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "photo"
    while page.evaluate("document.activeElement.id") != "url":
        page.keyboard.press("Tab")
    page.keyboard.type(web_server({"/car.jpg": drawn[0].read_bytes()}) + "/car.jpg")
    page.keyboard.press("Enter")
    page.wait_for_url("**/answers/*")


def test_nothing_moves_while_a_page_loads(real, tab, drawn):
    page = tab(real.url)
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput) window.shift += e.value; })"
        ".observe({type: 'layout-shift', buffered: true});"
    )
    upload(page, drawn[0])
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.shift") < 0.01
