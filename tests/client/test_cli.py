"""The `vmmr` command, as a process."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from vmmr._cli import main

COMMAND = str(Path(sys.executable).parent / "vmmr")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(services) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("VMMR_", "GRPC_VERBOSITY"))}
    return own | {"VMMR_EMBEDDER": services.embedder_target, "VMMR_SEARCH": services.search_target}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Runs the command in a folder with the photos 1.jpg to 3.jpg, and bad.jpg."""
    for n in (1, 2, 3):
        (tmp_path / f"{n}.jpg").write_bytes(b"%d" % n)
    (tmp_path / "bad.jpg").write_bytes(b"bad")

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=environment | variables,
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_identify_prints_an_aligned_table_with_as_many_neighbours_as_asked(run):
    done = run("identify", "1.jpg", "2.jpg", "-", "--neighbours", "1", stdin="3")
    assert done.stdout.splitlines() == [
        "PHOTO  MAKE  MODEL  LABEL  NEAREST  ANSWER",
        "1.jpg   90%    80%    70%    0.900  honda pilot 2001",
        "  0.9000  honda pilot 2001  photos/1.jpg",
        "2.jpg   90%    80%    70%    0.900  honda pilot 2002",
        "  0.9000  honda pilot 2002  photos/2.jpg",
        "-       90%    80%    70%    0.900  honda pilot 2003",
        "  0.9000  honda pilot 2003  photos/3.jpg",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_identify_json_prints_one_object_a_photo_with_everything(run):
    done = run("identify", "1.jpg", "bad.jpg", "2.jpg", "--json")
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert (first["photo"], first["answer"]) == (
        "1.jpg",
        {"label": "honda_pilot_2001", "make": "honda", "model": "pilot", "year": 2001},
    )
    assert first["label_confidence"] == 0.7
    assert first["neighbours"][1]["item_id"] == "item-2"
    assert first["provenance"]["index_version"] == "000001"
    assert first["times"]["embed"] == {"decode_ms": 1, "queue_ms": 2, "infer_ms": 3}
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
    assert missing == "vmmr: missing.jpg: [Errno 2] No such file or directory: 'missing.jpg'"


def test_a_photo_without_an_answer_says_so(run, services):
    from vmmr.search.v1 import search_pb2

    empty = search_pb2.ClassifyResponse(results=[search_pb2.Classification()])
    services.search.script.then(lambda *_: None, lambda *_: empty)
    done = run("identify", "1.jpg")
    assert done.stdout.splitlines()[1] == "1.jpg     -      -      -        -  no gallery photo to compare with"
    assert done.returncode == 0


def test_the_options_reach_the_services(run, services):
    done = run(
        *["identify", "1.jpg", "--crop", "0,0.25,0.5,1", "--k", "7", "--exact", "--nprobe", "8", "--ef-search", "64"],
        *["--make", "honda", "--make", "ford", "--model", "pilot", "--label", "a", "--min-year", "2000"],
        *["--max-year", "2005", "--timeout", "50"],
    )
    assert done.returncode == 0
    [embedded] = services.embedder.script.of("Embed")
    [classified] = services.search.script.of("Classify")
    crop, options = embedded.request.images[0].crop, classified.request.options
    assert (crop.left, crop.top, crop.right, crop.bottom) == (0, 0.25, 0.5, 1)
    assert (options.k, options.exact, options.nprobe, options.ef_search) == (7, True, 8, 64)
    assert (list(options.filter.makes), list(options.filter.models)) == (["honda", "ford"], ["pilot"])
    assert (list(options.filter.labels), options.filter.min_year, options.filter.max_year) == (["a"], 2000, 2005)
    assert 40 < embedded.time_left_s < 51


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


def test_info_prints_the_model_and_the_index(run):
    shown = [line.split() for line in run("info").stdout.splitlines()]
    assert ["model", "name", "fake-int8"] in shown
    assert ["model", "max", "images", "8"] in shown
    assert ["index", "items", "30"] in shown
    as_json = json.loads(run("info", "--json").stdout)
    assert as_json["model"]["limits"]["max_images"] == 8
    assert as_json["index"]["created"] == "2026-11-22 10:00:00+00:00"


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
        allowed, refused = run("identify", url, "--allow-private"), run("identify", "1.jpg", url)
        server.shutdown()
        thread.join()
    assert "honda pilot 2002" in allowed.stdout
    assert (
        refused.stderr
        == f"vmmr: {url}: 127.0.0.1 leads to 127.0.0.1, which is not a public address: allow_private permits it\n"
    )
    assert (allowed.returncode, refused.returncode) == (0, 1)


def test_a_service_that_cannot_be_reached_is_an_exit_code_of_its_own(run):
    done = run("identify", "1.jpg", VMMR_EMBEDDER="127.0.0.1:1")
    assert done.stdout == ""
    assert done.stderr.startswith("vmmr: error: embedder at 127.0.0.1:1 can't be reached: ")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 3


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("command", [["identify", "--batch", "2"], ["search"]])
def test_a_call_that_fails_ends_the_command_and_is_told_once(run, services, fail, command, form):
    services.search.script.marked[np.float32(2).tobytes()] = fail("MODEL_MISMATCH", "another model")
    done = run(*command, "bad.jpg", "1.jpg", *["2.jpg"] * 20, *form)
    assert "1" in done.stdout
    assert done.stderr.count("another model") == 1
    assert done.stderr.endswith(f"vmmr: error: search service at {services.search_target}: another model\n")
    assert len(services.embedder.script.of("Embed")) <= 4
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "variables", "complaint"),
    [
        (["info", "--timeout", "0"], {}, "argument --timeout: must be a number of seconds > 0, got '0'"),
        (["info"], {"VMMR_TIMEOUT": "soon"}, "argument --timeout: must be a number of seconds > 0, got 'soon'"),
        (["info"], {"VMMR_TLS": "yes"}, "VMMR_TLS must be 0 or 1, got 'yes'"),
        (["identify", "1.jpg", "--k", "-1"], {}, "argument --k: must be a whole number >= 1 and < 2**31, got '-1'"),
        (["identify", "1.jpg", "--crop", "1,2"], {}, "argument --crop: must be four fractions"),
        (["info", "--tls-cert", "c.pem"], {}, "give both cert and key, or neither"),
        (["info", "--tls-ca", "nowhere.pem"], {}, "No such file or directory: 'nowhere.pem'"),
        (["info", "--token-file", "nowhere"], {}, "No such file or directory: 'nowhere'"),
        (["info", "--embedder", "far.example:1"], {"VMMR_TOKEN": "t"}, "the token would be sent to far.example:1"),
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
    run("info", VMMR_TOKEN="from-environment")
    run("info", "--token-file", "token", VMMR_TOKEN="from-environment")
    tokens = [call.metadata["authorization"] for call in services.embedder.script.received]
    assert tokens == ["Bearer from-environment", "Bearer from-file"]


def test_failed_handshakes_leave_no_noise_beside_the_error(run):
    done = run("info", VMMR_TLS="1")
    assert done.stderr.startswith("vmmr: error: embedder at ")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 3


def test_an_interrupt_ends_it_at_once_and_quietly(environment, services, tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    waits, leave = threading.Event(), threading.Event()
    services.embedder.script.then(lambda *_: None, lambda *_: waits.set() or (leave.wait(30) and None))
    process = subprocess.Popen(
        [COMMAND, "identify", "1.jpg", "--timeout", "60"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waits.wait(30)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=10)
    leave.set()
    assert (process.returncode, output) == (130, ("", ""))


def test_a_reader_that_has_enough_ends_it_quietly(environment, tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1")
    process = subprocess.Popen(
        [COMMAND, "identify", "--batch", "1", *["1.jpg"] * 500],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), errors) == (141, "")


def test_version_and_help_are_there(run):
    assert run("--version").stdout.startswith("vmmr ")
    assert "exit codes:" in run("identify", "--help").stdout
