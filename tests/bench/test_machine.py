"""Every bench that stores a result stores the machine and the versions with it."""

import pytest

from bench.lib.paths import ROOT

STORE = [
    path
    for path in sorted((ROOT / "bench").glob("*/*.py"))
    if path.parent.name != "lib" and "json.dumps(" in path.read_text()
]


@pytest.mark.parametrize("path", STORE, ids=lambda path: path.stem)
def test_a_result_has_the_machine(path):
    assert "machine.describe(" in path.read_text()


def test_there_are_such_benches():
    assert len(STORE) > 15
