"""`vmmr-search migrate`: what is wrong with its arguments."""

import argparse

import pytest

from search_svc.building import migrate_command
from svckit.cli import CommandError


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file or directory"),
        (b"\n", "is empty"),
        (b"\x80\n", "is no token: it must be one line of printable ASCII characters"),
        (b"one\ntwo\n", "is no token: it must be one line of printable ASCII characters"),
    ],
)
def test_a_file_without_a_token_to_send_is_told_by_name(tmp_path, content, told):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    parser = argparse.ArgumentParser()
    migrate_command.add(parser.add_subparsers())
    args = parser.parse_args(["migrate", "index", "new", "--embedder", "127.0.0.1:1", "--token-file", str(path)])
    with pytest.raises(CommandError) as caught:
        args.run(args)
    assert str(caught.value) == f"token file {path}: {told}"
