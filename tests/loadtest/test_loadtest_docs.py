"""docs/loadtest.md says what there is."""

import argparse
import re
from pathlib import Path

from loadtest import arguments, command, generator, knee, measure, photos, run, table
from loadtest.measure import step
from loadtest.plan import Open, Plan
from loadtest.recorder import Record

PAGE = (Path(__file__).parents[2] / "docs" / "loadtest.md").read_text()
TEXT = " ".join(PAGE.split())


def sub_commands() -> dict[str, argparse.ArgumentParser]:
    top = arguments.parser({}, "vmmr-loadtest")
    [targets] = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(targets.choices)


def test_every_flag_of_every_target_is_documented_and_no_other():
    flags = {
        flag
        for each in sub_commands().values()
        for action in each._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag != "--help"
    }
    table_of_flags = PAGE.split("\n## Flags\n")[1].split("\n## ")[0]
    assert set(re.findall(r"`(--[a-z-0-9]+)", table_of_flags)) == flags


def test_every_target_is_documented():
    targets = set(sub_commands()) - {"compare"}
    assert set(re.findall(r"^\| `(\w+)` \| (?:one|an) `", PAGE, re.MULTILINE)) == targets


def test_the_exit_codes_are_those_of_the_help():
    documented = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert documented == [tuple(line.split(maxsplit=1)) for line in arguments.EXIT_CODES.splitlines()[1:]]


def test_every_column_of_the_table_is_documented():
    columns = table.cells(step(Plan(target="embed"), Open(1), Record(), None), things="PHOTOS/s", slo=True)
    documented = re.findall(r"`([^`]+)`", "".join(re.findall(r"^(\| `(?:[A-Z]|p50|!).*?\|)", PAGE, re.MULTILINE)))
    assert set(columns) - {"LOAD", ""} <= set(documented)


def test_numbers_are_those_of_the_code():
    assert f"open loops at {', '.join(f'{100 * share:g}' for share in knee._FIRST[:-1])} and 100 %" in TEXT
    assert f"{run.PROBE_CONCURRENCY} callers at once find out" in TEXT
    assert f"answers {100 * knee.KEEPS_UP:g} % or more of what is offered" in TEXT
    assert f"at most {knee.KNEE:g} times that of the lowest rate" in TEXT
    assert f"waits {1e3 * generator.BACKOFF_S:g} ms before its next call" in TEXT
    assert f"used more than {measure._BUSY:g} of a core" in TEXT
    assert f"over {measure._LATE_MS:g} ms and over a tenth" in TEXT
    assert (measure._LATE_SHARE, measure.MET, table.LEAST) == (0.1, 0.99, {"p99": 100, "p99.9": 1000})
    assert f"one for every {command._CORES_A_PROCESS} cores" in TEXT
    assert f"{photos.MOST_BYTES // 2**20} MiB at most" in TEXT
