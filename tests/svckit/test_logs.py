import asyncio
import json
import logging
from pathlib import Path

import pytest

from svckit import logs

log = logging.getLogger("some.where")


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs._tags.clear()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_has_time_level_logger_message_and_the_extras(capsys):
    logs.configure("info", "json")
    log.info("listening", extra={"port": 7})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "INFO", "logger": "some.where", "message": "listening", "port": 7}


def test_a_json_line_carries_the_traceback_and_stays_one_line(capsys):
    logs.configure("info", "json")
    log.error("failed", exc_info=ValueError("two\nlines"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: two\nlines" in json.loads(line)["exc_info"]


def test_a_json_line_holds_extras_of_any_type_and_characters(capsys):
    logs.configure("info", "json")
    log.info(
        "%s opened", "index", extra={"path": Path("a/b"), "labels": ["Citro\u00ebn", 7], "error": ValueError("no")}
    )
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == "index opened"
    assert (line["path"], line["labels"], line["error"]) == ("a/b", ["Citro\u00ebn", 7], "no")


@pytest.mark.parametrize("form", logs.FORMATS)
def test_no_line_has_what_lets_somebody_in_by_a_url(capsys, form):
    logs.configure("info", form)
    url = "https://me:hidden@host/x?key=hidden"
    error = ValueError(f"{url}: no")
    about = {"place": url, "all": [url, {"one": url}], "error": error, "path": Path("s3://me:hidden@bucket/x"), "n": 1}
    log.error("asked %s", url, extra=about, exc_info=error)
    said = capsys.readouterr().err
    assert "hidden" not in said
    assert said.count("host/x") >= 5
    assert "me:" not in said
    if form == "json":
        line = json.loads(said)
        assert (line["n"], line["place"], line["path"]) == (1, "https://host/x?...", "s3:/bucket/x")


def test_text_has_the_extras_too(capsys):
    logs.configure("info", "text")
    log.warning("full", extra={"waiting": 8})
    assert capsys.readouterr().err.endswith("WARNING some.where: full waiting=8\n")


@pytest.mark.parametrize("form", logs.FORMATS)
def test_fields_that_a_library_adds_to_every_record_are_left_out(capsys, form):
    logs.configure("info", form)
    log.warning("full", extra={"_of_a_library": "ours"})
    assert "ours" not in capsys.readouterr().err


def test_lines_below_the_level_are_left_out(capsys):
    logs.configure("warning", "json")
    log.info("quiet")
    assert capsys.readouterr().err == ""


async def test_every_line_of_a_call_carries_its_request_id(capsys):
    logs.configure("info", "json")

    async def call(request_id):
        logs.request_id.set(request_id)
        await asyncio.sleep(0)
        log.info("inside")

    await asyncio.gather(call("a"), call("b"))
    log.info("outside")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line.get("request_id") for line in lines] == ["a", "b", None]


def test_a_tag_is_on_every_line_unless_the_line_has_its_own(capsys):
    logs.configure("info", "json")
    logs.tag(worker=3)
    log.info("listening")
    log.info("worker ended", extra={"worker": 1})
    assert [json.loads(line)["worker"] for line in capsys.readouterr().err.splitlines()] == [3, 1]
