"""`vmmr loadtest`, as a process."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.client.conftest import COMMAND, TRIED_TWICE
from tests.conftest import TIMEOUT_S

TWICE = (sys.executable, "-c", TRIED_TWICE)
SHORT = ("--duration", "1", "--warmup", "0.2", "--distinct", "6")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(services) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("VMMR_")}
    targets = {"VMMR_EMBEDDER": services.embedder_target, "VMMR_SEARCH": services.search_target}
    return own | targets | {"VMMR_TIMEOUT": str(TIMEOUT_S)}


@pytest.fixture
def run(environment, photos, tmp_path) -> Run:
    """Runs it beside a folder of photos."""

    def run(*arguments: str, command: Sequence[str] = (COMMAND,)) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "loadtest", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


def test_a_table_on_standard_output_progress_on_standard_error_and_both_files(run, tmp_path):
    files = ("--json", "found.json", "--html", "found.html")
    done = run(
        "identify", "--photos", "photos", "--rate", "20,30", "--slo-p99-ms", "9000", "--batch", "2", *SHORT, *files
    )
    assert done.returncode in (0, 4), done.stderr  # 4: this machine is too busy to prove anything
    heading, first, second = re.findall(r"^(?:LOAD +CALLS|20/s|30/s) .*", done.stdout, re.MULTILINE)[:3]
    assert heading.split()[:4] == ["LOAD", "CALLS", "ANSWERED/s", "PHOTOS/s"]
    assert (first.split()[:2], second.split()[:2]) == (["20/s", "20"], ["30/s", "30"])
    assert re.search(r"6 of 6 photos from photos( \(.*\))?, 2 a call", done.stdout)
    assert re.search(r"^LOAD +e\.decode .* s\.vote +embed +classify +elsewhere", done.stdout, re.MULTILINE)
    assert "note: a step has as few as 20 calls" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(step["load"], step["calls"]) for step in found["steps"]] == [(20, 20), (30, 30)]
    assert [step["answered"] + step["unsent"] for step in found["steps"]] == [20, 30], "a busy machine leaves calls out"
    assert found["plan"]["slo_p99_ms"] == 9000
    assert found["steps"][0]["latency"]["hdr"].startswith("HIST")
    page = (tmp_path / "found.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\((?!#)|<script|<link|@import""", page), "nothing from elsewhere"
    assert "<td>30/s</td>" in page


def test_an_slo_that_is_missed_and_failures_beyond_what_is_allowed_are_statuses_of_their_own(run, services, fail):
    services.search.script.then(lambda *_: None, *[fail("INTERNAL")] * 9)
    done = run("search", "--rate", "20", *SHORT)
    assert done.returncode == 1
    assert re.search(r"NOT MET: 20/s: \d+\.\d+% of calls failed, more than 1\.00%", done.stdout)
    assert re.search(r"^20/s +\d +INTERNAL +INTERNAL +- +on purpose", done.stdout, re.MULTILINE)
    done = run("search", "--rate", "20", *SHORT, "--slo-p99-ms", "0.01")
    assert done.returncode in (1, 4)
    assert "NOT MET: 20/s: 0.00% of calls were answered within 0.01 ms, not 99 %" in done.stdout


def test_a_generator_that_was_the_limit_proves_nothing_and_says_so_loudly(run):
    done = run("search", "--rate", "20000", *SHORT, "--slo-p99-ms", "9000")
    assert done.returncode == 4
    assert "! THE GENERATOR, OR THIS MACHINE, WAS A LIMIT." in done.stdout
    assert re.search(r"^!   2e\+04/s: calls never made, because their time was over: \d+", done.stdout, re.MULTILINE)
    assert re.search(r"^2e\+04/s .* !$", done.stdout, re.MULTILINE)


def test_a_result_compared_with_itself_has_not_regressed_and_with_a_worse_one_has(run, tmp_path):
    assert run("search", "--concurrency", "2", *SHORT, "--json", "old.json", "--quiet").stderr == ""
    done = run("compare", "old.json", "old.json")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no regression")
    worse = json.loads((tmp_path / "old.json").read_text())
    worse["steps"][0]["latency"]["p99_ms"] *= 1.5
    (tmp_path / "new.json").write_text(json.dumps(worse))
    done = run("compare", "old.json", "new.json")
    assert done.returncode == 1
    assert re.search(r"^2 at once +p99 ms .* \+50\.0% +REGRESSED", done.stdout, re.MULTILINE)
    assert run("compare", "old.json", "new.json", "--max-p99-increase", "60").returncode == 0
    done = run("compare", "old.json", "absent.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "absent.json" in done.stderr


def test_ctrl_c_ends_it_with_what_was_measured_until_then(environment, services, tmp_path):
    called = threading.Semaphore(0)
    services.search.script.marked[b""] = lambda *_: called.release()
    arguments = (
        "search",
        "--rate",
        "50",
        "--duration",
        "600",
        "--warmup",
        "0",
        "--json",
        "found.json",
        "--processes",
        "2",
    )
    process = subprocess.Popen(
        [COMMAND, "loadtest", *arguments],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert "50/s" in process.stderr.readline()
    assert all(called.acquire(timeout=60) for _ in range(20))
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ended early: interrupted" in out
    assert "Traceback" not in error
    [step] = json.loads((tmp_path / "found.json").read_text())["steps"]
    assert 0 < step["answered"] < 50 * 600
    assert step["window_s"] < 600
    assert step["answered"] + step["abandoned"] == step["calls"]
    assert step["answered_per_s"] == pytest.approx(step["answered"] / step["window_s"])


def test_a_generator_process_that_is_killed_is_told_in_one_line(environment, tmp_path):
    import psutil

    process = subprocess.Popen(
        [COMMAND, "loadtest", "search", "--rate", "50", "--duration", "60"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "50/s" in process.stderr.readline()
    [worker] = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    worker.kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 3
    assert error.splitlines()[-1] == "vmmr: error: a process of the generator ended with exit code -9"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("embed --rate 0", "argument --rate: must be a number > 0, got '0'"),
        ("embed --rate 10,x", "argument --rate: must be a number > 0, got 'x'"),
        ("embed --rate 10 --concurrency 1", "not allowed with argument"),
        ("embed --size 4x4", "must be WIDTHxHEIGHT in pixels"),
        ("embed --max-errors 101", "must be a number of % from 0 to 100"),
        ("embed --photos absent --rate 1", "--photos: absent is no folder"),
        ("search --rate 1 --size 9x9", "unrecognized arguments: --size 9x9"),
        ("search --batch 17 --rate 1", "the search service accepts 16 queries in a call, the plan has 17"),
        ("search --rate 1 --json absent/found.json", "absent/found.json"),
        ("search --rate 1 --tls-cert a.pem", "a client certificate and its key go together"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_told_before_anything_is_called(run, arguments, complaint):
    done = run(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_is_not_there_is_told_in_one_line(run):
    done = run("search", "--rate", "1", "--search", "127.0.0.1:1", command=(*TWICE, COMMAND))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1].startswith(
        "vmmr: error: no vmmr server answers at 127.0.0.1:1 (search service)"
    )


def test_it_is_a_program_of_its_own_and_goes_by_the_name_that_it_was_called_by(environment):
    def loadtest(*arguments: str) -> str:
        command = [*TWICE, str(Path(COMMAND).with_name("vmmr-loadtest")), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False).stderr

    gone = loadtest("search", "--rate", "1", "--search", "127.0.0.1:1")
    waits, failed = gone.splitlines()
    assert waits.startswith("vmmr-loadtest: no vmmr server answers at 127.0.0.1:1 (search service)")
    assert failed.startswith("vmmr-loadtest: error: no vmmr server answers at 127.0.0.1:1 (search service)")
    assert loadtest("embed", "--rate", "0").startswith("usage: vmmr-loadtest embed ")


@pytest.mark.parametrize("library", ["hdrh", "jinja2", "matplotlib"])
def test_a_missing_extra_is_named_in_one_line_and_other_commands_do_without(environment, library):
    script = f"import sys; sys.modules[{library!r}] = None; from vmmr._cli import main; main()"

    def vmmr(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    done = vmmr("loadtest", "search", "--rate", "1")
    expected = f"vmmr: error: loadtest needs {library}: pip install ./client '.[loadtest]', in a checkout of vmmr\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    assert vmmr("info").returncode == 0


def test_the_sdk_and_other_commands_import_nothing_of_the_extra(environment):
    script = (
        "import sys, vmmr; from vmmr._cli import main; sys.argv = ['vmmr', 'info']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'hdrh', 'jinja2', 'matplotlib', 'multiprocessing'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60, capture_output=True)
