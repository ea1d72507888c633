"""`protos/generate.py`: the stubs are those of the protos, and the protos break nobody who was built with what has landed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grpc_tools", reason="the extra dev, which generates the stubs, is not installed")

PROTO = Path("protos/vmmr/embedding/v1/embedding.proto")
LANDED = Path("protos/landed.binpb")
NO_CAR = "  bool no_car_found = 6;\n"


@pytest.fixture
def checkout(root, tmp_path) -> Path:
    """The protos and their stubs, to change."""
    shutil.copytree(root / "protos", tmp_path / "protos")
    shutil.copy(root / "buf.yaml", tmp_path)
    for stubs in {path.parent for path in (root / "client/vmmr").glob("*/v[12]")}:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(stubs, tmp_path / stubs.relative_to(root), ignore=ignored)
    return tmp_path


def generate(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, checkout / "protos/generate.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def replace(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_what_is_committed_passes(checkout):
    done = generate(checkout, "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--check"], []], ids=["check", "generate"])
@pytest.mark.parametrize(
    ("new", "told"),
    [
        ("", '"6" with name "no_car_found"'),
        (NO_CAR.replace("6", "7"), '"6"'),
        (NO_CAR.replace("bool", "string"), '"6"'),
    ],
    ids=["removed", "renumbered", "of another type"],
)
def test_a_field_that_has_landed_and_is_changed_fails_and_nothing_is_renewed(checkout, arguments, new, told):
    landed = (checkout / LANDED).read_bytes()
    stubs = {path: path.read_bytes() for path in checkout.glob("client/vmmr/*/v1/*.py*")}
    replace(checkout / PROTO, NO_CAR, new)
    done = generate(checkout, *arguments)
    assert done.returncode == 1
    assert told in done.stdout + done.stderr
    assert "break what has landed" in done.stderr
    assert (checkout / LANDED).read_bytes() == landed
    assert {path: path.read_bytes() for path in stubs} == stubs


def test_a_new_field_lands_with_the_stubs_and_is_then_kept(checkout):
    replace(checkout / PROTO, NO_CAR, f"{NO_CAR}\n  // New.\n  bool novel = 7;\n")
    assert "stale stubs" in generate(checkout, "--check").stderr
    assert generate(checkout).returncode == 0
    assert generate(checkout, "--check").returncode == 0
    replace(checkout / PROTO, "\n  // New.\n  bool novel = 7;\n", "")
    assert '"novel"' in generate(checkout, "--check").stdout


def test_contracts_that_did_not_land_with_the_stubs_are_told(checkout):
    before = (checkout / LANDED).read_bytes()
    replace(checkout / PROTO, NO_CAR, f"{NO_CAR}\n  // New.\n  bool novel = 7;\n")
    assert generate(checkout).returncode == 0
    (checkout / LANDED).write_bytes(before)
    assert "landed.binpb is stale" in generate(checkout, "--check").stderr
