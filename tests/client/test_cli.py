"""The `vmmr` command, as a process."""

import json
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from vmmr._cli import main, report
from vmmr.search.v1 import search_pb2

from svckit.errors import Violation
from svckit.extras import install
from tests.client.conftest import COMMAND, TRIED_TWICE

DOCS = Path(__file__).parents[2] / "docs" / "client.md"


def test_identify_prints_an_aligned_table_with_as_many_neighbours_as_asked(run):
    done = run("identify", "1.jpg", "2.jpg", "-", "--neighbours", "1", stdin="3")
    assert done.stdout.splitlines() == [
        "PHOTO  MAKE  MODEL  LABEL  NEAREST   CAR  BOX                  ANSWER",
        "1.jpg   90%    80%    70%    0.900     -  -                    honda pilot 2001",
        "  0.9000  honda pilot 2001  photos/1.jpg",
        "2.jpg   90%    80%    70%    0.900     -  -                    honda pilot 2002",
        "  0.9000  honda pilot 2002  photos/2.jpg",
        "-       90%    80%    70%    0.900     -  -                    honda pilot 2003",
        "  0.9000  honda pilot 2003  photos/3.jpg",
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def judged(services):
    """A calibrated index: of the photos 1 to 4, it is sure, sure but for the year, unsure, and knows no such car."""
    unknown = {"verdict": search_pb2.VERDICT_UNKNOWN, "make_confidence": 0.99}
    services.search.says = {
        1: {"verdict": search_pb2.VERDICT_KNOWN},
        2: {"verdict": search_pb2.VERDICT_KNOWN, "first_year": 2001, "years_confidence": 0.75},
        3: {"verdict": search_pb2.VERDICT_UNSURE, "label_confidence": 0.5, "years_confidence": 0.5},
        4: {**unknown, "known_score": -1.5},
    }
    services.embedder.cars = {}


@pytest.mark.usefixtures("judged")
def test_no_unsure_or_unknown_photo_looks_like_an_answer(run):
    done = run("identify", "1.jpg", "2.jpg", "3.jpg", "-", "--min-confidence", "0.6", stdin="4")
    documented = re.search(r"^\$ vmmr identify .*\n((?:.+\n)+)```", DOCS.read_text(), re.MULTILINE)[1]
    assert done.stdout.splitlines()[:-1] == documented.splitlines()[:-1]
    assert done.stdout.splitlines()[-1] == (
        "-         -      -      -    0.900   88%  0.25,0.25,0.75,0.75  unknown (nearest: honda pilot 2004)"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("judged")
def test_json_tells_the_verdict_and_the_years(run):
    found = [json.loads(line) for line in run("identify", "2.jpg", "-", "--json", stdin="4").stdout.splitlines()]
    assert [each["verdict"] for each in found] == ["known", "unknown"]
    assert [each["known_score"] for each in found] == [None, -1.5]
    assert (found[0]["years"], found[0]["years_confidence"]) == ([2001, 2002], 0.75)


def test_several_photos_of_one_car_get_one_answer(run, services):
    done = run("identify", "--fuse", "3.jpg", "1.jpg", "--min-confidence", "0.25", "2.jpg", "--neighbours", "1")
    assert done.stdout.splitlines() == [
        "PHOTO       MAKE  MODEL  LABEL  NEAREST   CAR  BOX                  ANSWER",
        "3.jpg (+2)   90%    80%    70%    0.900     -  -                    honda pilot 2003",
        "  0.9000  honda pilot 2003  photos/3.jpg",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    [asked] = services.search.script.of("Classify")
    assert (asked.request.fuse, asked.request.min_confidence) == (True, 0.25)
    as_json = json.loads(run("identify", "--fuse", "3.jpg", "1.jpg", "--json").stdout)
    assert (as_json["photos"], as_json["answer"]["year"]) == (["3.jpg", "1.jpg"], 2003)
    assert "photo" not in as_json
    assert run("identify", "--fuse", "1.jpg").stdout.splitlines()[1].startswith("1.jpg   90%")


def test_a_car_with_a_bad_photo_gets_no_answer_and_each_is_named(run):
    done = run("identify", "--fuse", "1.jpg", "bad.jpg", "2.jpg", "bad.jpg")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", 2 * "vmmr: bad.jpg: content: not an image\n")
    done = run("identify", "--fuse", "1.jpg", "missing.jpg")
    missing = "vmmr: missing.jpg: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", missing)
    done = run("identify", "--fuse", "1.jpg", "bad.jpg", "--json")
    as_json = json.loads(done.stdout)
    assert (as_json["photos"], as_json["error"]["type"]) == (["1.jpg", "bad.jpg"], "InvalidPhotoError")
    assert done.returncode == 1


def test_a_car_has_no_more_photos_than_fit_in_a_request(run):
    done = run("identify", "--fuse", *["1.jpg"] * 9)
    assert done.stderr == (
        "vmmr: error: photos of one car must be 1 to 8, which the services accept, got more than 8\n"
    )
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("order", ["1.jpg --json 2.jpg", "--k 3 1.jpg --json 2.jpg", "1.jpg 2.jpg --json -- 3.jpg"])
def test_photos_and_flags_mix(run, order):
    shown = [json.loads(line)["photo"] for line in run("identify", *order.split()).stdout.splitlines()]
    assert shown == re.findall(r"\d.jpg", order)


def test_a_photo_may_be_called_as_a_flag_is(run, tmp_path):
    (tmp_path / "--json").write_bytes(b"3")
    done = run("identify", "--", "--json", "1.jpg", "-", stdin="2")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["PHOTO", "./--json", "1.jpg", "-"]


def test_a_flag_that_does_not_exist_is_a_usage_error_wherever_it_is(run):
    done = run("identify", "1.jpg", "--jsno", "2.jpg")
    assert done.returncode == 2
    assert "unrecognized arguments: --jsno" in done.stderr
    assert "the following arguments are required: PHOTO" in run("identify", "--json").stderr


def test_what_the_search_refuses_is_told_in_the_words_of_the_command_line(run, services, fail):
    faults = [
        Violation("options.filter.makes", "UNKNOWN_FILTER_VALUE", "no gallery photo has 'lada'"),
        Violation("options.k", "INVALID_K", "must be 1 to 100, got 101"),
        Violation("min_confidence", "INVALID_MIN_CONFIDENCE", ""),
    ]
    services.search.script.marked[b"lada"] = fail("UNKNOWN_FILTER_VALUE", violations=faults)
    done = run("identify", "1.jpg", "--make", "lada")
    told = (
        "--make: no gallery photo has 'lada'; --k: must be 1 to 100, got 101; --min-confidence: INVALID_MIN_CONFIDENCE"
    )
    assert (done.returncode, done.stderr) == (3, f"vmmr: error: {told}\n")
    services.search.script.marked[b"lada"] = fail(
        "MALFORMED_EMBEDDINGS", violations=[*faults, Violation("queries", "X", "y")]
    )
    assert run("search", "1.jpg", "--make", "lada").stderr.endswith(f"at {services.search_target}: on purpose\n")


def test_every_flag_of_a_search_is_known_by_its_field():
    fields = [*search_pb2.SearchOptions.DESCRIPTOR.fields_by_name, *search_pb2.Filter.DESCRIPTOR.fields_by_name]
    named = {field.rpartition(".")[2] for field in report._FLAGS}
    assert named == {*fields, "min_confidence"} - {"filter", "exact", "allow_partial", "min_sequence"}, (
        "but for those that are yes or no, and what a program alone knows"
    )


def test_identify_json_prints_one_object_a_photo_with_everything(run):
    done = run("identify", "1.jpg", "bad.jpg", "2.jpg", "--json")
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert (first["labels"][0]["nearest_score"], first["labels"][0]["mean_similarity"]) == (0.75, 0.0)
    assert (first["photo"], first["answer"]) == (
        "1.jpg",
        {"label": "honda_pilot_2001", "make": "honda", "model": "pilot", "year": 2001},
    )
    assert first["label_confidence"] == 0.7
    assert first["neighbours"][1]["item_id"] == "item-2"
    assert first["provenance"]["index_version"] == "000001"
    assert first["times"]["embed"] == {"decode_ms": 1, "queue_ms": 2, "infer_ms": 3, "detect_ms": 0}
    assert second["photo"] == "bad.jpg"
    assert second["error"]["type"] == "InvalidPhotoError"
    assert second["error"]["violations"] == [
        {"field": "content", "reason": "IMAGE_FORMAT", "description": "not an image"}
    ]
    assert third["answer"]["year"] == 2002
    assert (done.returncode, done.stderr) == (1, "")


def test_a_bad_photo_costs_the_exit_code_and_no_other_photo(run):
    done = run("identify", "1.jpg", "bad.jpg", "missing.jpg", "2.jpg")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["PHOTO", "1.jpg", "2.jpg"]
    assert done.returncode == 1
    bad, missing = done.stderr.splitlines()
    assert bad == "vmmr: bad.jpg: content: not an image"
    assert missing == "vmmr: missing.jpg: No such file or directory"


def test_a_photo_without_an_answer_says_so(run, services):
    empty = search_pb2.ClassifyResponse(results=[search_pb2.Classification()])
    services.search.script.then(lambda *_: None, lambda *_: empty)
    done = run("identify", "1.jpg")
    assert (
        done.stdout.splitlines()[1]
        == "1.jpg     -      -      -        -     -  -                    no gallery photo to compare with"
    )
    assert done.returncode == 0


def test_the_options_reach_the_services(run, services):
    done = run(
        *["identify", "1.jpg", "--crop", "0,0.25,0.5,1", "--k", "7", "--exact", "--nprobe", "8", "--ef-search", "64"],
        *["--rerank", "4", "--allow-partial", "--shard-timeout", "0.25"],
        *["--make", "honda", "--make", "ford", "--model", "pilot", "--label", "a", "--min-year", "2000"],
        *["--max-year", "2005", "--timeout", "3600"],
    )
    assert done.returncode == 0
    [embedded] = services.embedder.script.of("Embed")
    [classified] = services.search.script.of("Classify")
    crop, options = embedded.request.images[0].crop, classified.request.options
    assert (crop.left, crop.top, crop.right, crop.bottom) == (0, 0.25, 0.5, 1)
    assert (options.k, options.exact, options.nprobe, options.ef_search) == (7, True, 8, 64)
    assert (options.rerank, options.allow_partial, options.shard_timeout_ms) == (4, True, 250)
    assert (list(options.filter.makes), list(options.filter.models)) == (["honda", "ford"], ["pilot"])
    assert (list(options.filter.labels), options.filter.min_year, options.filter.max_year) == (["a"], 2000, 2005)
    assert 3000 < embedded.time_left_s < 3620  # gRPC rounds a long one up


def test_search_prints_the_neighbours_of_each_photo(run):
    done = run("search", "1.jpg", "bad.jpg", "3.jpg")
    assert done.stdout.splitlines() == [
        "1.jpg",
        "  0.9000  honda pilot 2001  photos/1.jpg",
        "3.jpg",
        "  0.9000  honda pilot 2003  photos/3.jpg",
    ]
    assert done.stderr.startswith("vmmr: bad.jpg: ")
    assert done.returncode == 1
    as_json = json.loads(run("search", "1.jpg", "--json").stdout)
    assert (as_json["photo"], as_json["neighbours"][0]["item_id"]) == ("1.jpg", "item-1")
    assert as_json["provenance"]["shards_total"] == 2


def test_an_answer_that_lacks_part_of_the_gallery_says_so(run, services):
    services.search.shards_answered = 1
    assert run("identify", "1.jpg").stdout.splitlines()[1].endswith("  honda pilot 2001 (from 1 of 2 shards)")
    assert run("search", "1.jpg").stdout.splitlines()[0] == "1.jpg (from 1 of 2 shards)"
    for command in ("identify", "search"):
        assert json.loads(run(command, "1.jpg", "--json").stdout)["provenance"]["shards_answered"] == 1


def test_info_prints_the_model_and_the_index(run):
    shown = [line.split() for line in run("info").stdout.splitlines()]
    assert ["model", "name", "fake-int8"] in shown
    assert ["model", "max", "images", "8"] in shown
    assert ["index", "items", "30"] in shown
    assert ["index", "nprobe", "8"] in shown
    assert not [line for line in shown if "ef" in line or "rerank" in line], "it was built with neither"
    assert ["calibration", "none:"] in [line[:2] for line in shown]
    as_json = json.loads(run("info", "--json").stdout)
    assert as_json["index"]["calibration"] is None
    assert as_json["model"]["limits"]["max_images"] == 8
    assert as_json["index"]["created"] == "2026-11-22 10:00:00+00:00"


def test_info_warns_of_an_index_that_the_service_cannot_follow(run, services):
    services.search.problem = "journal.db: damaged"
    done = run("info")
    assert "vmmr: warning: the search service answers from what it had: journal.db: damaged" in done.stderr
    assert done.returncode == 0


def test_info_warns_of_changes_that_the_gallery_has_lost(run, services):
    assert run("info").stderr == ""
    services.search.lost_entries = 1
    assert run("info").stderr == "vmmr: warning: the gallery has lost 1 change that was acknowledged\n"
    services.search.lost_entries = 3
    for done in (run("info"), run("info", "--json")):
        assert done.stderr == "vmmr: warning: the gallery has lost 3 changes that were acknowledged\n"
        assert done.returncode == 0
    assert json.loads(done.stdout)["index"]["lost_entries"] == 3


def test_info_prints_the_calibration_and_warns_of_different_models(run, services):
    services.search.calibration = search_pb2.Calibration(photos=300, false_alarm_rate=0.05, unknown_threshold=0.3)
    done = run("info")
    shown = [line.split() for line in done.stdout.splitlines()]
    assert (["calibration", "photos", "300"] in shown, done.stderr) == (True, "")
    assert ["index", "model", "ab" * 32, "(the", "embedder's)"] in shown
    assert ["calibration", "unknown", "threshold", "0.3"] in shown
    services.search.model = "cd" * 32
    for done in (run("info"), run("info", "--json")):
        warning = (
            "vmmr: warning: the embedder serves the model abababababab (model fingerprint), but the index was built with cdcdcdcdcdcd "
            "(index model): photos can't be identified until both are of one model: have the embedder serve that of the index, or "
            "embed the gallery anew for the embedder's with `vmmr-search migrate`\n"
        )
        assert done.stderr == warning
        assert done.returncode == 0
    assert json.loads(done.stdout)["index"]["calibration"]["photos"] == 300
    assert ["index", "model", "cd" * 32, "(another", "than", "the", "embedder's)"] in [
        line.split() for line in run("info").stdout.splitlines()
    ]


def test_labels_prints_each_label_and_its_photos(run):
    assert run("labels").stdout.splitlines() == [
        "LABEL             MAKE   MODEL  YEAR  PHOTOS",
        "honda_pilot_2000  honda  pilot  2000  10",
        "honda_pilot_2001  honda  pilot  2001  10",
        "honda_pilot_2002  honda  pilot  2002  10",
    ]
    assert [json.loads(line)["items"] for line in run("labels", "--json").stdout.splitlines()] == [10, 10, 10]


def test_a_url_is_fetched_but_not_from_a_private_address_unless_allowed(run):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n2")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/2.jpg"
        shouted = url.replace("http", "HTTP")
        allowed, refused = run("identify", shouted, "--allow-private"), run("identify", "1.jpg", url)
        server.shutdown()
        thread.join()
    assert "honda pilot 2002" in allowed.stdout
    assert (
        refused.stderr == f"vmmr: {url}: 127.0.0.1 leads to 127.0.0.1, which is not a public address: "
        "--allow-private permits it\n"
    )
    assert (allowed.returncode, refused.returncode) == (0, 1)


def test_a_service_that_cannot_be_reached_is_an_exit_code_of_its_own(run):
    twice = (sys.executable, "-c", TRIED_TWICE, COMMAND)
    done = run("identify", "1.jpg", command=twice, VMMR_EMBEDDER="127.0.0.1:1")
    assert done.stdout == ""
    waits, failed = done.stderr.splitlines()
    said = "no vmmr server answers at 127.0.0.1:1 (embedder): Failed to connect to remote host: Connection refused"
    assert re.fullmatch(re.escape(f"vmmr: {said}; trying again for up to ") + r"\d+\.\d s", waits)
    assert failed == f"vmmr: error: {said}"
    assert done.returncode == 3


SENT = {"identify": {3, 4, 5}, "search": {3}}
"""The bad photo's request, the same without it, and the one that fails. Two more batches may have been sent by the time that it
is known: three are under way at most."""


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("command", [["identify", "--batch", "2"], ["search"]])
def test_a_call_that_fails_ends_the_command_and_is_told_once(run, services, fail, command, form):
    services.search.script.marked[np.float32(2).tobytes()] = fail("MODEL_MISMATCH", "another model")
    done = run(*command, "bad.jpg", "1.jpg", *["2.jpg"] * 20, *form)
    assert "1" in done.stdout
    assert done.stderr.count("another model") == 1
    assert done.stderr.endswith(f"vmmr: error: search service at {services.search_target}: another model\n")
    assert len(services.embedder.script.of("Embed")) in SENT[command[0]]
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "variables", "complaint"),
    [
        (["info", "--timeout", "0"], {}, "argument --timeout: must be a number of seconds > 0, got '0'"),
        (["info"], {"VMMR_TIMEOUT": "soon"}, "argument --timeout: must be a number of seconds > 0, got 'soon'"),
        (["info"], {"VMMR_TLS": "yes"}, "VMMR_TLS must be 0 or 1, got 'yes'"),
        (["info"], {"VMMR_TLS": "yes"}, "vmmr info: error: argument --tls: VMMR_TLS must be 0 or 1"),
        (
            ["identify", "1.jpg", "--min-confidence", "1.1"],
            {},
            "--min-confidence: must be a number from 0 to 1, got '1.1'",
        ),
        (
            ["identify", "1.jpg", "--min-confidence", "nan"],
            {},
            "--min-confidence: must be a number from 0 to 1, got 'nan'",
        ),
        (["identify", "1.jpg", "--k", "-1"], {}, "argument --k: must be a whole number >= 1 and < 2**31, got '-1'"),
        *(
            (
                [command, "1.jpg", f"--crop={crop}"],
                {},
                (
                    f"argument --crop: must be left,top,right,bottom as fractions of the photo, "
                    f"each 0 to 1, left < right and top < bottom, for example 0.1,0.2,0.9,1, got {crop!r}"
                ),
            )
            for command in ("identify", "search", "add")
            for crop in (
                "1,2",
                "0,0,1,1.5",
                "-0.1,0,1,1",
                "0.5,0,0.5,1",
                "0,1,1,0",
                "nan,0,1,1",
                "0,0,640,480",
                "a,b,c,d",
            )
        ),
        (["info", "--tls-cert", "c.pem"], {}, "give both --tls-cert and --tls-key, or neither"),
        (["info", "--tls-ca", "nowhere.pem"], {}, "vmmr: error: nowhere.pem: No such file or directory"),
        (["info", "--token-file", "nowhere"], {}, "vmmr: error: nowhere: No such file or directory"),
        (
            ["info", "--embedder", "far.example:1"],
            {"VMMR_TOKEN": "t"},
            "the token would be sent to far.example:1 in the clear: give --tls or --tls-ca",
        ),
        (["info", "--embedder", "http://far.example:1"], {}, "is not host:port: leave out http://; write it like "),
        (
            ["info"],
            {"VMMR_SEARCH": "far.example"},
            "'far.example' is not host:port: the port is missing; write it like ",
        ),
        ([], {}, "the following arguments are required: COMMAND"),
    ],
)
def test_a_command_line_or_environment_that_makes_no_sense_is_explained(
    monkeypatch, capsys, arguments, variables, complaint
):
    monkeypatch.setattr(sys, "argv", ["vmmr", *arguments])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    assert complaint in capsys.readouterr().err.replace("\n", " ")
    assert ended.value.code == 2


def test_the_token_is_read_from_a_file_or_the_environment(run, services, tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    run("info", VMMR_TOKEN="from-environment\n")
    run("info", "--token-file", "token", VMMR_TOKEN="from-environment")
    tokens = [call.metadata["authorization"] for call in services.embedder.script.received]
    assert tokens == ["Bearer from-environment", "Bearer from-file"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\n", "is empty"),
        (b"\x80\x81\n", "is no token: it must be one line of printable ASCII characters"),
        (b"one\ntwo\n", "is no token: it must be one line of printable ASCII characters"),
    ],
)
def test_a_file_without_a_token_to_send_is_told_by_name(run, tmp_path, content, told):
    (tmp_path / "token").write_bytes(content)
    done = run("info", "--token-file", "token")
    assert (done.returncode, done.stderr) == (2, f"vmmr: error: token file token: {told}\n")


@pytest.mark.parametrize(
    ("retry_after_s", "when"),
    [(1592.991, "27 minutes"), (100, "100 seconds"), (70.2, "71 seconds"), (61 * 120, "3 hours")],
)
def test_who_has_to_wait_is_told_how_long(run, services, fail, retry_after_s, when):
    services.embedder.script.then(
        fail("QUOTA_EXCEEDED", "shop may have 1 photos a second", retry_after_s=retry_after_s)
    )
    done = run("identify", "1.jpg")
    assert done.returncode == 3
    assert done.stderr.endswith(f"shop may have 1 photos a second; try again in {when}\n")


def test_failed_handshakes_leave_no_noise_beside_the_error(run):
    done = run("info", VMMR_TLS="1")
    assert re.fullmatch(r"vmmr: error: embedder at \S+ does not speak TLS: .*\n", done.stderr)
    assert done.returncode == 3


def test_an_interrupt_ends_it_at_once_and_quietly(environment, services, tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    waits, leave = threading.Event(), threading.Event()
    services.embedder.script.then(lambda *_: None, lambda *_: waits.set() or (leave.wait(60) and None))
    process = subprocess.Popen(
        [COMMAND, "identify", "1.jpg", "--timeout", "600"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waits.wait(60)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)
    leave.set()
    assert (process.returncode, output) == (130, ("", ""))


def test_a_reader_that_has_enough_ends_it_quietly(environment, services, tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    (tmp_path / "2.jpg").write_bytes(b"2222")
    left = threading.Event()
    services.embedder.script.marked[b"2222"] = lambda *_: None if left.wait(60) else 1 / 0
    process = subprocess.Popen(
        [COMMAND, "identify", "--batch", "1", "1.jpg", *["2.jpg"] * 9],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    left.set()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), errors) == (141, "")


def test_version_and_help_are_there(run):
    assert run("--version").stdout.startswith("vmmr ")
    assert "exit codes:" in run("identify", "--help").stdout


def test_loadtest_says_what_to_install_where_it_is_not(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["vmmr", "loadtest", "embed", "--rate", "1"])
    monkeypatch.setattr("vmmr._cli.command.entry_points", lambda **_: ())
    with pytest.raises(SystemExit) as ended:
        main()
    told = f"vmmr: error: loadtest is not installed: {install('loadtest')}\n"
    assert (ended.value.code, *capsys.readouterr()) == (2, "", told)
