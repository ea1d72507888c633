"""The Ray cluster of the chart, as KubeRay's RayCluster (ray.io/v1), Kubernetes and Ray itself would take it."""

import re
import socket
import tomllib
from pathlib import Path

import pytest

from tests.deploy.test_deploy import ROOT
from tests.deploy.test_helm import PROGRAMS, RENDERED, of, ray, ray_pods, render, settings

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
"""What of KubeRay's schema the chart uses, after its Go types (ray.io/v1); the whole one is not ours to ship."""

OBJECTS = RENDERED["on a Ray cluster"]
(CLUSTER,) = of(OBJECTS, "RayCluster")
HEAD, NODES = CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]
PODS = [*ray_pods(OBJECTS)]


def named(kind, name):
    (found,) = [each for each in of(OBJECTS, kind) if each["metadata"]["name"] == name]
    return found


FRONT = named("Deployment", "cars-vmmr-search")["spec"]["template"]
(SERVER,) = FRONT["spec"]["containers"]


def test_the_cluster_is_what_kuberay_takes():
    jsonschema = pytest.importorskip("jsonschema")
    assert CLUSTER["apiVersion"] == "ray.io/v1"
    jsonschema.validate(CLUSTER["spec"], SPEC)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(CLUSTER["spec"] | {"workers": 3}, SPEC)


def test_there_is_none_unless_it_is_asked_for():
    assert of(RENDERED["default"], "RayCluster") == []


def test_its_ray_is_the_one_that_is_installed_with_the_extra():
    (pinned,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["ray"]
    series = re.fullmatch(r"ray==(\d+\.\d+)\.\*", pinned)[1]
    assert CLUSTER["spec"]["rayVersion"].rpartition(".")[0] == series


def test_ray_knows_what_it_is_started_with():
    pytest.importorskip("ray")
    from ray.scripts.scripts import start

    known = {option.lstrip("-") for each in start.params for option in each.opts}
    assert {name for group in (HEAD, NODES) for name in group["rayStartParams"]} <= known
    shell, flag, script, name = SERVER["command"]
    assert (shell, flag, name) == ("sh", "-c", PROGRAMS["search"].command[0])
    flags = re.findall(r"--([\w-]+)", script.partition("&&")[0])
    assert {"address", "num-cpus", "object-store-memory"} <= set(flags) <= known
    assert script.endswith(f'exec {name} "$@"')


def test_values_say_how_many_nodes_there_are_and_how_large():
    assert {NODES[each] for each in ("replicas", "minReplicas", "maxReplicas")} == {5}
    (node,) = NODES["template"]["spec"]["containers"]
    assert node["resources"]["limits"] == {"cpu": "8", "memory": "32Gi"}


def test_every_pod_is_one_of_the_release_and_brings_its_probes():
    """KubeRay would add probes that need a program which the image lacks."""
    selected = named("NetworkPolicy", "cars-vmmr-ray")["spec"]["podSelector"]["matchLabels"]
    for pod in PODS:
        assert pod["metadata"]["labels"] == selected
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "gallery"}} in pod["spec"]["volumes"]
        (container,) = pod["spec"]["containers"]
        assert {"readinessProbe", "livenessProbe"} <= set(container)
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
        assert container["image"] == SERVER["image"] == "registry.example.com/cars/vmmr-search-ray:0.1.0"


def test_its_pods_may_do_as_little_as_the_others():
    for pod in PODS:
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"] == SERVER["securityContext"]
        for each in ("securityContext", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets"):
            assert pod["spec"][each] == FRONT["spec"][each]


@pytest.mark.parametrize(
    ("pod", "port"), [(0, HEAD["rayStartParams"]["port"]), (1, NODES["rayStartParams"]["node-manager-port"])]
)
def test_what_is_probed_is_a_port_that_ray_was_told(pod, port):
    (container,) = PODS[pod]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"]["port"] == int(port)


def test_a_node_listens_on_the_port_that_it_was_told():
    pytest.importorskip("ray")
    from demo.ray_nodes import ray_nodes

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with ray_nodes(1, node_manager_port=port):
        socket.create_connection(("127.0.0.1", port), 5).close()


def test_the_front_ends_only_read_the_index_that_the_nodes_share():
    served = settings(SERVER, PROGRAMS["search"])
    assert (served.engine, served.read_only, served.index, served.replicas) == ("ray", True, Path("/data/index"), 2)
    assert {"name": "data", "mountPath": "/data", "readOnly": True} in SERVER["volumeMounts"]
    (claim,) = [each for each in FRONT["spec"]["volumes"] if each["name"] == "data"]
    assert claim["persistentVolumeClaim"]["claimName"] == "gallery"


def test_ray_has_room_in_memory_for_the_objects_of_a_front_end():
    """It would put them on the disk otherwise."""
    (shared,) = [each["name"] for each in SERVER["volumeMounts"] if each["mountPath"] == "/dev/shm"]
    (volume,) = [each["emptyDir"] for each in FRONT["spec"]["volumes"] if each["name"] == shared]
    (objects,) = re.findall(r"--object-store-memory=(\d+)", SERVER["command"][2])
    assert volume == {"medium": "Memory", "sizeLimit": "512Mi"}
    assert int(objects) < 512 * 2**20


@pytest.mark.parametrize("release", ["cars", "a-release-" + 43 * "x"])
def test_the_front_ends_ask_the_head_by_the_name_that_kuberay_gives_it(release):
    """KubeRay cuts longer names, from the left."""
    objects = render({"search": ray()}, name=release)
    (cluster,) = of(objects, "RayCluster")
    service = f"{cluster['metadata']['name']}-head-svc"
    assert len(service) <= 50
    (asked,) = {
        each["value"]
        for deployment in of(objects, "Deployment")
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for each in container["env"]
        if each["name"] == "VMMR_SEARCH_RAY_ADDRESS"
    }
    assert asked == f"{service}:{HEAD['rayStartParams']['port']}"


def chosen(rules, direction):
    """Components of the release that rules of a policy let in or out on any port; peers of other kinds as they are."""
    return {
        peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component", str(peer))
        for rule in rules
        if "ports" not in rule
        for peer in rule[direction]
    }


def test_nobody_reaches_the_ports_of_ray_but_nodes_and_front_ends_of_the_release():
    for name in ("cars-vmmr-ray", "cars-vmmr-search"):
        policy = named("NetworkPolicy", name)["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert chosen(policy["ingress"], "from") == chosen(policy["egress"], "to") == {"ray", "search"}
        for rule in policy["ingress"]:
            assert rule.get("ports") in (None, [{"port": "main"}], [{"port": "metrics"}])
            if "ports" not in rule:
                assert {p["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] for p in rule["from"]} == {"cars"}
    assert [rule for rule in named("NetworkPolicy", "cars-vmmr-ray")["spec"]["ingress"] if "ports" in rule] == []


def test_two_replicas_of_a_shard_are_not_put_on_one_machine_if_there_are_more():
    spread = {each["topologyKey"]: each for each in NODES["template"]["spec"]["topologySpreadConstraints"]}
    matched = spread["kubernetes.io/hostname"]["labelSelector"]["matchLabels"]
    assert matched == NODES["template"]["metadata"]["labels"] | {"ray.io/node-type": "worker"}  # KubeRay's own label


def test_nodes_are_taken_away_one_by_one():
    budget = named("PodDisruptionBudget", "cars-vmmr-ray")["spec"]
    assert budget["minAvailable"] == NODES["replicas"]  # of one more, the head
    assert budget["selector"]["matchLabels"].items() <= PODS[0]["metadata"]["labels"].items()
