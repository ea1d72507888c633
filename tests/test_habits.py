"""What a contributor relies on: make's targets, the workflows, the hooks, the pages that list things."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
FOLDERS = ("*.md", "docs/**/*.md", "models/*/*.md", "bench/*.md", "examples/*.md", "protos/*.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in ROOT.glob(folder))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


# --- make -------------------------------------------------------------------------------------------------------------


def test_there_are_pages_to_look_at():
    assert {"README.md", "CONTRIBUTING.md", "docs/training.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    code = [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^(make .*)$", text, re.MULTILINE)]
    named = {match[1] for line in code if (match := re.match(r"make ([a-z-]+)\b", line))}
    assert named <= TARGETS


def test_make_help_lists_every_target():
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([\w-]+) +\S", said, re.MULTILINE)) == TARGETS


def test_make_does_not_take_a_folder_for_a_target():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS


def test_make_check_builds_the_site_and_fails_on_a_warning():
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    assert "mkdocs build --strict\n" in check


# --- CI ---------------------------------------------------------------------------------------------------------------


def test_ci_runs_the_script_on_every_python_that_the_package_says_it_supports():
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert ".ci/run" in [step.get("run") for step in steps(ci)]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    supported = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(classifiers), re.MULTILINE)
    assert ci["jobs"]["run"]["strategy"]["matrix"]["python"] == supported


def test_nothing_is_released_before_the_script_has_passed():
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    scripts = {name: [step.get("run") for step in job["steps"]] for name, job in release["jobs"].items()}
    (tested,) = [name for name, runs in scripts.items() if ".ci/run" in runs]
    assert tested in release["jobs"]["release"]["needs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_whole(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow[True], "what starts it: YAML takes `on` for true"
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= workflow["jobs"].keys()
    assert all(("run" in step) != ("uses" in step) for step in steps(workflow))
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]) for step in steps(workflow) if "uses" in step)


def test_every_folder_that_dependabot_looks_into_exists():
    for update in yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]:
        for folder in update.get("directories", [update.get("directory")]):
            assert (ROOT / folder.strip("/")).is_dir(), folder


def test_issue_forms_are_whole():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys()
        assert all(part["attributes"]["label"] and part["id"] for part in form["body"])


def test_every_hook_is_a_step_of_make_check():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    for hook in repository["hooks"]:
        command = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude")
        assert f"$(BIN)/{command}\n" in MAKEFILE, hook["id"]


# --- tests that hang ---------------------------------------------------------------------------------------------------


def test_a_test_that_hangs_outside_python_fails_by_name_and_the_others_run(tmp_path):
    (tmp_path / "test_hanging.py").write_text(
        "import ctypes\ndef test_hangs(): ctypes.CDLL(None).pause()\ndef test_after_it(): pass\n"
    )
    limits = ["-o", "timeout=0", "-o", "faulthandler_timeout=10"]
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", *limits, "-n", "1", tmp_path]
    env = {
        name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"
    }  # as --basetemp, which it would remove
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert "1 failed, 1 passed" in ended.stdout
    assert re.search(r"worker '\w+' crashed while running '.*test_hanging.py::test_hangs'", ended.stdout)
    assert "Timeout (0:00:10)!" in ended.stdout + ended.stderr  # and where it hung


def test_no_program_is_started_by_a_fork_of_ours():
    """A `preexec_fn` makes subprocess fork: gRPC then waits for its threads, of which one may wait for Python, for ever."""
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = [name for name in tracked.split() if name != "tests/test_habits.py"]
    assert ours
    assert [name for name in ours if "preexec_fn" in (ROOT / name).read_text()] == []


# --- licence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_both_distributions_have_the_licence_and_the_notice(name):
    """A source distribution cannot hold a link out of its folder, so the client's are copies."""
    assert (ROOT / "client" / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize("root", ["models", "protos"])
def test_the_notice_has_an_entry_for_everything_of_others_that_ships(root):
    notice = (ROOT / "NOTICE").read_text()
    folders = {"models": ROOT.glob("models/*/"), "protos": ROOT.glob("protos/google/*/")}[root]
    assert [path.name for path in folders if f"\n{path.relative_to(ROOT).as_posix()}/\n" not in notice] == []


# --- pages that list things -------------------------------------------------------------------------------------------


def test_every_bench_is_in_the_list_of_benches():
    page = (ROOT / "bench/README.md").read_text()
    benches = [path for path in (ROOT / "bench").glob("*/*.py") if path.parent.name != "lib"]
    names = [
        "bench." + path.relative_to(ROOT / "bench").with_suffix("").as_posix().replace("/", ".") for path in benches
    ]
    assert names
    assert [name for name in names if f"`{name}" not in page] == []


ROOMS = (
    "tests",
    "search_svc",
    "embedder_svc",
    "svckit",
    "loadtest",
    "web",
    "bench",
    "demo",
    "client/vmmr",
    "deploy",
    "examples",
)
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(ROOMS)})/[\w/.-]*[\w/]")
MODULE = re.compile(rf"python3? -m ((?:{'|'.join(ROOMS)})(?:\.[a-z_]\w*)*)(?!\.?\w)")
TEST_FILE = re.compile(r"(?<![\w/])test_\w+\.py")


def absent(text: str) -> list[str]:
    """Return the paths and modules of ours that a text names and that are not there. A path may lack its `.py`."""
    paths = PATH.findall(text)
    modules = [name.replace(".", "/") for name in MODULE.findall(text)]
    gone = [path for path in paths if not ((ROOT / path).exists() or (ROOT / f"{path}.py").exists())]
    gone += [path for path in modules if not ((ROOT / f"{path}.py").exists() or (ROOT / path / "__main__.py").exists())]
    return gone + [name for name in TEST_FILE.findall(text) if not list((ROOT / "tests").rglob(name))]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_and_module_that_a_page_names_exists(page):
    assert absent((ROOT / page).read_text()) == []


def test_what_a_page_names_is_found_in_its_text():
    assert absent("`tests/gone.py`, search_svc/gone/, `bench/lib/paths`, `python -m tests.crash`, docs/live.md") == [
        "tests/gone.py",
        "search_svc/gone/",
    ]
    assert absent("`.venv/bin/python -m bench.gone --x`, `test_gone.py`") == [
        "bench/gone",
        "test_gone.py",
    ]


def cells(row: str) -> int:
    """How many cells a row of a table has; a bar in it is written with a backslash."""
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def broken_rows(text: str) -> list[int]:
    """Return the numbers of the lines that begin as rows of a table and do not end so, or have other cells than its heading."""
    broken, heading = [], 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("|"):
            heading = 0
            continue
        heading = heading or cells(line)
        if cells(line) != heading or not line.rstrip().endswith("|"):
            broken.append(number)
    return broken


@pytest.mark.parametrize("page", PAGES)
def test_every_row_of_a_table_is_whole(page):
    assert broken_rows((ROOT / page).read_text()) == []


def test_a_row_that_is_not_whole_is_found():
    table = "| a | b |\n|---|---|\n| 1 | `x \\| y` |\n| 2 | 3 | 4 |\n| 5 |\n| 6 | 7\n\n| other |\n|---|\n| 8 |\n"
    assert broken_rows(table) == [4, 5, 6]


def test_every_decision_is_in_the_list_of_decisions():
    page = (ROOT / "docs/adr/README.md").read_text()
    assert [path.name for path in (ROOT / "docs/adr").glob("0*.md") if f"({path.name})" not in page] == []


def test_every_public_name_of_the_sdk_is_in_its_reference():
    import vmmr

    page = (ROOT / "www/reference/python.md").read_text()
    assert sorted(re.findall(r"^::: vmmr\.(\w+)$", page, re.MULTILINE)) == sorted(vmmr.__all__)


def test_every_change_is_in_a_group_that_keep_a_changelog_knows():
    text = (ROOT / "CHANGELOG.md").read_text()
    groups = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert groups
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "Unreleased"
    for part in re.split(r"^##+ .*\n", text, flags=re.MULTILINE)[1:]:
        assert not part.strip() or part.strip().startswith("- "), part


def test_the_page_of_the_protocol_has_every_field_with_its_comment():
    import importlib.util

    pytest.importorskip("mkdocs", reason="the documentation's extra, docs, is not installed")
    spec = importlib.util.spec_from_file_location("protocol_page", ROOT / "www/protocol_page.py")
    protocol_page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(protocol_page)
    page = protocol_page.page()
    for proto in (ROOT / "protos/vmmr").rglob("*.proto"):
        text = re.sub(r"^\s*//.*$", "", proto.read_text(), flags=re.MULTILINE)
        for name in re.findall(r"^\s*(?:message|enum|service) (\w+)", text, re.MULTILINE):
            assert re.search(rf"^### (?:\w+\.)?{name}$", page, re.MULTILINE), name
        for name in re.findall(r"^\s+(?:[\w.<>, ]+ )(\w+) = \d+", text, re.MULTILINE):
            assert re.search(rf"^\| `{name}` \| [^|]+ \| [^|\s]", page, re.MULTILINE), name
