import argparse

import pytest

from search_svc.building import resource_flags
from search_svc.building.spec import Resources
from svckit.cli import CommandError
from svckit.cores import cores


def read(*flags, every_core=False):
    parser = argparse.ArgumentParser()
    resource_flags.add(parser, every_core=every_core)
    return resource_flags.read(parser.parse_args(flags))


def test_by_default_one_process_builds_or_as_many_as_there_are_cores():
    assert read() == Resources()
    assert read(every_core=True) == Resources(processes=cores())


def test_flags_are_what_a_build_may_use():
    assert read("--workers", "3", "--memory", "0.5", every_core=True) == Resources(3, 2**29)


@pytest.mark.parametrize("every_core", [False, True])
@pytest.mark.parametrize(
    ("flag", "value", "error"),
    [
        ("--workers", "0", "--workers must be >= 1, got 0"),
        ("--memory", "0.1", "--memory must be 0.125 GiB or more, got 0.1"),
        ("--memory", "inf", "--memory must be 0.125 GiB or more, got inf"),
        ("--memory", "nan", "--memory must be 0.125 GiB or more, got nan"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_name_of_the_flag(flag, value, error, every_core):
    with pytest.raises(CommandError, match=f"^{error}$"):
        read(flag, value, every_core=every_core)
