"""What the tests of exporting share."""

import pytest


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """`npm(script)` puts a program of that name, and no other npm, on the PATH."""

    def install(script):
        program = tmp_path / "bin" / "npm"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return install
