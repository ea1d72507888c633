"""The images and compose files are read here as Docker would read them: no engine runs in tests."""

import argparse
import contextlib
import fnmatch
import json
import math
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from importlib import util
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path, PurePosixPath
from string import Template

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from embedder_svc.__main__ import parser as embedder_parser
from embedder_svc.serving.config import EmbedderConfig
from search_svc.__main__ import parser as search_parser
from search_svc.serving.config import SearchConfig
from svckit import config, probe, shipped
from web.__main__ import parser as web_parser
from web.config import WebConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
OURS = {project["name"]: project for project in (PROJECT, CLIENT)}


def program(path):
    """A program of `deploy`, as a module."""
    spec = util.spec_from_file_location(path.stem, path)
    sys.modules[path.stem] = module = util.module_from_spec(spec)  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


try_images = program(DEPLOY / "try_images.py")


@dataclass(frozen=True)
class Service:
    name: str
    config: type
    parser: argparse.ArgumentParser

    @property
    def prefix(self) -> str:
        return f"VMMR_{self.name}".upper()

    @property
    def dockerfile(self) -> list[tuple[str, str]]:
        """(instruction, arguments) in order."""
        text = re.sub(r"^#.*\n", "", (DEPLOY / f"Dockerfile.{self.name}").read_text(), flags=re.MULTILINE)
        lines = text.replace("\\\n", " ").splitlines()
        return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]

    def last_stage(self, instruction: str) -> list[str]:
        """Arguments of an instruction in the stage that becomes the image."""
        starts = [place for place, (name, _) in enumerate(self.dockerfile) if name == "FROM"]
        return [arguments for name, arguments in self.dockerfile[starts[-1] :] if name == instruction]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.last_stage("ENV") for pair in line.split())

    @property
    def command(self) -> list[str]:
        """What a container runs: the program and its arguments."""
        (entry_point,), (arguments,) = self.last_stage("ENTRYPOINT"), self.last_stage("CMD")
        return [*json.loads(entry_point), *json.loads(arguments)]

    def settings(self, environment: dict[str, str]):
        """The settings that the container's command and an environment come to."""
        arguments = self.parser.parse_args(self.command[1:])
        return config.from_namespace(self.config, self.prefix, arguments, environment)

    def is_setting(self, variable: str) -> bool:
        fields = {f"{self.prefix}_{field}".upper() for field in self.config.__dataclass_fields__}
        return variable in fields


SERVICES = [
    Service("embedder", EmbedderConfig, embedder_parser()),
    Service("search", SearchConfig, search_parser()),
    Service("web", WebConfig, web_parser()),
]
GRPC = SERVICES[:2]


@pytest.fixture(params=SERVICES, ids=[service.name for service in SERVICES])
def service(request):
    return request.param


def load(name):
    """A compose file, with the variables that are not set replaced by their defaults."""
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", (DEPLOY / name).read_text())
    return yaml.safe_load(re.sub(r"\$\{(\w+):\?[^}]*\}", r"/given/\1", text))


COMPOSE, GPU = load("compose.yaml")["services"], load("compose.gpu.yaml")["services"]
MONITORING = load("compose.monitoring.yaml")["services"]


def in_context(path):
    """Whether .dockerignore lets a file into the build."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        names = [str(each) for each in (PurePosixPath(path), *PurePosixPath(path).parents)]
        if line and not line.startswith("#") and any(matches(name, pattern) for name in names):
            kept = line.startswith("!")
    return kept


def matches(name, pattern):
    anywhere = pattern.removeprefix("**/")
    return fnmatch.fnmatchcase(name, pattern) or (anywhere != pattern and PurePosixPath(name).match(anywhere))


# --- images -----------------------------------------------------------------------------------------------------------


def copied(service):
    """Sources that are copied from the repository."""
    lines = [line for name, line in service.dockerfile if name == "COPY" and not line.startswith("--from")]
    return [source for line in lines for source in line.split()[:-1] if not source.startswith("--")]


def test_what_is_copied_is_there_and_not_ignored(service):
    assert copied(service)
    for source in copied(service):
        assert (ROOT / source).exists(), source
        assert in_context(source), source


def test_all_that_the_package_is_made_of_is_copied(service):
    needed = ["pyproject.toml", PROJECT["readme"], "client", *WHEEL["packages"]]
    assert all(PurePosixPath(path).parts[0] in copied(service) for path in needed)


@pytest.mark.parametrize(
    "path",
    [".git/config", ".venv/bin/python", ".cache/demo/drawn/a.jpg", "tests/conftest.py", "svckit/__pycache__/a.pyc"],
)
def test_nothing_else_is_sent_to_the_build(path):
    assert not in_context(path)


def test_stages_copy_from_stages_that_are_there(service):
    stages = {line.split()[-1] for name, line in service.dockerfile if name == "FROM" and " AS " in line}
    sources = {line.split()[0] for name, line in service.dockerfile if line.startswith("--from")}
    assert sources == {f"--from={stage}" for stage in stages}


def test_bases_are_pinned_by_a_full_version_and_named_without_a_registry(service):
    arguments = dict(line.split("=") for name, line in service.dockerfile if name == "ARG")
    for image in [line.split()[0] for name, line in service.dockerfile if name == "FROM"]:
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image.replace("${BASE}", arguments["BASE"]))


def test_the_base_has_a_python_that_the_package_accepts(service):
    arguments = dict(line.split("=") for name, line in service.dockerfile if name == "ARG")
    minor = int(arguments["BASE"].split(".")[1])
    assert f"3.{minor}" >= PROJECT["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("service", GRPC, ids=lambda service: service.name)
def test_the_variants_are_extras(service):
    assert ("ARG", "VARIANT=cpu") in service.dockerfile
    extras = "${VARIANT},heic,jwt,otel" if service.name == "embedder" else "${VARIANT},jwt,otel"
    assert any(f'./client ".[{extras}]"' in line for name, line in service.dockerfile if name == "RUN")
    assert {"cpu", "gpu", "heic", "jwt", "otel"} <= PROJECT["optional-dependencies"].keys()


def pins():
    lines = [line for line in (DEPLOY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert all(re.fullmatch(r"==[\w.]+", str(requirement.specifier)) for requirement in requirements)
    versions = {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in requirements}
    assert len(versions) == len(requirements), "no package twice"
    return versions


def required(extra):
    """What the services need with an extra, and what that needs in turn as far as it is installed here."""
    waiting = [Requirement(f"vmmr-services[{extra}]")]
    found = set()
    while waiting:
        requirement = waiting.pop()
        if requirement not in found:
            found.add(requirement)
            waiting += needs(requirement)
    return [requirement for requirement in found if requirement.name not in OURS]


def needs(requirement):
    if project := OURS.get(requirement.name):
        extras = [line for extra in requirement.extras for line in project["optional-dependencies"][extra]]
        return [*map(Requirement, [*project["dependencies"], *extras])]
    with contextlib.suppress(PackageNotFoundError):
        needed = map(Requirement, requires(requirement.name) or [])
        extras = {"", *requirement.extras}
        return [each for each in needed if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)]
    return []


def test_the_page_has_its_extra_and_no_engine():
    assert any('./client ".[web,otel]"' in line for name, line in SERVICES[-1].dockerfile if name == "RUN")


@pytest.mark.parametrize("extra", ["cpu", "gpu", "heic", "jwt", "otel", "ray", "web"])
def test_every_package_in_an_image_is_pinned_to_a_version_that_is_accepted(extra):
    versions = pins()
    needed = [(canonicalize_name(each.name), each.specifier) for each in required(extra)]
    wrong = [f"{name}{accepted}" for name, accepted in needed if name not in versions or versions[name] not in accepted]
    assert wrong == []


def test_the_pins_are_of_packages_alone():
    """Where they come from is for the machine that builds to know."""
    assert "//" not in (DEPLOY / "constraints.txt").read_text()


def test_images_take_the_pinned_versions(service):
    (install,) = [line for name, line in service.dockerfile if name == "RUN" and "pip --python" in line]
    assert "/opt/vmmr/bin/python install -c constraints.txt ./client" in install


def test_nothing_in_an_image_can_install_or_build(service):
    """What the build stage has besides what it makes stays there; the base's own pip goes."""
    made = [line for name, line in service.dockerfile if name == "RUN" and "venv" in line and "/opt/vmmr" in line]
    assert "--without-pip /opt/vmmr" in made[0]
    assert [line for line in service.last_stage("COPY") if line.startswith("--from")] == [
        "--from=build /opt/vmmr /opt/vmmr"
    ]
    (run,) = service.last_stage("RUN")
    assert all(
        part in run for part in ("/usr/local/bin/pip*", "site-packages/pip*", "setuptools*", "wheel*", "ensurepip")
    )
    assert "install" not in run


def test_an_image_says_what_is_in_it_with_the_licences(service):
    """A CycloneDX SBOM of the environment that is copied into the image, made by a tool that is pinned and is not."""
    (command,) = [line for name, line in service.dockerfile if name == "RUN" and "cyclonedx-py" in line]
    assert re.search(r"cyclonedx-bom==\d+\.\d+\.\d+", command)
    assert "--gather-license-texts" in command
    assert command.endswith("--output-file /opt/vmmr/share/vmmr/sbom.cdx.json /opt/vmmr/bin/python")
    assert f"`/{try_images.SBOM}`" in (ROOT / "docs/deploy.md").read_text()


def test_the_steps_of_an_image_can_be_tried_without_an_engine(service):
    """The program that does so reads the same instructions as these tests, and knows each of them."""
    read = list(try_images.instructions((DEPLOY / f"Dockerfile.{service.name}").read_text()))
    assert [(name, " ".join(arguments.split())) for name, arguments in service.dockerfile] == read
    assert {name for name, _ in read} <= {"FROM", *try_images.KNOWN}


def test_images_do_not_run_as_root(service):
    (user,) = service.last_stage("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that Kubernetes can tell that it is not root"


def test_the_command_is_one_of_ours_and_takes_its_arguments(service):
    assert service.command[0] in PROJECT["scripts"]
    service.settings(service.environment)


def test_every_variable_is_a_setting(service):
    ours = [name for name in service.environment if name.startswith(f"{service.prefix}_")]
    assert ours
    assert all(map(service.is_setting, ours))


def test_a_container_listens_where_it_can_be_reached_on_the_ports_it_exposes(service):
    settings = service.settings(service.environment)
    (exposed,) = service.last_stage("EXPOSE")
    assert settings.host == "0.0.0.0"
    assert [int(port) for port in exposed.split()] == [settings.port, settings.metrics_port]


def test_the_port_is_the_services_own(service):
    assert service.settings(service.environment).port == service.config.__dataclass_fields__["port"].default


def shipped_copy(service):
    """The flags, the source and the target of what ships with the image."""
    (line,) = (line for line in service.last_stage("COPY") if not line.startswith("--from"))
    *flags, source, target = line.split()
    return flags, source, target


@pytest.mark.parametrize("service", GRPC, ids=lambda service: service.name)
def test_what_ships_is_in_the_image_where_the_command_looks(service):
    _, source, target = shipped_copy(service)
    assert target == service.command[-1]
    assert ROOT / source == {"embedder": shipped.model, "search": shipped.gallery}[service.name]()


def test_the_gallery_in_the_image_is_its_users():
    """A named volume takes over content, owner and mode of the image's folder when it is first mounted."""
    search = SERVICES[1]
    flags, _, _ = shipped_copy(search)
    (user,) = search.last_stage("USER")
    assert flags == [f"--chown={user}"]


@pytest.mark.parametrize("left", ["journal.db", "journal.db-wal", "journal.mark", "build.lock"])
def test_what_a_server_left_beside_the_gallery_gets_into_no_image(left):
    assert not in_context(f"models/stanford-cars/{left}")
    assert in_context("models/stanford-cars/CURRENT")


@pytest.mark.parametrize("service", GRPC, ids=lambda service: service.name)
def test_the_health_check_probes_the_server(service):
    (check,) = service.last_stage("HEALTHCHECK")
    environment = service.environment | {f"{service.prefix}_PORT": "4711"}
    python, flag, module, *arguments = shlex.split(Template(check.partition("CMD ")[2]).substitute(environment))
    assert (python, flag) == ("python", "-m")
    assert util.find_spec(module).name == probe.__name__
    assert probe.parser().parse_args(arguments).address == f"127.0.0.1:{service.settings(environment).port}"


def test_the_health_check_of_the_page_is_a_module_that_is_there():
    (check,) = SERVICES[-1].last_stage("HEALTHCHECK")
    python, flag, module = shlex.split(check.partition("CMD ")[2])
    assert (python, flag) == ("python", "-m")
    assert util.find_spec(module)


# --- compose ----------------------------------------------------------------------------------------------------------


def test_compose_runs_both_services_and_the_page():
    assert COMPOSE.keys() == {service.name for service in SERVICES}
    assert GPU.keys() <= COMPOSE.keys()


def test_compose_builds_from_the_repository(service):
    build = COMPOSE[service.name]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DEPLOY / f"Dockerfile.{service.name}"


def test_compose_publishes_the_port_to_this_machine_alone(service):
    port = service.settings(service.environment).port
    assert COMPOSE[service.name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_page_finds_the_services_of_compose():
    settings = SERVICES[-1].settings(SERVICES[-1].environment | COMPOSE["web"]["environment"])
    for service, target in ((SERVICES[0], settings.embedder), (SERVICES[1], settings.search)):
        assert target == f"{service.name}:{service.settings(service.environment).port}"


def test_compose_mounts_the_model_to_be_read():
    embedder = SERVICES[0]
    (volume,) = COMPOSE["embedder"]["volumes"]
    assert volume["target"] == embedder.command[-1]
    assert volume["read_only"]
    assert not volume["bind"]["create_host_path"], "a wrong path is an error, not an empty folder"


def test_compose_mounts_the_gallery_to_be_written_to_by_the_images_user():
    search = SERVICES[1]
    (volume,) = COMPOSE["search"]["volumes"]
    name, target, *mode = volume.split(":")
    assert (target, mode) == (search.command[-1], []), "no :ro"
    assert name in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"], "a volume, which Docker fills"
    assert [COMPOSE["search"]["user"]] == search.last_stage("USER")
    environment = {name: str(value) for name, value in COMPOSE["search"]["environment"].items()}
    assert not search.settings(search.environment | environment).read_only


def test_the_model_that_compose_mounts_by_default_is_there():
    (volume,) = COMPOSE["embedder"]["volumes"]
    assert (DEPLOY / volume["source"] / "model.json").exists()


def test_compose_sets_what_are_settings(service):
    for overlay in (COMPOSE, GPU):
        variables = overlay.get(service.name, {}).get("environment", {})
        assert all(map(service.is_setting, variables))
        service.settings(service.environment | {name: str(value) for name, value in variables.items()})


def test_containers_can_write_nothing_but_their_tmp_and_the_gallery(service):
    container = COMPOSE[service.name]
    assert container["read_only"]
    assert container["tmpfs"] == ["/tmp:size=64m"]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]


def test_what_a_health_check_leaves_behind_is_reaped(service):
    assert COMPOSE[service.name]["init"] is True


def test_containers_are_limited(service):
    limits = COMPOSE[service.name]["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory"}


def test_processors_may_be_a_fraction():
    """So they are no thread counts: those the server sets by the quota itself."""
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"(\w+): \$\{VMMR_CPUS", text)) == {"cpus"}


def test_the_embedder_has_memory_for_the_largest_photo_in_every_decode_thread():
    """19 bytes a pixel, as measured with WebP, the dearest format; 1 GB for the rest."""
    limits = COMPOSE["embedder"]["deploy"]["resources"]["limits"]
    memory = int(limits["memory"].removesuffix("g")) << 30
    assert 1e9 + math.ceil(limits["cpus"]) * 19 * EmbedderConfig().max_image_pixels <= memory


def test_containers_are_given_the_time_to_drain(service):
    settings = service.settings(service.environment)
    grace_s = int(COMPOSE[service.name]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= settings.drain_pause_s + settings.drain_s + 2


def test_the_gpu_variant_is_built_and_demands_a_gpu():
    embedder = GPU["embedder"]
    assert embedder["build"]["args"] == {"VARIANT": "gpu"}
    assert embedder["image"] != COMPOSE["embedder"]["image"]
    assert embedder["environment"] == {"VMMR_EMBEDDER_DEVICE": "cuda"}
    (device,) = embedder["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_prometheus_reads_the_metrics_of_every_service_where_its_container_serves_them():
    scraped = yaml.safe_load((DEPLOY / "monitoring/prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for each in job["static_configs"] for target in each["targets"]]
    assert targets == [f"{service.name}:{service.settings(service.environment).metrics_port}" for service in SERVICES]


def mounted(container):
    """The files that a container is given, by their place in it."""
    volumes = [volume.split(":") for volume in container["volumes"]]
    return {target: DEPLOY / source for source, target, *mode in volumes if mode == ["ro"]}


def test_prometheus_finds_its_configuration_and_the_rules():
    files = mounted(MONITORING["prometheus"])
    (config_file,) = (
        word.partition("=")[2] for word in MONITORING["prometheus"]["command"] if "--config.file=" in word
    )
    (rules,) = yaml.safe_load(files[config_file].read_text())["rule_files"]
    assert files[str(PurePosixPath(config_file).parent / rules)] == DEPLOY / "monitoring/alerts.yml"


def test_grafana_finds_prometheus_and_the_dashboard():
    files = mounted(MONITORING["grafana"])
    assert all(file.is_file() for file in files.values())
    provisioning = {
        PurePosixPath(target).parent.name: file for target, file in files.items() if "provisioning" in target
    }
    (source,) = yaml.safe_load(provisioning["datasources"].read_text())["datasources"]
    (published,) = MONITORING["prometheus"]["ports"]
    assert source["url"] == f"http://prometheus:{published.rpartition(':')[2]}"
    (provider,) = yaml.safe_load(provisioning["dashboards"].read_text())["providers"]
    assert files[f"{provider['options']['path']}/dashboard.json"] == DEPLOY / "monitoring/dashboard.json"
    home = MONITORING["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in files


@pytest.mark.parametrize("name", MONITORING)
def test_what_watches_is_as_confined_as_what_is_watched(name):
    container = MONITORING[name]
    assert all(port.startswith("127.0.0.1:") for port in container["ports"])
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", container["image"]), "an exact version"
    assert container["read_only"]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_names_every_file_and_variable():
    page = (ROOT / "docs/deploy.md").read_text() + (ROOT / "docs/monitoring.md").read_text()
    files = [
        path.name for path in (*DEPLOY.iterdir(), *(DEPLOY / "monitoring").iterdir()) if path.name != "__pycache__"
    ]
    variables = set(re.findall(r"\$\{(VMMR_\w+)", "".join(path.read_text() for path in DEPLOY.glob("compose*.yaml"))))
    assert [name for name in (*files, *variables) if f"{name}`" not in page and f"{name} " not in page] == []


def test_the_page_and_the_files_build_with_the_same_commands():
    """So that neither can go stale alone."""
    page = (ROOT / "docs/deploy.md").read_text()
    for service in SERVICES:
        comments = (DEPLOY / f"Dockerfile.{service.name}").read_text()
        builds = re.findall(r"^# +(docker build .*)$", comments, re.MULTILINE)
        assert len(builds) == (1 if service.name == "web" else 2)
        assert all(build in page for build in builds)
