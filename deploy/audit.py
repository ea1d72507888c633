"""Ask whether vulnerabilities are known of the packages in the images: `make audit`, and without `--required` a part of `make check`.

pip-audit asks PyPI. Where it cannot, it skips a package and says "No known vulnerabilities found"; here that is said to be unknown.
Exit with 1 if a vulnerability is known; with `--required` also if any package could not be asked about.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PINS = Path(__file__).parent / "constraints.txt"
_LONGEST_S = 300


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--required", action="store_true", help="fail if packages could not be asked about")
    required: bool = parser.parse_args(arguments).required
    try:
        report = asked()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        not_audited(f"{PINS.name}: {error}", required=required)
        return
    if found := vulnerabilities(report):
        sys.exit("\n".join(found))
    if skipped := [
        f"{each['name']}: {each['skip_reason']}" for each in report["dependencies"] if "skip_reason" in each
    ]:
        not_audited(
            f"{len(skipped)} of {len(report['dependencies'])} packages, the first {skipped[0]}", required=required
        )
        return
    print(f"no vulnerability is known of the {len(report['dependencies'])} packages of {PINS.name}")


def asked() -> Mapping[str, Any]:
    """Return pip-audit's report. Raise ValueError if it gave none, and what subprocess raises."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINS)]
    run = subprocess.run(
        [*command, "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"],
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    try:
        report: Mapping[str, Any] = json.loads(run.stdout)
    except ValueError as error:
        last = run.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"pip-audit ended with {run.returncode} and no report: {last}") from error
    if not report.get("dependencies"):
        raise ValueError("pip-audit's report names no package")
    return report


def vulnerabilities(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each vulnerability that is known."""
    return [
        f"{each['name']} {each['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version yet'}"
        for each in report["dependencies"]
        for known in each.get("vulns", [])
    ]


def not_audited(what: str, *, required: bool) -> None:
    """Say loudly that it is not known whether there are vulnerabilities; exit with 1 if it must be."""
    print(f"NOT AUDITED for known vulnerabilities: {what}", file=sys.stderr)
    if required:
        sys.exit(1)


if __name__ == "__main__":
    main()
