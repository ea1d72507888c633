"""What ARCHITECTURE.md says of imports, where import-linter's contracts (pyproject.toml) are too coarse."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("client/vmmr", "svckit", "embedder_svc", "search_svc", "loadtest", "web", "doctor")


def importers(library: str) -> set[str]:
    """Modules, as paths from the root, that import the library anywhere in their code."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if library in imported(ast.parse(path.read_text()))
    }


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of what a module imports."""
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | froms}


FAISS = {
    f"engine/{name}" for name in ("adapters", "comparing", "faiss_layers", "float16", "gpu", "shard", "threads")
} | {
    "building/build",
    "building/faiss_index",
}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("faiss", {f"search_svc/{module}.py" for module in FAISS}),
        ("onnxruntime", {"embedder_svc/network/runtime.py", "embedder_svc/exporting/quantize.py"}),
    ],
)
def test_a_library_is_imported_in_its_own_module_alone(library: str, allowed: set[str]) -> None:
    assert importers(library) == allowed


def test_ray_is_imported_by_what_runs_on_a_cluster_alone_and_by_no_command_before_it_is_asked_for() -> None:
    cluster = {f"search_svc/engine/cluster/{name}.py" for name in ("connection", "keeper", "racing")}
    assert importers("ray") == cluster | {"svckit/ray_cluster.py"}
    command = "import sys, search_svc.__main__, embedder_svc.__main__; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=False).returncode == 0


def test_torch_is_imported_by_export_and_training_alone() -> None:
    rooms = {Path(module).parent.as_posix() for module in importers("torch") | importers("torchvision")}
    assert rooms == {"embedder_svc/exporting", "embedder_svc/training"}


def test_only_the_second_face_registers_the_messages_of_kserve() -> None:
    """A caller's own tritonclient registers them, too, and a process can have them only once."""
    sources = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    users = {path.relative_to(ROOT).as_posix() for path in sources if "vmmr.inference" in path.read_text()}
    own = {name for name in users if name.startswith("client/vmmr/inference/")}
    assert users - own == {
        f"embedder_svc/{name}.py" for name in ("__main__", "serving/kserve", "serving/kserve_tensors")
    }


def servicers() -> dict[str, str]:
    """The modules, as paths from the root, that implement a service of the contracts, by the base class of it."""
    return {
        base.attr: path.relative_to(ROOT).as_posix()
        for package in PACKAGES[1:]
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Attribute) and base.attr.endswith("Servicer")
    }


def test_every_service_has_a_servicer_and_no_servicer_holds_a_try_statement() -> None:
    contracts = [ast.parse(path.read_text()) for path in (ROOT / "client/vmmr").rglob("*_pb2_grpc.py")]
    classes = {node.name for tree in contracts for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert servicers().keys() == {name for name in classes if name.endswith("Servicer")}
    for servicer in servicers().values():
        tree = ast.parse((ROOT / servicer).read_text())
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Try | ast.TryStar)], servicer


def test_the_load_test_takes_pages_and_names_of_extras_of_what_servers_share() -> None:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "loadtest").rglob("*.py")]
    froms = {node.module for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module for module in froms if module and module.startswith("svckit")} == {
        "svckit.extras",
        "svckit.page",
        "svckit.page.drawing",
    }


def test_the_web_program_takes_of_what_servers_share_only_what_makes_a_process_one_of_ours() -> None:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "web").rglob("*.py")]
    froms = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    plain = {f"svckit.{alias.name}" for node in froms if node.module == "svckit" for alias in node.names}
    modules = {node.module for node in froms if node.module and node.module.startswith("svckit.")}
    assert plain | modules == {
        f"svckit.{name}"
        for name in (
            "cli",
            "config",
            "extras",
            "logs",
            "metrics",
            "ports",
            "signals",
            "spans",
            "supervisor",
            "tls",
            "tracing",
        )
    }
