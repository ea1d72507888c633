"""`vmmr-search token`, and the file that it writes."""

import argparse
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from svckit.access import token_command
from svckit.access.callers import Role
from svckit.access.callers_file import parse
from svckit.cli import CommandError


@pytest.fixture
def make(tmp_path, capsys):
    """Runs the command; gives the token that it prints."""

    def run(*flags):
        parser = argparse.ArgumentParser()
        token_command.add(parser.add_subparsers())
        args = parser.parse_args(["token", str(tmp_path / "callers.toml"), *flags])
        args.run(args)
        return capsys.readouterr().out.strip()

    return run


def found(tmp_path, token):
    return parse((tmp_path / "callers.toml").read_bytes()).by_token[hashlib.sha256(token.encode()).hexdigest()]


def test_a_new_caller_is_listed_with_a_token_of_which_the_file_has_the_hash_alone(make, tmp_path):
    token = make("acme.importer", "--role", "enrol", "--expires", "3001-01-02")
    held = found(tmp_path, token)
    assert (held.caller.name, held.caller.role, held.expires) == ("acme.importer", Role.ENROL, 32535302400)
    assert token.startswith("vmmr_")
    assert len(token) > 40
    assert token not in (tmp_path / "callers.toml").read_text()


def test_a_second_token_of_a_caller_leaves_the_first_and_what_was_written_by_hand(make, tmp_path):
    first = make("shop", "--role", "query")
    text = (tmp_path / "callers.toml").read_text().replace('role = "query"', 'role = "query"  # ours\nmax_k = 5')
    (tmp_path / "callers.toml").write_text(text.rstrip("\n"))
    second = make("shop")
    assert found(tmp_path, first).caller == found(tmp_path, second).caller
    assert found(tmp_path, first).caller.limits.max_k == 5
    assert "# ours" in (tmp_path / "callers.toml").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("new",), "does not list new: give --role"),
        (("shop", "--role", "admin"), "shop has the role query: change it there"),
        (("a b", "--role", "query"), "a name has 1 to 128"),
    ],
)
def test_what_cannot_be_is_told_and_writes_nothing(make, tmp_path, flags, message):
    make("shop", "--role", "query")
    before = (tmp_path / "callers.toml").read_text()
    with pytest.raises(CommandError, match=message):
        make(*flags)
    assert (tmp_path / "callers.toml").read_text() == before


def test_a_broken_file_is_named_and_stays_as_it_is(make, tmp_path):
    (tmp_path / "callers.toml").write_text("[caller")
    with pytest.raises(CommandError, match=r"callers\.toml: is not TOML"):
        make("shop", "--role", "query")
    assert (tmp_path / "callers.toml").read_text() == "[caller"


@pytest.mark.parametrize("content", ["", "# our callers\n"])
def test_a_file_that_lists_nobody_yet_is_added_to(make, tmp_path, content):
    (tmp_path / "callers.toml").write_text(content)
    token = make("shop", "--role", "query")
    assert found(tmp_path, token).caller.name == "shop"
    assert (tmp_path / "callers.toml").read_text().startswith(content)


def test_a_day_that_is_none_is_refused(make, capsys):
    with pytest.raises(SystemExit):
        make("shop", "--role", "query", "--expires", "soon")
    assert "must be a date such as 2027-06-01, got 'soon'" in capsys.readouterr().err


@pytest.mark.parametrize("days", [0, -1, -20_000])
def test_a_day_that_has_begun_is_refused_and_writes_nothing(make, tmp_path, days):
    day = datetime.now(UTC).date() + timedelta(days)
    with pytest.raises(CommandError, match=rf"--expires must be a day after today, .* \(UTC\), .*, got {day}$"):
        make("shop", "--role", "query", "--expires", str(day))
    assert not (tmp_path / "callers.toml").exists()


def test_a_file_that_was_not_there_is_told_of(tmp_path, capsys):
    for name in ("shop", "importer"):
        parser = argparse.ArgumentParser()
        token_command.add(parser.add_subparsers())
        args = parser.parse_args(["token", str(tmp_path / "callers.toml"), name, "--role", "query"])
        args.run(args)
    first, second = capsys.readouterr().err.splitlines()
    assert "callers.toml: made, it was not there; shop has one more token" in first
    assert "callers.toml: importer has one more token" in second
