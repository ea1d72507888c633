"""The demo as its user runs it."""

import re
import subprocess
import sys


def test_it_goes_from_a_folder_of_photos_to_answers(photos, tmp_path):
    command = [sys.executable, "-m", "demo", "--photos", photos, "--work", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=550)
    assert (done.returncode, done.stderr) == (0, "")
    steps = re.findall(r"^  (\w+) +.* \d+\.\d s$", done.stdout, re.MULTILINE)
    assert steps == ["split", "embed", "build", "evaluate", "serve", "identify", "compare", "stop"]
    assert len(re.findall(r"^  [✓✗] ", done.stdout, re.MULTILINE)) == 4
    assert "vote, top-1" in done.stdout


def test_a_mistake_is_told_in_a_few_lines(tmp_path):
    command = [sys.executable, "-m", "demo", "--photos", tmp_path / "nowhere", "--work", tmp_path / "work"]
    failed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert failed.stderr.startswith("demo: error: vmmr-search split ended with exit code 1\n")
    assert "Traceback" not in failed.stderr
