"""`deploy/audit.py`, as a process, with what pip-audit says here and there in the place of pip-audit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FINE = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {
    "name": "faiss-cpu",
    "skip_reason": "Dependency not found on PyPI and could not be audited: faiss-cpu (1.15.1)",
}
BAD = {"name": "h11", "version": "0.14.0", "vulns": [{"id": "CVE-2025-43859", "fix_versions": ["0.16.0"]}]}


@pytest.fixture
def audit(tmp_path):
    """`audit(program, flags)`: what deploy/audit.py says and exits with, where pip-audit is this program."""

    def run(program, *flags):
        (tmp_path / "pip_audit.py").write_text(program)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, ROOT / "deploy/audit.py", *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def says(*dependencies):
    """As pip-audit, which exits with 1 if there is a vulnerability, and with 0 if it could not ask."""
    known = any(each.get("vulns") for each in dependencies)
    return f"import sys\nprint({json.dumps({'dependencies': dependencies, 'fixes': []})!r})\nsys.exit({int(known)})"


@pytest.mark.parametrize("flags", [(), ("--required",)])
def test_packages_of_which_none_is_known_are_said_to_be_so(audit, flags):
    code, out, err = audit(says(FINE, FINE), *flags)
    assert (code, err) == (0, "")
    assert out == "no vulnerability is known of the 2 packages of constraints.txt\n"


@pytest.mark.parametrize("flags", [(), ("--required",)])
def test_a_vulnerability_fails_and_is_named_with_what_mends_it(audit, flags):
    code, _, err = audit(says(FINE, BAD, SKIPPED), *flags)
    assert code == 1
    assert "h11 0.14.0: CVE-2025-43859, mended in 0.16.0" in err


UNASKED = {
    "a package that PyPI did not tell of": says(FINE, SKIPPED),
    "no network": "raise ConnectionError('Failed to resolve pypi.org')",
    "no pip-audit": "raise ModuleNotFoundError('no pip_audit')",
    "no package in the report": says(),
    "an empty output": "",
}


@pytest.mark.parametrize("program", UNASKED.values(), ids=UNASKED)
def test_what_could_not_be_asked_is_never_said_to_be_fine(audit, program):
    code, out, err = audit(program)
    assert (code, out) == (0, "")
    assert err.startswith("NOT AUDITED for known vulnerabilities: ")
    assert audit(program, "--required")[0] == 1


def test_ci_demands_the_answer():
    makefile, workflow = (ROOT / "Makefile").read_text(), (ROOT / ".github/workflows/ci.yml").read_text()
    assert makefile.split("\ncheck:")[1].split("\n\n")[0].endswith("deploy/audit.py")
    assert "deploy/audit.py --required" in makefile.split("\naudit:")[1].split("\n\n")[0]
    assert "run: make audit" in workflow
