"""The pages as a browser without JavaScript sees them, and as those who attack them do."""

import html
import re
from pathlib import Path

import pytest
import vmmr

from tests.client.conftest import MODEL, car
from tests.web.conftest import TOKEN
from tests.web.test_identify import form
from web.pages.enrolling import near_labels
from web.pages.photo_files import kind_of, photo_reply, shown_size
from web.pages.views import item_name, view

EVIL = '"><script>alert(1)</script>'
DRAWING = "/car.svg"


def ask(door, *photos: bytes):
    """Posts the form of the page; the page that it leads to."""
    return door.http.post("/", files=form(*photos), follow_redirects=True)


@pytest.fixture(autouse=True)
def looking(services):
    """The scripted embedder finds a car in each photo."""
    services.embedder.cars = {}


@pytest.fixture
def owner(door):
    """A door whose client was signed in."""
    reply = door.http.post("/sign-in", data={"token": TOKEN})
    assert reply.status_code == 303
    return door


def put(services, item_id: str, label: str = "kia_rio_2020", **fields: str) -> None:
    """Puts an item into the gallery, past the door."""
    with vmmr.Client(*services.targets) as client:
        vectors = client.embed([b"7"])
        client.add_items([vmmr.Item(item_id, label, **fields)], vectors)


# --- asking ---


def test_the_form_needs_no_service(opened):
    reply = opened(embedder="127.0.0.1:1", search="127.0.0.1:1").http.get("/")
    assert reply.status_code == 200
    assert 'type="file"' in reply.text
    assert 'name="url"' in reply.text


def test_the_page_with_all_that_it_loads_is_under_100_kb(door):
    page = door.http.get("/")
    parts = sorted(set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)))
    sizes = [len(door.http.get(part).content) for part in parts]
    assert [part.rpartition("/")[2] for part in parts] == ["car.svg", "page.js", "style.css"] or len(parts) == 3
    assert len(page.content) + sum(sizes) < 100_000


def test_an_answer_has_an_address_that_shows_it_again(door, services):
    first = ask(door, b"7")
    assert first.status_code == 200
    assert re.fullmatch(r".*/answers/[\w-]{20,}", str(first.url))
    assert "honda pilot 2007" in first.text
    services.embedder.script.received.clear()
    again = door.http.get(first.url)
    assert again.text == first.text
    assert door.http.get(f"{first.url}/photo").content == b"7"
    assert services.embedder.script.received == []


def test_several_photos_are_of_one_car(door, services):
    page = ask(door, b"1", b"2")
    assert "honda pilot 2001" in page.text
    assert services.search.script.of("Classify")[0].request.fuse
    assert page.text.count("/photo?n=") == 2


def test_every_car_of_a_photo_has_an_answer_of_its_own(door, services):
    services.embedder.cars = {7: [car(0.1, 0.9), car(0.3, 0.8)]}
    page = ask(door, b"7")
    assert page.text.count("<rect x=") == 2
    other = door.http.get(f"{page.url}?car=1")
    assert '<h1 class="name">honda pilot 2008</h1>' in other.text
    assert door.http.get(f"{page.url}?car=2").status_code == 404


def test_a_model_without_a_detector_answers_for_the_whole_photo(door, services, fail):
    services.embedder.script.then(fail("NO_DETECTOR"))
    assert "honda pilot 2007" in ask(door, b"7").text


def test_a_box_on_the_photo_is_asked_for_itself(door, services):
    page = ask(door, b"7")
    edges = {"left": "10", "top": "20", "right": "90", "bottom": "80"}
    other = door.http.post(f"{page.url}/crop", data=edges, follow_redirects=True)
    assert other.url != page.url
    crop = services.embedder.script.of("Embed")[-1].request.images[0].crop
    assert [round(getattr(crop, side), 3) for side in edges] == [0.1, 0.2, 0.9, 0.8]
    bad = door.http.post(f"{page.url}/crop", data=edges | {"right": "5"})
    assert (bad.status_code, "left before right" in bad.text) == (400, True)


def candidates(*cars):
    return tuple(
        vmmr.Candidate(make, model, vmmr.Label(f"{make}_{model}_{year}", make, model, year), 0.3)
        for make, model, year in cars
    )


@pytest.mark.parametrize(
    ("fields", "others"),
    [
        ({}, ["honda pilot 2012", "honda cr v 2010"]),
        ({"verdict": "unknown"}, ["honda pilot 2009", "honda pilot 2010", "honda pilot 2012", "honda cr v 2010"]),
        ({"years": None}, ["honda pilot 2009", "honda pilot 2012", "honda cr v 2010"]),
    ],
)
def test_other_candidates_are_other_than_the_answer(fields, others):
    answer = vmmr.Label("honda_pilot_2010", "honda", "pilot", 2010)
    labels = candidates(
        ("honda", "pilot", 2009), ("honda", "pilot", 2010), ("honda", "pilot", 2012), ("honda", "cr v", 2010)
    )
    shown = view(told(answer=answer, labels=labels, **fields)).candidates
    assert [each.words for each in shown] == others


@pytest.mark.parametrize(
    ("item_id", "uri", "name"),
    [
        (64 * "a", "", "aaaaaaaaaaaa…"),
        (64 * "a", "photos/honda/1.jpg", "1.jpg"),
        ("honda/1.jpg", "", "honda/1.jpg"),
        ("a", "https://cars.example/1.jpg", "1.jpg"),
    ],
)
def test_an_item_has_a_name_for_people(item_id, uri, name):
    assert item_name(item_id, uri) == name


def test_two_neighbours_are_compared(door):
    page = ask(door, b"7")
    both = door.http.get(f"{page.url}/compare?item=item-7&item=item-8")
    assert both.text.count("/photo?id=item-") == 2
    assert door.http.get(f"{page.url}/compare?item=item-7").status_code == 400


def told(**fields) -> vmmr.Identification:
    usual = {
        "answer": vmmr.Label("honda_pilot_2011", "honda", "pilot", 2011),
        "verdict": "known",
        "known_score": 0.9,
        "years": (2009, 2011),
        "years_confidence": 0.7,
        "make_confidence": 0.9,
        "model_confidence": 0.8,
        "label_confidence": 0.6,
        "makes": (),
        "models": (),
        "labels": (),
        "neighbours": (),
        "provenance": vmmr.Provenance(MODEL, "000001", 0, 2, 2),
        "times": vmmr.Times(vmmr.EmbedTimes(1, 2, 3, 4), vmmr.SearchTimes(1, 2, 3), 20),
        "request_id": "x",
    }
    return vmmr.Identification(**usual | fields)


@pytest.mark.parametrize(
    ("fields", "heading", "known", "notes"),
    [
        ({}, "honda pilot 2009 to 2011", True, 0),
        ({"years": (2011, 2011)}, "honda pilot 2011", True, 0),
        ({"verdict": "unsure"}, "Perhaps honda pilot 2009 to 2011", True, 0),
        ({"verdict": "unknown"}, "Unknown car", False, 1),
        ({"verdict": "unknown", "no_car_found": True}, "No car found", False, 1),
        ({"verdict": None}, "honda pilot 2009 to 2011", True, 1),
        ({"answer": None, "verdict": None, "years": None}, "Nothing to compare with", False, 1),
        ({"answer": vmmr.Label("van", "", "", None), "years": None}, "van", True, 0),
        ({"provenance": vmmr.Provenance(MODEL, "1", 0, 1, 2)}, "honda pilot 2009 to 2011", True, 1),
    ],
)
def test_an_answer_is_told_as_what_it_is(fields, heading, known, notes):
    shown = view(told(**fields))
    assert (shown.heading, shown.known, len(shown.notes)) == (heading, known, notes)
    shares = [level.confidence for level in shown.levels]
    assert shares == sorted(shares, reverse=True)


# --- refusals ---


@pytest.mark.parametrize(
    ("reason", "status", "says"),
    [
        ("QUEUE_FULL", 503, "The services are busy"),
        ("SHUTTING_DOWN", 503, "being restarted"),
        ("INTERNAL", 502, "did not work"),
    ],
)
def test_what_fails_is_a_page_that_says_so(opened, services, fail, reason, status, says):  # noqa: PLR0917
    services.embedder.script.marked[b""] = fail(reason, retry_after_s=3600)
    page = ask(opened(), b"7")
    assert page.status_code == status
    assert page.headers["content-type"].startswith("text/html")
    assert says in page.text
    assert page.headers["x-request-id"] in page.text


def test_a_bad_photo_is_told_in_words(door):
    page = ask(door, b"no photo")
    assert page.status_code == 400
    assert "The photo can&#39;t be used." in page.text
    assert "Not an image" in page.text
    assert "images[0]" not in page.text


@pytest.mark.parametrize("path", ["/answers/gone", "/nothing", "/static/x/gone.js", "/enrol/added/gone"])
def test_what_is_not_there_is_a_page_too(owner, path):
    page = owner.http.get(path)
    assert page.status_code == 404
    assert "There is nothing here." in page.text


# --- attacks ---


def test_script_in_labels_ids_uris_and_attributes_stays_text(owner, services):
    """Stored XSS: whatever an item is called, no page has it as markup."""
    put(services, EVIL, label=EVIL, uri=f"javascript:{EVIL}", batch_id=EVIL, attributes={EVIL: EVIL})
    pages = [
        owner.http.get("/gallery/label", params={"label": EVIL}),
        owner.http.get("/gallery/item", params={"id": EVIL}),
    ]
    pages.append(owner.http.post("/gallery/remove", data={"item": EVIL}))
    pages.append(owner.http.post("/enrol", files=form(b"7"), data={"label": EVIL}, follow_redirects=True))
    pages.append(owner.http.get("/", params={"url": EVIL}))
    for page in pages:
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert html.escape(EVIL, quote=False)[1:] in page.text.replace("&#34;", '"') or "&lt;script&gt;" in page.text
        assert 'href="javascript:' not in page.text
    refused = ask(owner, b"no photo")
    assert "script-src 'self'" in refused.headers["content-security-policy"]


def test_names_of_photos_stay_text(owner):
    page = owner.http.post("/enrol", files=[("photo", (EVIL, b"7"))], data={"label": "a_b_2020"}, follow_redirects=True)
    assert "<script>alert" not in page.text


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.jpg",
        "a/../../secret.jpg",
        "/etc/passwd",
        "link.jpg",
        "linked/secret.jpg",
        "a\0b.jpg",
        "folder",
        "~/x",
        "x" * 2000,
    ],
)
def test_no_uri_leads_out_of_the_folder_of_photos(opened, services, encode, tmp_path, uri):
    photo = encode(noise(), "JPEG")
    (tmp_path / "photos/folder").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(photo)
    (tmp_path / "photos/link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "photos/linked").symlink_to(tmp_path)
    (tmp_path / "photos/good.jpg").write_bytes(photo)
    door = opened(photos=tmp_path / "photos")
    put(services, "good", uri="good.jpg")
    put(services, "bad", uri=uri)
    assert door.http.get("/photo?id=good").content == photo
    reply = door.http.get("/photo?id=bad")
    assert (reply.status_code, reply.headers["location"].endswith(DRAWING)) == (302, True)


def noise():
    import numpy as np

    return np.zeros((30, 40, 3), np.uint8)


def test_what_is_no_photo_is_not_served_from_the_folder(opened, services, tmp_path):
    (tmp_path / "page.jpg").write_text("<script>alert(1)</script>")
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    door = opened(photos=tmp_path)
    for name in ("page.jpg", "drawing.svg"):
        put(services, name, uri=name)
        assert door.http.get(f"/photo?id={name}").status_code == 302


def test_a_photo_on_the_web_is_fetched_by_the_rules_of_the_sdk(opened, services, encode, web_server):
    photo = encode(noise(), "PNG")
    put(services, "a", uri=f"{web_server({'/a.png': photo})}/a.png")
    assert opened().http.get("/photo?id=a").status_code == 302
    shown = opened(allow_private=True).http.get("/photo?id=a")
    assert (shown.headers["content-type"], shown.content) == ("image/png", photo)


@pytest.mark.parametrize("name", ["../site.py", "..%2fsite.py", "%2e%2e/texts.py", "texts.py"])
def test_no_file_but_those_of_the_pages_is_served(door, name):
    reply = door.http.get(f"/static/x/{name}")
    assert reply.status_code == 404


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(door):
    cookie = door.http.post("/sign-in", data={"token": TOKEN}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    wrong = door.http.post("/sign-in", data={"token": "wrong"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)


def test_a_page_of_another_site_can_neither_sign_in_nor_enrol_nor_remove(owner, services):
    for path, data in (
        ("/sign-in", {"token": TOKEN}),
        ("/enrol", {"label": "a"}),
        ("/gallery/remove", {"item": "a", "sure": "yes"}),
    ):
        reply = owner.http.post(path, data=data, headers={"Sec-Fetch-Site": "cross-site"})
        assert (reply.status_code, "CROSS_SITE" in reply.text) == (403, True)
    assert services.search.script.received == []


def test_nobody_else_enrols_or_removes(door, services):
    for path in ("/enrol", "/gallery/remove", "/enrol/x", "/enrol/added/x", "/gallery/removed/x"):
        reply = door.http.post(path, data={"label": "a", "item": "a", "sure": "yes"})
        assert (reply.status_code, "That needs the token." in reply.text) == (401, True)
    assert door.http.get("/enrol").headers["location"] == "/sign-in?next=enrol"
    assert services.search.script.received == []


@pytest.mark.parametrize("next_page", ["https://evil.example", "//evil.example", "gallery"])
def test_signing_in_leads_to_a_page_of_ours(door, next_page):
    reply = door.http.post("/sign-in", data={"token": TOKEN, "next": next_page})
    assert reply.headers["location"] == "/gallery"


# --- the gallery ---


def test_labels_are_searched(door):
    assert "3 labels, 30 photos" in door.http.get("/gallery").text
    found = door.http.get("/gallery?q=2001").text
    assert ("honda pilot 2001" in found, "honda pilot 2002" in found) == (True, False)
    assert "No label has these words" in door.http.get("/gallery?q=zz").text


def test_an_item_shows_what_looks_like_it_if_its_photo_is_at_hand(opened, services, tmp_path):
    (tmp_path / "7.jpg").write_bytes(b"7")
    put(services, "at-hand", uri="7.jpg")
    put(services, "gone", uri="8.jpg")
    door = opened(photos=tmp_path)
    assert "/gallery/item?id=item-7" in door.http.get("/gallery/item?id=at-hand").text
    assert "isn&#39;t at hand" in door.http.get("/gallery/item?id=gone").text
    assert door.http.get("/gallery/item?id=nothing").status_code == 404


def test_looking_at_an_item_counts_as_a_request_with_a_photo(opened, services):
    """Its photo is embedded anew each time."""
    put(services, "a", uri="a.jpg")
    door = opened(calls_per_minute=1)
    assert [door.http.get("/gallery/item?id=a").status_code for _ in range(2)] == [200, 429]


def test_what_is_removed_can_be_brought_back_if_its_photo_is_at_hand(opened, services, tmp_path):
    (tmp_path / "7.jpg").write_bytes(b"7")
    put(services, "at-hand", uri="7.jpg", batch_id="b", attributes={"seller": "x"})
    put(services, "gone", uri="8.jpg")
    before = services.search.items["at-hand"]
    door = opened(photos=tmp_path)
    door.http.post("/sign-in", data={"token": TOKEN})
    asked = door.http.post("/gallery/remove", data={"item": ["at-hand", "gone"]})
    assert "1 of 2 photos can be brought back" in asked.text
    assert len(services.search.items) == 2
    removed = door.http.post(
        "/gallery/remove", data={"item": ["at-hand", "gone"], "sure": "yes"}, follow_redirects=True
    )
    assert "Removed 2 photos" in removed.text
    assert services.search.items == {}
    back = door.http.post(removed.url)
    assert "Brought back 1 photo." in back.text
    assert services.search.items == {"at-hand": before}


def test_nothing_is_removed_if_nothing_was_chosen(owner, services):
    assert owner.http.post("/gallery/remove", data={"sure": "yes"}).status_code == 400
    assert services.search.script.of("DeleteItems") == []


def test_more_than_can_be_removed_at_once_are_refused_and_none_is_removed(owner, services):
    ids = [f"item-{n}" for n in range(101)]
    refused = owner.http.post("/gallery/remove", data={"item": ids, "sure": "yes"})
    assert (refused.status_code, "At most 100 photos can be removed at once, and 101 were chosen." in refused.text) == (
        400,
        True,
    )
    assert services.search.script.of("DeleteItems") == []


def test_as_many_as_can_be_removed_at_once_are(owner, services):
    for n in range(100):
        put(services, f"item-{n}")
    data = {"item": [f"item-{n}" for n in range(100)], "sure": "yes"}
    assert "Removed 100 photos." in owner.http.post("/gallery/remove", data=data, follow_redirects=True).text


# --- adding ---


def test_a_car_is_added_after_a_look_at_what_was_found_and_taken_back(owner, services):
    review = owner.http.post(
        "/enrol", files=form(b"1", b"no photo", b"3"), data={"label": "kia_rio"}, follow_redirects=True
    )
    assert review.status_code == 200
    assert services.search.items == {}
    assert "Can&#39;t be used: not an image" in review.text
    assert "doesn&#39;t end with a year" in review.text
    added = owner.http.post(
        review.url, data={"label": "kia_rio_2020", "keep": ["0", "1", "2", "7"]}, follow_redirects=True
    )
    assert "Added 2 photos of kia_rio_2020" in added.text
    items = [item for item, _ in services.search.items.values()]
    assert {item.label for item in items} == {"kia_rio_2020"}
    assert len({item.batch_id for item in items}) == 1
    undone = owner.http.post(added.url)
    assert "Removed 2 photos of batch web-" in undone.text
    assert services.search.items == {}


def test_nothing_is_added_if_no_photo_was_chosen(owner, services):
    review = owner.http.post("/enrol", files=form(b"1"), data={"label": "kia_rio_2020"}, follow_redirects=True)
    assert owner.http.post(review.url, data={"label": "kia_rio_2020"}).status_code == 400
    assert services.search.script.of("AddItems") == []


def test_copies_are_pointed_out_and_not_chosen(owner, services, monkeypatch):
    """Of the scripted gallery, each photo's nearest has the score 0.9; photos of one number have one embedding."""
    monkeypatch.setattr("web.pages.enrolling.NEARLY_THE_SAME", 0.9 - 1e-6)
    review = owner.http.post("/enrol", files=form(b"1", b"1"), data={"label": "kia_rio_2020"}, follow_redirects=True)
    assert "Nearly the same photo is in the gallery: item-1 (honda pilot 2001, similarity 0.900)" in review.text
    assert "Nearly the same as photo 1 of these" in review.text
    assert " checked>" not in review.text


def test_photos_may_come_one_by_one_into_one_draft(owner):
    json = {"Accept": "application/json"}
    first = owner.http.post("/enrol", files=form(b"1"), data={"label": "kia_rio_2020"}, headers=json).json()
    second = owner.http.post(
        "/enrol", files=form(b"2"), data={"label": "x", "draft": first["draft"]}, headers=json
    ).json()
    assert second["photos"] == 2
    review = owner.http.get(f"/enrol/{second['draft']}").text
    assert ('value="kia_rio_2020"' in review, review.count('name="keep"')) == (True, 2)
    wrong = owner.http.post("/enrol", data={"label": "x"}, headers=json)
    assert (wrong.status_code, wrong.json()["reason"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(("fails", "status"), [("QUEUE_FULL", 503), (None, 400)], ids=["busy", "too-many"])
def test_a_draft_stays_as_it_was_if_further_photos_are_refused(opened, services, fail, fails, status):
    door = opened(max_photos=3)
    door.http.post("/sign-in", data={"token": TOKEN})
    json = {"Accept": "application/json"}
    draft = door.http.post("/enrol", files=form(b"1"), data={"label": "kia_rio_2020"}, headers=json).json()["draft"]
    more = [b"2", b"3333"] if fails else [b"2", b"3333", b"4"]
    if fails:
        services.embedder.script.marked[b"3333"] = fail(fails)
    refused = door.http.post("/enrol", files=form(*more), data={"draft": draft}, headers=json)
    assert refused.status_code == status
    assert door.http.get(f"/enrol/{draft}").text.count('name="keep"') == 1


@pytest.mark.parametrize(
    ("label", "near"),
    [
        ("Honda Pilot 2011", ["honda_pilot_2011"]),
        ("honda_pliot_2011", ["honda_pilot_2011", "honda_pilot_2012"]),
        ("honda-pilot 2013", ["honda_pilot_2012", "honda_pilot_2011"]),
        ("kia_rio_2020", []),
    ],
)
def test_labels_that_are_nearly_there_are_found(label, near):
    assert sorted(near_labels(label, {"honda_pilot_2011": 1, "honda_pilot_2012": 2, "audi_a4_2001": 3}))[:2] == sorted(
        near
    )


# --- photos ---


def test_the_size_of_a_photo_is_that_of_the_upright_one(encode):
    from PIL import Image

    image = Image.new("RGB", (400, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shown_size(encode(image, "JPEG", exif=exif)) == (100, 400)
    assert shown_size(encode(image, "PNG")) == (400, 100)
    assert shown_size(encode(Image.new("RGB", (4000, 1000)), "WEBP")) == (960, 240)
    assert shown_size(b"no photo") is None


@pytest.mark.parametrize("form_", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_the_kind_of_a_photo_is_told_from_its_bytes(encode, form_):
    assert kind_of(encode(noise(), form_)) == f"image/{form_.lower()}"
    assert kind_of(b"<svg>") is None
    assert kind_of(bytes(4) + b"ftypheic") == "image/heic"
    assert kind_of(bytes(4) + b"ftypqt  ") is None


def test_a_photo_is_sent_in_pieces(awaited):
    """Many who read a large photo slowly must not have a copy each."""
    photo = bytes(range(256)) * 4096
    reply = photo_reply(photo, "image/png")

    async def sent():
        return [piece async for piece in reply.body_iterator]

    pieces = awaited(sent())
    assert (b"".join(pieces), max(map(len, pieces))) == (photo, 2**18)
    assert reply.headers["content-length"] == str(len(photo))


def test_every_text_is_used_and_only_in_one_file():
    folder = Path(__file__).parents[2] / "web/pages"
    source = (folder / "texts.py").read_text()
    names = re.findall(r"^    (\w+) = ", source.partition("REFUSALS")[0], re.MULTILINE)
    users = "".join(
        path.read_text() for path in [*folder.glob("templates/*.html"), *folder.glob("*.py")] if path.name != "texts.py"
    )
    assert [name for name in names if not re.search(rf"\b[tT]\.{name}\b", users)] == []
