import subprocess
import sys

import pytest

from svckit.extras import install, needing

# A process in which the libraries of the servers cannot be imported, as where the SDK alone is installed.
BARE = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
sys.argv = [{program!r}, "serve"]
from {package}.__main__ import main
main()
"""


def run(program, package, *missing):
    code = BARE.format(program=program, package=package, missing=missing)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("program", "package"), [("vmmr-search", "search_svc"), ("vmmr-embedder", "embedder_svc")])
@pytest.mark.parametrize("missing", ["PIL", "tqdm", "prometheus_client", "grpc_health"])
def test_a_server_without_its_libraries_names_the_extra(program, package, missing):
    if (package, missing) == ("search_svc", "PIL"):
        missing = "faiss"
    done = run(program, package, missing)
    assert done.stderr == f"{program}: error: {missing} is not installed: {install('cpu')}; or '.[gpu]'\n"
    assert done.returncode == 1


def test_a_module_of_ours_that_is_missing_is_a_bug_and_told_as_one():
    done = run("vmmr-search", "search_svc", "search_svc.engine.merge")
    assert "ModuleNotFoundError: import of search_svc.engine.merge halted" in done.stderr


def test_what_needs_an_extra_raises_what_it_is_told_to_and_names_library_and_extra():
    with pytest.raises(LookupError) as raised, needing("report", LookupError, "--html needs {library}"):
        raise ModuleNotFoundError(name="jinja2.ext")
    assert raised.value.args == (f"--html needs jinja2: {install('report')}",)
    with pytest.raises(ModuleNotFoundError), needing("report", LookupError):
        raise ModuleNotFoundError(name="search_svc.evaluation.report.page")
