"""The units of systemd start what is there, with time to end, and may do little."""

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from svckit import config
from tests.deploy.test_deploy import DEPLOY, GRPC

MOST_EXPOSED = 2.5
"""Of 10, as systemd counts: what is left is mostly the network, which servers are for."""


@pytest.fixture(params=GRPC, ids=[service.name for service in GRPC])
def service(request):
    return request.param


def path(service) -> Path:
    return DEPLOY / f"systemd/vmmr-{service.name}.service"


@pytest.fixture
def unit(service):
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str
    parsed.read(path(service))
    return parsed["Service"]


def settings(service, unit):
    program, *arguments = shlex.split(unit["ExecStart"])
    assert Path(program).name == service.command[0]
    return config.from_namespace(service.config, service.prefix, service.parser.parse_args(arguments), {})


def test_the_command_is_ours_and_serves_what_is_in_its_folder(service, unit):
    served = settings(service, unit)
    place = served.model if service.name == "embedder" else served.index
    assert place.parent == Path("/var/lib") / unit["StateDirectory"]
    assert unit["EnvironmentFile"] == f"-/etc/vmmr/{service.name}.env"


def test_it_has_the_time_to_end(service, unit):
    served = settings(service, unit)
    assert int(unit["TimeoutStopSec"]) >= served.drain_pause_s + served.drain_s + 5


def analyze(*arguments):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_systemd_understands_it(service, tmp_path):
    here = tmp_path / path(service).name
    here.write_text(path(service).read_text().replace("/opt/vmmr/bin", str(Path(sys.executable).parent)))
    done = analyze("verify", "--man=no", here)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_may_do_little(service):
    done = analyze("security", "--offline=true", f"--threshold={round(10 * MOST_EXPOSED)}", path(service))
    assert done.returncode == 0, done.stdout[-300:]


def test_the_page_says_how_they_are_installed(service):
    page = (DEPLOY.parent / "docs/deploy.md").read_text()
    assert f"systemctl enable --now vmmr-{service.name}\n" in page
