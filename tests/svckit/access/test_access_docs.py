"""The page about access says what is so."""

import argparse
import dataclasses
import json
import re
from pathlib import Path

from svckit.access import access, audit, token_command
from svckit.access.callers import ROLES, Limits
from svckit.access.callers_file import parse
from svckit.access.settings import AccessConfig

PAGE = (Path(__file__).parents[3] / "docs/access.md").read_text()


def test_the_file_on_the_page_is_one_that_is_taken():
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    callers = parse(example.encode())
    assert callers.by_name.keys() == {"importer", "shop"}
    assert callers.by_certificate
    assert callers.by_subject
    assert callers.by_token


def test_every_role_and_every_limit_has_a_row():
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(named) == {*ROLES, *(field.name for field in dataclasses.fields(Limits))}


def test_every_setting_is_named():
    flags = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(AccessConfig)}
    assert flags <= set(re.findall(r"--[a-z-]+", PAGE))


def test_the_commands_on_the_page_are_real():
    parser = argparse.ArgumentParser()
    token_command.add(parser.add_subparsers())
    lines = re.findall(r"^vmmr-search (token .*?) > ", PAGE, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        parser.parse_args(line.split())


def test_the_lines_of_the_log_on_the_page_are_json_and_its_numbers_true():
    lines = [json.loads(line) for line in re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)]
    assert [line["outcome"] for line in lines] == ["OK", "PERMISSION_DENIED"]
    assert f"`FILE.{audit.KEPT}`" in PAGE
    assert (access._STRANGERS_PER_S, access._KNOWN_PER_S, access._REFUSALS_AT_ONCE) == (1, 10, 100)
    assert "a line a second at most" in PAGE
    assert "ten a second" in PAGE
    assert "a hundred of either kind at once" in PAGE


def test_the_log_holds_refusals_for_as_long_as_the_page_says():
    room = (audit.KEPT + 1) * AccessConfig().audit_bytes
    assert f"{room // (500 * access._STRANGERS_PER_S * 86400)} days of nothing but strangers" in PAGE
    hours = room // (500 * access._KNOWN_PER_S * 3600)
    assert f"{hours} hours of known callers" in PAGE
