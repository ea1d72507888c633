"""deploy/ray/cluster.yaml, as KubeRay's RayCluster (ray.io/v1) and Kubernetes would take it."""

import dataclasses
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from search_svc.__main__ import parser
from search_svc.serving.config import SearchConfig
from svckit import config

ROOT = Path(__file__).parents[2]
MANIFESTS = list(yaml.safe_load_all((ROOT / "deploy/ray/cluster.yaml").read_text()))
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
TEMPLATE = {
    "type": "object",
    "required": ["spec"],
    "additionalProperties": False,
    "properties": {"metadata": {"type": "object"}, "spec": {"type": "object", "required": ["containers"]}},
}
COUNT = {"type": "integer", "minimum": 0}
SPEC = {
    "type": "object",
    "required": ["headGroupSpec"],
    "additionalProperties": False,
    "properties": {
        "rayVersion": {"type": "string"},
        "headGroupSpec": {
            "type": "object",
            "required": ["rayStartParams", "template"],
            "additionalProperties": False,
            "properties": {"rayStartParams": STRINGS, "template": TEMPLATE},
        },
        "workerGroupSpecs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                "additionalProperties": False,
                "properties": {
                    "groupName": {"type": "string"},
                    "replicas": COUNT,
                    "minReplicas": COUNT,
                    "maxReplicas": COUNT,
                    "rayStartParams": STRINGS,
                    "template": TEMPLATE,
                },
            },
        },
    },
}
"""What of KubeRay's schema the manifest uses, after its Go types (ray.io/v1); the whole one is not ours to ship."""


def the(kind):
    (found,) = [each for each in MANIFESTS if each["kind"] == kind]
    return found


CLUSTER, FRONT = the("RayCluster"), the("Deployment")
GROUPS = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
PODS = [group["template"] for group in GROUPS] + [FRONT["spec"]["template"]]


def test_the_cluster_is_what_kuberay_takes():
    jsonschema = pytest.importorskip("jsonschema")
    assert CLUSTER["apiVersion"] == "ray.io/v1"
    jsonschema.validate(CLUSTER["spec"], SPEC)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(CLUSTER["spec"] | {"workers": 3}, SPEC)


def test_its_ray_is_the_one_that_is_installed_with_the_extra():
    (pinned,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["ray"]
    series = re.fullmatch(r"ray==(\d+\.\d+)\.\*", pinned)[1]
    assert CLUSTER["spec"]["rayVersion"].rpartition(".")[0] == series


def test_ray_knows_what_it_is_started_with():
    pytest.importorskip("ray")
    from ray.scripts.scripts import start

    known = {option.lstrip("-") for each in start.params for option in each.opts}
    assert {name for group in GROUPS for name in group["rayStartParams"]} <= known
    (script,) = FRONT["spec"]["template"]["spec"]["containers"][0]["args"]
    flags = re.findall(r"--([\w-]+)", script.partition("&&")[0])
    assert {"address", "num-cpus"} <= set(flags) <= known


def test_every_pod_is_one_of_the_policy_and_brings_its_probes():
    """KubeRay would add probes that need a program which the image lacks."""
    (label,) = the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    for pod in PODS:
        assert label in pod["metadata"]["labels"].items()
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        (container,) = pod["spec"]["containers"]
        assert {"readinessProbe", "livenessProbe"} <= set(container)
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
        assert container["image"] == "vmmr-ray:cpu"


def test_the_front_end_is_given_settings_that_it_has():
    (container,) = FRONT["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"] if each["name"].startswith("VMMR_")}
    known = {f"VMMR_SEARCH_{field.name}".upper() for field in dataclasses.fields(SearchConfig)}
    if "VMMR_SEARCH_ENGINE" not in known:
        pytest.skip("this checkout's server has no --engine yet")
    assert set(env) <= known
    settings = config.from_namespace(SearchConfig, "VMMR_SEARCH", parser().parse_args(["serve"]), env)
    assert (settings.engine, settings.read_only, settings.index) == ("ray", True, Path("/data/index"))
    assert settings.ray_address == f"{CLUSTER['metadata']['name']}-head-svc:6379"


def test_the_service_leads_to_the_front_ends():
    assert the("Service")["spec"]["selector"].items() <= FRONT["spec"]["template"]["metadata"]["labels"].items()
    assert json.dumps(the("Service")["spec"]["ports"]).count("50052") == 1
