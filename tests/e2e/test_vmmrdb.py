"""The chain of commands on photos of VMMRdb as they are, with the model that ships. Skips where the photos are not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EACH = 8
"""Photos of each label: of the stratified split one is for test."""


@pytest.fixture
def sample(root, tmp_path):
    photos = root.parent / "shared" / "data" / "vmmrdb_sample"
    if not photos.is_dir():
        pytest.skip(f"the photos of VMMRdb are not in {photos}")
    for label in sorted(photos.iterdir()):
        (tmp_path / "VMMRdb" / label.name).mkdir(parents=True)
        for photo in sorted(label.iterdir())[:EACH]:
            shutil.copy(photo, tmp_path / "VMMRdb" / label.name)
    return tmp_path / "VMMRdb"


def run(*command, cwd):
    """Run a command of vmmr, and return what it writes to stderr."""
    program, *argv = command
    path = Path(sys.executable).with_name(program)
    return subprocess.run([path, *argv], cwd=cwd, check=True, capture_output=True, text=True, timeout=300).stderr


def test_photos_of_vmmrdb_are_fetched_split_embedded_built_and_found(sample, tmp_path):
    """Each step but the first is the one that the step before it named."""
    told = run("vmmr-search", "fetch", "vmmrdb", "cars", "--archive", sample, "--accept-terms", cwd=tmp_path)
    for more in (["--scheme", "stratified"], [], []):
        following = next(line for line in told.splitlines() if line.startswith("next: "))
        told = run(*following.removeprefix("next: ").split(), *more, cwd=tmp_path)
    steps = [line.removeprefix("next: ").split() for line in told.splitlines() if line.startswith("next: ")]
    assert [step[:2] for step in steps] == [["vmmr-search", "evaluate"], ["vmmr-search", "serve"]]
    run(*steps[0], "--json", "report.json", cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["photos"], report["labels"]) == (4, 4)
    (make,) = [each for each in report["scores"] if (each["level"], each["measure"]) == ("make", "vote, top-1")]
    assert make["value"] >= 0.75
