"""Runs one target, for `python -m tests.fuzz`: `python -m tests.fuzz.child TARGET EXECUTIONS SEED FINDINGS SECONDS`."""

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import atheris  # not of the extra dev: 35 MB, and `make test` does without

OURS = ("svckit", "embedder_svc", "search_svc", "vmmr")
_TELL_EVERY = 50

with atheris.instrument_imports(include=list(OURS)):
    from tests.fuzz import targets


class Counting:
    """Tries inputs, and tells of each new kind of error, and how often it tried, as lines of JSON."""

    def __init__(self, attempt: targets.Target, executions: int, findings: Path) -> None:
        self._attempt = attempt
        self._findings = findings
        self._executions = executions
        self._tried = 0
        self._told: set[str] = set()

    def __call__(self, content: bytes) -> None:
        try:
            self._attempt(content)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what we look for
            self._tell(error, content)
        self._tried += 1
        if self._tried % _TELL_EVERY == 0 or self._tried >= self._executions:
            self._print({"executions": self._tried, "cpu_s": round(time.process_time(), 2)})

    def _tell(self, error: Exception, content: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if any(f"/{name}/" in frame.filename for name in OURS)] or frames
        place = f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
        if place in self._told:
            return
        self._told.add(place)
        path = self._findings / f"{len(self._told):02}-{type(error).__name__}"
        path.write_bytes(content)
        self._print({"error": f"{place}: {str(error)[:200]}", "input": str(path)})

    def _print(self, fields: object) -> None:
        os.write(1, f"{json.dumps(fields)}\n".encode())


def main() -> None:
    name, executions, seed, findings = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    with targets.folder() as folder, tempfile.TemporaryDirectory() as grown:
        attempt = targets.TARGETS[name](Path(folder) / "files")
        flags = [
            f"-max_total_time={sys.argv[5]}",
            f"-runs={executions}",
            f"-seed={seed}",
            "-max_len=4096",
            "-timeout=120",
            "-rss_limit_mb=6000",
        ]
        flags += ["-detect_leaks=0", f"-artifact_prefix={findings}/", "-print_final_stats=1"]
        atheris.Setup(["fuzz", *flags, grown, str(targets.CORPUS / name)], Counting(attempt, executions, findings))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
