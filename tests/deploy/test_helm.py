"""The chart, rendered by Helm's own library, is valid for Kubernetes, and says what the programs and images understand."""

import importlib.util
import itertools
import json

import pytest
import yaml

from embedder_svc.__main__ import parser as embedder_parser
from search_svc.__main__ import parser as search_parser
from svckit import config, probe
from tests.deploy.test_deploy import DEPLOY, ROOT, SERVICES

helm = pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")
kubernetes = pytest.importorskip("kubernetes_validate")

CHART = DEPLOY / "helm/vmmr"
VALUES = {
    "default": {},
    "readers and a writer": {
        "image": {"registry": "registry.example.com/cars", "tag": "1.2.3", "pullSecrets": [{"name": "pull"}]},
        "embedder": {"model": "memory://bucket/model", "env": {"VMMR_EMBEDDER_CACHE_PHOTOS": 1000}},
        "search": {
            "gallery": "memory://bucket/backups",
            "galleryRevision": "2",
            "env": {"VMMR_SEARCH_MAX_K": 100},
            "writer": {"enabled": True, "storageClass": "fast", "env": {"VMMR_SEARCH_BACKUP_EVERY": "5m"}},
        },
        "storageSecret": "storage",
    },
    "a writer from a backup": {"search": {"writer": {"enabled": True, "from": "memory://bucket/other"}}},
    "secured": {"tls": {"secret": "tls"}, "token": {"secret": "token"}},
    "secured on both sides": {"tls": {"secret": "tls", "mutual": True}},
    "scaled and watched": {
        "embedder": {"autoscaling": {"enabled": True}},
        "search": {"autoscaling": {"enabled": True}},
        "metrics": {"serviceMonitor": True},
    },
    "without a page": {"web": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "on a Ray cluster": {
        "image": {"registry": "registry.example.com/cars", "pullSecrets": [{"name": "pull"}]},
        "search": {"ray": {"enabled": True, "claim": "gallery", "nodes": 5, "cores": 8, "memory": "32Gi"}},
        "tls": {"secret": "tls", "mutual": True},
        "token": {"secret": "token"},
        "metrics": {"serviceMonitor": True},
    },
    "slow to end": {"shutdown": {"preStopSeconds": 30, "drainPauseSeconds": 2.5, "drainSeconds": 300}},
}
IMAGES = ("vmmr-embedder", "vmmr-search", "vmmr-web")
PROGRAMS = {service.name: service for service in SERVICES}


def render(values, folder=CHART, name="cars"):
    with helm.Chart.load(str(folder)) as chart:
        texts = chart.render(values, name=name, namespace="shop").values()
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


RENDERED = {name: render(values) for name, values in VALUES.items()}


@pytest.fixture(params=RENDERED, ids=[name.replace(" ", "-") for name in RENDERED])
def objects(request):
    return RENDERED[request.param]


def of(objects, *kinds):
    return [each for each in objects if each["kind"] in kinds]


def workloads(objects):
    return of(objects, "Deployment", "StatefulSet")


def ray_pods(objects):
    """The templates of the pods that KubeRay starts: the head's, and that of the nodes."""
    for each in of(objects, "RayCluster"):
        for group in (each["spec"]["headGroupSpec"], *each["spec"]["workerGroupSpecs"]):
            yield group["template"]


def containers(objects):
    """(the pod's specification, its container, the service that runs in it) of each workload."""
    for workload in workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        yield pod, container, PROGRAMS[container["name"].removesuffix("-writer")]


def settings(container, service):
    """What the program makes of the image's environment, the container's, and its arguments."""
    environment = service.environment | {each["name"]: each["value"] for each in container["env"]}
    arguments = service.parser.parse_args(container["args"])
    return config.from_namespace(service.config, service.prefix, arguments, environment)


def test_every_object_is_valid_for_kubernetes(objects):
    for each in objects:
        if each["kind"] not in ("ServiceMonitor", "RayCluster"):  # of the Prometheus operator, and of KubeRay
            kubernetes.validate(each, "1.34", strict=True)
    for pod in ray_pods(objects):
        kubernetes.validate({"apiVersion": "v1", "kind": "Pod"} | pod, "1.34", strict=True)


def ray(**values):
    """Values of `search`, for a Ray cluster."""
    return {"ray": {"enabled": True, "claim": "gallery"} | values}


WRONG = {
    "a typo at the top": ({"embeder": {"replicas": 3}}, "embeder"),
    "a typo within": ({"search": {"writer": {"enable": True}}}, "enable"),
    "a typo of a list's": ({"image": {"pullSecrets": [{"nam": "pull"}]}}, "nam"),
    "a text for a number": ({"web": {"replicas": "two"}}, "replicas"),
    "none at all": ({"search": {"replicas": 0}}, "replicas"),
    "no size": ({"search": {"gallerySize": "10 gigabytes"}}, "gallerySize"),
    "no variable": ({"embedder": {"env": {"cachePhotos": 1}}}, "cachePhotos"),
    "a variable that is a list": (
        {"embedder": {"env": {"VMMR_EMBEDDER_CACHE_PHOTOS": [1]}}},
        "VMMR_EMBEDDER_CACHE_PHOTOS",
    ),
    "a resource that is no amount": ({"web": {"resources": {"limits": {"memory": "much"}}}}, "memory"),
    "a pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "mutual TLS without TLS": ({"tls": {"mutual": True}}, "secret"),
    "a Ray cluster without a volume": ({"search": ray(claim="")}, "search.ray.claim must name"),
    "a Ray cluster without nodes": ({"search": ray(nodes=0)}, "nodes"),
    "a part of a core": ({"search": ray(cores=0.5)}, "cores"),
    "memory that is no amount": ({"search": ray(memory="much")}, "memory"),
    "more replicas than nodes": (
        {"search": ray(nodes=2, shardReplicas=3)},
        "shardReplicas must be <= search.ray.nodes",
    ),
    "a writer beside a Ray cluster": (
        {"search": ray() | {"writer": {"enabled": True}}},
        "search.writer.enabled does not go",
    ),
    "backups beside a Ray cluster": (
        {"search": ray() | {"gallery": "s3://bucket/backups"}},
        "search.gallery does not go",
    ),
    "newer backups beside a Ray cluster": (
        {"search": ray() | {"galleryRevision": "2"}},
        "search.galleryRevision does not go",
    ),
    "a Ray cluster that others reach": (
        {"search": ray(), "networkPolicy": {"enabled": False}},
        "networkPolicy.enabled must be true",
    ),
    "front ends that scale": (
        {"search": ray() | {"autoscaling": {"enabled": True}}},
        "search.autoscaling.enabled does not go",
    ),
}


@pytest.mark.parametrize(("values", "named"), WRONG.values(), ids=WRONG)
def test_values_that_cannot_be_meant_are_refused_by_name(values, named):
    with pytest.raises(helm.HelmError, match=named):
        render(values)


def test_the_schema_knows_each_value_and_no_other():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def names(part, prefix=""):
        part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        for key, value in part.get("properties", {}).items():
            yield f"{prefix}{key}"
            yield from names(value, f"{prefix}{key}.")

    def given(values, prefix=""):
        for key, value in values.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict) and key not in ("requests", "limits"):
                yield from given(value, f"{prefix}{key}.")

    extra = {
        "global",
        *(f"{each}.resources.claims" for each in ("embedder", "search", "web")),
        "web.resources.limits.cpu",
    }
    values = {*given(yaml.safe_load((CHART / "values.yaml").read_text()))}
    assert values <= {*names(schema)}
    assert {*names(schema)} - values <= extra


def test_helm_itself_finds_nothing_wrong():
    assert helm.lint(str(CHART))["errors"] == []


def test_the_services_and_the_page_are_there():
    names = [each["metadata"]["name"] for each in workloads(RENDERED["default"])]
    assert names == ["cars-vmmr-embedder", "cars-vmmr-search", "cars-vmmr-web"]
    assert len(workloads(RENDERED["without a page"])) == 2
    assert [each["kind"] for each in workloads(RENDERED["readers and a writer"])].count("StatefulSet") == 1


def test_variables_and_arguments_are_those_of_the_programs(objects):
    for _, container, service in containers(objects):
        names = [each["name"] for each in container["env"]]
        assert [name for name in names if not service.is_setting(name)] == []
        assert len(names) == len({*names})
        settings(container, service)


@pytest.mark.parametrize("written", [33554432, 2**40, 1000000.0, 0.25, 100, True, "33554432"])
def test_numbers_of_values_reach_the_programs_as_they_were_written(written):
    rendered = render({"search": {"env": {"VMMR_SEARCH_MAX_REQUEST_BYTES": written}}})
    ((said,),) = (
        [each["value"] for each in container["env"] if each["name"] == "VMMR_SEARCH_MAX_REQUEST_BYTES"]
        for _, container, service in containers(rendered)
        if service.name == "search"
    )
    assert said == {1000000.0: "1000000", True: "true"}.get(written, str(written))


def test_a_registry_may_end_with_a_slash():
    images = [
        container["image"] for _, container, _ in containers(render({"image": {"registry": "example.com/cars/"}}))
    ]
    assert [image.rpartition(":")[0] for image in images] == [f"example.com/cars/{name}" for name in IMAGES]


def test_ports_are_those_that_are_served_and_probed(objects):
    for _, container, service in containers(objects):
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        served = settings(container, service)
        assert served.host == "0.0.0.0"
        assert ports == {"main": served.port, "metrics": served.metrics_port}
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[name]
            assert asked.get("grpc", {}).get("port", served.port) == served.port
            assert {"grpc", "httpGet", "exec", "tcpSocket"} & asked.keys()


def test_with_tls_a_command_of_the_image_asks_since_the_clusters_own_probe_speaks_none(objects):
    for _, container, service in containers(objects):
        if service.name != "web" and settings(container, service).tls_cert:
            python, flag, module, *arguments = container["readinessProbe"]["exec"]["command"]
            assert (python, flag, importlib.util.find_spec(module).name) == ("python", "-m", probe.__name__)
            assert probe.parser().parse_args(arguments).address == f"127.0.0.1:{settings(container, service).port}"
            assert "grpc" not in container["livenessProbe"]


def test_with_mutual_tls_the_page_and_the_probes_show_a_certificate_that_the_services_ask_for():
    found = [(c, s.name, settings(c, s)) for _, c, s in containers(RENDERED["secured on both sides"])]
    for container, name, served in found:
        if name == "web":
            shown = served.services_tls_ca, served.services_tls_cert, served.services_tls_key
        else:
            assert str(served.tls_client_ca) == "/tls/ca.crt"
            probed = probe.parser().parse_args(container["readinessProbe"]["exec"]["command"][3:])
            shown = probed.tls_ca, probed.tls_cert, probed.tls_key
        assert [*map(str, shown)] == ["/tls/ca.crt", "/tls/tls.crt", "/tls/tls.key"]
        assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in container["volumeMounts"]
    assert len(found) == 3


def test_the_page_probes_paths_that_it_has(objects):
    from web.app import _PROGRAMS

    paths = {
        c[p]["httpGet"]["path"]
        for _, c, s in containers(objects)
        if s.name == "web"
        for p in ("readinessProbe", "livenessProbe")
    }
    assert paths <= {*_PROGRAMS}


def test_pods_are_given_the_time_to_end(objects):
    for pod, container, service in containers(objects):
        served = settings(container, service)
        waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] >= waits + served.drain_pause_s + served.drain_s + 5


def test_pods_may_do_little(objects):
    for pod, container, service in containers(objects):
        (user,) = service.last_stage("USER")
        assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        for each in (container, *pod.get("initContainers", [])):
            allowed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            assert each["securityContext"] == allowed | {"capabilities": {"drop": ["ALL"]}}
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys()
            assert "memory" in each["resources"]["limits"]


def test_what_is_served_is_in_the_image_or_was_fetched_to_where_it_is_looked_for(objects):
    for pod, container, service in containers(objects):
        served = settings(container, service)
        where = {"embedder": "model", "search": "index"}.get(service.name)
        if where is None:
            continue
        place = str(getattr(served, where))
        fetching = pod.get("initContainers", [])
        if not fetching and getattr(served, "engine", "local") == "ray":
            (folder,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "data")
            assert place == f"{folder}/index"
            continue
        if not fetching:
            assert place == service.command[-1]
            continue
        (init,) = fetching
        program, *arguments = init["command"]
        if program == "sh":
            assert place in arguments[-1]
            assert service.command[-1] in arguments[-1]
        else:
            parsed = {"vmmr-embedder": embedder_parser, "vmmr-search": search_parser}[program]().parse_args(arguments)
            assert str(getattr(parsed, where)) == place
        mounts = {each["mountPath"] for each in init["volumeMounts"]} & {
            each["mountPath"] for each in container["volumeMounts"]
        }
        assert any(place.startswith(f"{mount}/") for mount in mounts)


def test_one_server_writes_and_the_others_read(objects):
    for workload in workloads(objects):
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        if not container["name"].startswith("search"):
            continue
        writes = container["name"] == "search-writer"
        assert settings(container, PROGRAMS["search"]).read_only is not writes
        if writes:
            assert workload["spec"]["replicas"] == 1
            (claim,) = workload["spec"]["volumeClaimTemplates"]
            assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_writer_backs_up_to_where_readers_start_from():
    found = {c["name"]: (pod, settings(c, s)) for pod, c, s in containers(RENDERED["readers and a writer"])}
    (init,) = found["search"][0]["initContainers"]
    assert found["search-writer"][1].backup_to == search_parser().parse_args(init["command"][1:]).backups


def test_volumes_that_are_mounted_are_there(objects):
    for workload in workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        claims = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])}
        volumes = {each["name"] for each in pod["volumes"]} | claims
        mounted = {m["name"] for c in (*pod["containers"], *pod.get("initContainers", [])) for m in c["volumeMounts"]}
        assert mounted == volumes


def test_a_rolling_update_never_has_fewer_servers(objects):
    for deployment in of(objects, "Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_selectors_find_the_pods_of_one_workload(objects):
    labels = {w["metadata"]["name"]: w["spec"]["template"]["metadata"]["labels"] for w in workloads(objects)}
    for each in of(objects, "RayCluster"):
        labels[each["metadata"]["name"]] = each["spec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    chosen = [
        (each["metadata"]["name"], selector)
        for each in objects
        if (spec := each["spec"])
        for selector in (
            spec.get("podSelector", {}).get("matchLabels"),
            spec.get("selector", {}).get("matchLabels") if each["kind"] != "Service" else spec["selector"],
        )
        if selector
    ]
    assert chosen
    for name, selector in chosen:
        assert [found for found, has in labels.items() if selector.items() <= has.items()] == [name]


def test_grpc_services_are_headless_and_the_page_finds_them(objects):
    services = {each["metadata"]["name"]: each["spec"] for each in of(objects, "Service")}
    for _, container, service in containers(objects):
        if service.name == "web":
            served = settings(container, service)
            for target in (served.embedder, served.search):
                name, namespace, *_ = target.partition(":")[0].split(".")
                assert namespace == "shop"
                assert services[name]["clusterIP"] == "None"
                assert int(target.partition(":")[2]) in [port["port"] for port in services[name]["ports"]]


def test_what_scales_is_a_metric_and_a_batcher_of_the_service():
    from svckit.metrics import Metrics

    exported = {family.name for family in Metrics().registry.collect()}
    for each in of(RENDERED["scaled and watched"], "HorizontalPodAutoscaler"):
        (metric,) = each["spec"]["metrics"]
        assert metric["pods"]["metric"]["name"] in exported
        batcher = metric["pods"]["metric"]["selector"]["matchLabels"]["batcher"]
        service = each["metadata"]["name"].rpartition("-")[2]
        assert f'"{batcher}"' in (ROOT / f"{service}_svc/__main__.py").read_text()
        assert (
            "replicas"
            not in next(
                d
                for d in of(RENDERED["scaled and watched"], "Deployment")
                if d["metadata"]["name"] == each["metadata"]["name"]
            )["spec"]
        )


def test_the_page_about_it_names_every_value():
    page = (ROOT / "docs/kubernetes.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def names(part, prefix=""):
        for key, value in part.items():
            if isinstance(value, dict) and value and key != "resources":
                yield from names(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    shared = {
        name.partition(".")[2] for name in names(values) if name.partition(".")[0] in ("embedder", "search", "web")
    }
    lacking = [
        n
        for n in names(values)
        if f"`{n}`" not in page and not (n.partition(".")[2] in shared and f"`{n.partition('.')[2]}`" in page)
    ]
    assert lacking == []


def test_the_rendered_form_that_kubectl_takes_is_that_of_the_chart():
    stored = list(yaml.safe_load_all((DEPLOY / "kubernetes/vmmr.yaml").read_text()))
    assert json.dumps(stored) == json.dumps(RENDERED_PLAIN), "python deploy/kubernetes/render.py"


def _plain():
    spec = importlib.util.spec_from_file_location("render", DEPLOY / "kubernetes/render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(yaml.safe_load_all(module.rendered()))


RENDERED_PLAIN = _plain()


def test_kustomize_is_told_of_it():
    told = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    assert told["resources"] == ["vmmr.yaml"]
    names = [f"{each['kind']}/{each['metadata']['name']}" for each in RENDERED_PLAIN]
    assert all(len([*group]) == 1 for _, group in itertools.groupby(sorted(names)))
