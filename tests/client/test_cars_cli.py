"""What of a photo the command looks at, as a process."""

import io
import json
import re

import pytest
from PIL import Image, ImageDraw
from vmmr._cli import drawing
from vmmr.embedder.v1 import embedder_pb2

CAR = "0.25,0.25,0.75,0.75"


def detection(left: float, score: float) -> embedder_pb2.Detection:
    box = embedder_pb2.Box(left=left, top=left, right=1 - left, bottom=1 - left)
    return embedder_pb2.Detection(box=box, score=score)


@pytest.fixture(autouse=True)
def embedder(services):
    """An embedder with a detector: the photo 2 shows two cars, 3 none."""
    services.embedder.cars = {2: [detection(0.25, 0.875), detection(0.375, 0.5)], 3: []}
    return services.embedder


def lines(done) -> list[str]:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_identify_tells_what_it_looked_at(run):
    assert lines(run("identify", "1.jpg", "3.jpg")) == [
        "PHOTO  MAKE  MODEL  LABEL  NEAREST   CAR  BOX                  ANSWER",
        "1.jpg   90%    80%    70%    0.900   88%  0.25,0.25,0.75,0.75  honda pilot 2001",
        "3.jpg     -      -      -    0.900  none  whole                no car found in the photo (nearest: honda pilot 2003)",
    ]
    assert lines(run("identify", "1.jpg", "--whole"))[1].split()[5:7] == ["-", "whole"]
    assert lines(run("identify", "1.jpg", "--crop", "0,0.125,0.5,1"))[1].split()[5:7] == ["-", "0.00,0.12,0.50,1.00"]


def test_every_car_has_a_line_the_main_one_first(run):
    assert lines(run("identify", "2.jpg", "1.jpg", "--every-car"))[1:] == [
        "2.jpg   90%    80%    70%    0.900   88%  0.25,0.25,0.75,0.75  honda pilot 2002",
        "2.jpg   90%    80%    70%    0.900   50%  0.38,0.38,0.62,0.62  honda pilot 2003",
        "1.jpg   90%    80%    70%    0.900   88%  0.25,0.25,0.75,0.75  honda pilot 2001",
    ]


def test_json_tells_the_box_the_score_and_that_there_is_no_car(run):
    first, second, third = map(json.loads, lines(run("identify", "2.jpg", "3.jpg", "--every-car", "--json")))
    assert [each["photo"] for each in (first, second, third)] == ["2.jpg", "2.jpg", "3.jpg"]
    assert second["cut"] == {
        "box": {"left": 0.375, "top": 0.375, "right": 0.625, "bottom": 0.625},
        "car_score": 0.5,
        "no_car_found": False,
    }
    assert (third["cut"]["no_car_found"], third["no_car_found"], third["verdict"]) == (True, True, "unknown")


def test_a_bad_photo_costs_the_other_cars_nothing(run):
    done = run("identify", "bad.jpg", "2.jpg", "--every-car")
    assert (done.returncode, done.stderr) == (1, "vmmr: bad.jpg: content: not an image\n")
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--whole", "--crop", "0,0,1,1"], "argument --crop: not allowed with argument --whole"),
        (["--every-car", "--whole"], "argument --whole: not allowed with argument --every-car"),
        (["--every-car", "--fuse"], "--fuse gives one answer for all photos"),
        (["--save-boxes", "boxes", "--fuse"], "--fuse gives one answer for all photos"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(run, services, flags, told):
    done = run("identify", "1.jpg", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert services.embedder.script.received == []


def test_search_looks_at_the_same_part(run, services):
    assert lines(run("search", "3.jpg"))[0] == "3.jpg (no car found in the photo)"
    assert lines(run("search", "3.jpg", "--whole"))[0] == "3.jpg"
    found = json.loads(lines(run("search", "1.jpg", "--json"))[0])
    assert found["cut"]["car_score"] == 0.875


def test_detect_tells_where_the_cars_are(run, services):
    assert lines(run("detect", "1.jpg", "2.jpg", "3.jpg")) == [
        "PHOTO   CAR  BOX",
        "1.jpg   88%  0.25,0.25,0.75,0.75",
        "2.jpg   88%  0.25,0.25,0.75,0.75",
        "2.jpg   50%  0.38,0.38,0.62,0.62",
        "3.jpg  none  -",
    ]
    assert services.search.script.received == services.embedder.script.of("Embed") == []
    first, second = map(json.loads, lines(run("detect", "1.jpg", "3.jpg", "--json")))
    assert first["cars"][0] == {
        "box": dict.fromkeys(("left", "top"), 0.25) | {"right": 0.75, "bottom": 0.75},
        "score": 0.875,
    }
    assert second == {"photo": "3.jpg", "cars": []}


def test_detect_names_a_photo_that_cannot_be_read_and_goes_on(run):
    done = run("detect", "missing.jpg", "1.jpg")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 2)
    assert "vmmr: missing.jpg: No such file or directory" in done.stderr


def test_add_takes_the_main_car_and_names_photos_without_one(run, services):
    done = run("add", "1.jpg", "3.jpg", "--label", "x")
    assert "vmmr: 3.jpg: no car found in the photo; it was added whole\n" in done.stderr
    cuts = [item.cut for item, _ in services.search.items.values()]
    assert [(cut.left, cut.no_car_found) for cut in cuts] == [(0.25, False), (0, True)]
    done = run("add", "2.jpg", "--label", "x", "--whole", "--json")
    assert json.loads(done.stdout)["item"]["cut"] == {
        "box": {"left": 0, "top": 0, "right": 1, "bottom": 1},
        "car_score": None,
        "no_car_found": False,
    }


def test_info_tells_the_detector_and_how_the_gallery_was_cut(run, services):
    from vmmr.search.v1 import search_pb2

    detector = embedder_pb2.Detector(name="objectron", threshold=0.25, margin=0.125)
    reply = embedder_pb2.GetModelResponse(model=embedder_pb2.Model(fingerprint="ab" * 32, detector=detector))
    services.embedder.script.then(lambda *_: reply)
    services.search.cuts = search_pb2.CutCounts(car=20, whole=5, no_car_found=1, given=1, unknown=3)
    told = lines(run("info"))
    assert "name objectron, threshold 0.25, margin 0.125" in re.findall(
        r"^model detector +(.*)$", "\n".join(told), re.MULTILINE
    )
    assert "car 20, whole 5, no car found 1, given 1, unknown 3" in re.findall(
        r"^index cuts +(.*)$", "\n".join(told), re.MULTILINE
    )


# --- photos with boxes ---


@pytest.fixture
def picture(tmp_path, services):
    """`street.png`, a black photo of 200 x 100 with the cars of the photo 2, or without one."""
    content = io.BytesIO()
    Image.new("RGB", (200, 100)).save(content, "PNG")
    (tmp_path / "street.png").write_bytes(content.getvalue())

    def embed(request, context):
        for image in request.images:
            if image.content.startswith(b"\x89PNG"):
                image.content = b"2"
        return services.embedder.embed(request, context)

    services.embedder.script.marked[b"\x89PNG"] = embed
    return content.getvalue()


def drawn(path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def is_coloured(pixel: tuple[int, int, int]) -> bool:
    return max(pixel) > 100


def test_boxes_are_drawn_into_copies_of_the_photos(run, tmp_path, picture):
    done = run("identify", "1.jpg", "street.png", "--every-car", "--save-boxes", "boxes", stdin="")
    assert done.returncode == 1, "1.jpg holds a number, which the fake embedder takes for a photo, and Pillow does not"
    assert re.match(r"vmmr: 1.jpg: its boxes are not drawn: cannot identify image file", done.stderr)
    assert len(done.stdout.splitlines()) == 4
    assert [path.name for path in (tmp_path / "boxes").iterdir()] == ["0002-street.jpg"]
    seen = drawn(tmp_path / "boxes/0002-street.jpg")
    assert seen.size == (200, 100)
    edges = [(50, 60), (149, 60), (75, 60), (124, 60)]
    assert [is_coloured(seen.getpixel(at)) for at in edges] == [True] * 4
    assert [is_coloured(seen.getpixel(at)) for at in ((25, 60), (65, 70), (175, 60))] == [False] * 3
    assert (tmp_path / "street.png").read_bytes() == picture


def test_without_every_car_the_main_one_is_drawn(run, tmp_path, picture):
    assert lines(run("identify", "street.png", "--save-boxes", "a/b"))[1].endswith("honda pilot 2002")
    seen = drawn(tmp_path / "a/b/0001-street.jpg")
    assert [is_coloured(seen.getpixel(at)) for at in ((50, 60), (124, 70))] == [True, False]


def test_photos_from_standard_input_are_drawn_too_and_those_that_are_bad_are_named(environment, tmp_path, picture):
    import subprocess
    import sys
    from pathlib import Path

    command = [Path(sys.executable).parent / "vmmr", "identify", "missing.jpg", "-", "--save-boxes", "boxes"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, input=picture, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"vmmr: missing.jpg: No such file or directory")
    assert [path.name for path in (tmp_path / "boxes").iterdir()] == ["0001-stdin.jpg"]


def test_a_photo_that_is_turned_is_drawn_upright(run, tmp_path, picture, services):
    turned = Image.new("RGB", (200, 100))
    exif = turned.getexif()
    exif[274] = 6  # a quarter turn
    turned.save(tmp_path / "street.png", exif=exif)
    assert run("identify", "street.png", "--save-boxes", "boxes").returncode == 0
    assert drawn(tmp_path / "boxes/0001-street.jpg").size == (100, 200)


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("1.jpg", "that is a file; name a folder to write the photos to"),
        ("1.jpg/boxes", "1.jpg/boxes: Not a directory"),
        ("old", "there are files in it, with which these would mix; name an empty or a new folder"),
    ],
)
def test_a_folder_that_will_not_do_is_told_before_anything_is_sent(run, services, tmp_path, folder, told):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/0001-street.jpg").write_bytes(b"of an earlier command")
    done = run("identify", "1.jpg", "--save-boxes", folder)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"vmmr: error: --save-boxes {folder}: {told}\n")
    assert services.embedder.script.received == []
    assert (tmp_path / "old/0001-street.jpg").read_bytes() == b"of an earlier command"


@pytest.mark.parametrize("size", [(640, 480), (200, 100), (40, 300)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.9, 0.9, 1, 1), (0.95, 0, 1, 0.2)])
def test_the_answer_is_written_within_the_picture_wherever_the_car_is(size, box):
    """No part of the text is beyond an edge: it is the same text, to the pixel, as on a larger canvas."""
    picture, larger = (Image.new("RGB", each) for each in (size, (2000, 2000)))
    place = (int(box[0] * size[0]), int(box[1] * size[1]))
    text = "unsure (perhaps lamborghini gallardo lp570 4 superleggera 2012)"
    drawing._write(ImageDraw.Draw(picture), place, text, size, "#ff0000")
    drawing._write(ImageDraw.Draw(larger), place, text, size, "#ff0000")
    assert picture.getbbox() == larger.getbbox()
    assert is_coloured(picture.getpixel((picture.getbbox()[0], picture.getbbox()[1])))


def test_without_pillow_the_command_says_what_installs_it(environment, tmp_path, picture):
    import subprocess
    import sys

    script = "import sys; sys.modules['PIL'] = None; from vmmr._cli import main; main()"
    command = [sys.executable, "-c", script, "identify", "street.png"]
    settings = {
        "env": environment,
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "timeout": 60,
    }
    assert subprocess.run(command, check=False, **settings).returncode == 0, "nothing else needs it"
    done = subprocess.run([*command, "--save-boxes", "boxes"], check=False, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "vmmr: error: --save-boxes needs Pillow: pip install './client[draw]', in a checkout of vmmr\n"
    )
    assert not (tmp_path / "boxes").exists()
