"""`vmmr doctor`: each finding in the condition that it is about."""

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from vmmr import TLS, Client

from doctor import __main__ as command
from doctor import folders, machine, servers
from doctor.findings import State, guarded, lines, not_checked, ok, warn
from search_svc.building.compaction import compact
from search_svc.building.spec import IndexSpec
from search_svc.index.index_dir import make_current
from search_svc.index.retention import retire
from search_svc.index.writes import Add
from search_svc.voting.labels import parse
from tests.conftest import TIMEOUT_S
from tests.search_svc.building.test_compaction import write
from tests.search_svc.builds import build_version
from tests.search_svc.journals import stored

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/resnet50-cars-int8"
FIRST_ANSWER_S = 0.01
"""For as long, a server that can't be reached is looked for: once."""
OK, WARN, FAIL, NOT_CHECKED = State.OK, State.WARN, State.FAIL, State.NOT_CHECKED


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("index")
    build_version(
        path,
        embeddings=np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32),
        item_ids=[f"photo {row}" for row in range(20)],
        labels=[parse("honda_civic_2005")] * 20,
        uris=[""] * 20,
        model="c0ffee" + 58 * "0",
        model_name="another",
        spec=IndexSpec(),
    )
    return path


@pytest.fixture
def index(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes a distribution of a name and a version look installed, as pip leaves it."""

    def install(name, version):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


class TestMachine:
    def test_two_distributions_of_different_releases(self, installed):
        assert machine.versions().state == OK
        installed("vmmr", "9.9.9")
        found = machine.versions()
        assert (found.state, "vmmr 9.9.9" in found.text) == (FAIL, True)
        assert found.advice.startswith("install both of one release")

    def test_two_wheels_that_overwrite_each_other(self, installed):
        assert machine.wheel("faiss-cpu", "faiss-gpu").state == OK
        installed("faiss-gpu", "1.15.1")
        found = machine.wheel("faiss-cpu", "faiss-gpu")
        assert (found.state, found.text) == (FAIL, "faiss-cpu and faiss-gpu are both installed, and broke each other")
        assert found.advice.startswith("`pip uninstall faiss-cpu faiss-gpu`")

    def test_none_of_two_wheels(self):
        assert machine.wheel("no-such-wheel", "nor-this-one").state == WARN

    def test_a_cpu_without_vnni(self, tmp_path, monkeypatch):
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        states = []
        for flags in ("avx2 avx512f", "avx2 avx_vnni"):
            (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
            states.append(machine.instructions(tmp_path / "cpuinfo").state)
        assert states == [WARN, OK]

    def test_a_gpu_that_nothing_can_use(self, tmp_path, installed):
        assert machine.gpu(tmp_path / "none").state == OK
        (tmp_path / "gpus/0000:01:00.0").mkdir(parents=True)
        found = machine.gpu(tmp_path / "gpus")
        assert (found.state, found.text) == (WARN, "1 there, and faiss-cpu and onnxruntime cannot use it")
        installed("faiss-gpu", "1.15.1")
        installed("onnxruntime-gpu", "1.31.1")
        assert machine.gpu(tmp_path / "gpus").state == OK


class TestFolders:
    def test_a_model_that_is_not_there_or_damaged(self, tmp_path):
        assert folders.model(tmp_path)[0].state == FAIL
        bundle = shutil.copytree(MODEL, tmp_path / "bundle")
        assert folders.model(bundle)[0].state == OK
        flip(bundle / "model.onnx")
        found, info = folders.model(bundle)
        assert (found.state, info) == (FAIL, None)
        assert f"{bundle}/model.onnx: is damaged" in found.text

    def test_a_gallery_that_is_not_there_or_damaged(self, index, tmp_path):
        assert folders.gallery(tmp_path / "none")[0].state == FAIL
        assert folders.gallery(index)[0].state == OK
        flip(index / "versions/000001/embeddings.npy")
        found, version = folders.gallery(index)
        assert (found.state, version) == (FAIL, None)
        assert "embeddings.npy: is damaged" in found.text

    def test_where_there_is_no_gallery_one_is_to_be_named(self, index, tmp_path):
        (tmp_path / "empty").mkdir()
        for place in (tmp_path / "none", tmp_path / "empty"):
            assert folders.gallery(place)[0].advice == "name an index by --index; `vmmr-search build` makes one"
        (index / "CURRENT").unlink()
        assert folders.gallery(index)[0].advice == "docs/live.md, When the disk fails, says what helps"
        found = folders.writing(tmp_path / "empty")
        assert (found.state, found.text) == (NOT_CHECKED, f"there is no folder {tmp_path / 'empty/versions'}")

    def test_a_version_whose_journal_was_pruned_beyond_it(self, index, tmp_path):
        """Version and journal are each as they were written, and together not the gallery."""
        write(index, Add({"new": stored()}))
        shutil.copytree(index / "versions/000001", tmp_path / "before")
        compact(index)
        retire(index, 1)
        assert folders.gallery(index)[0].state == OK
        shutil.move(tmp_path / "before", index / "versions/000001")
        make_current(index, "000001")
        found, _ = folders.gallery(index)
        assert (found.state, "pruned up to 1" in found.text) == (FAIL, True)

    def test_a_model_and_a_gallery_of_different_fingerprints(self, index):
        info, shipped = folders.model(MODEL)[1], folders.gallery(ROOT / "models/stanford-cars")[1]
        assert folders.fit(info, shipped).state == OK
        found = folders.fit(info, folders.gallery(index)[1])
        assert found.state == FAIL
        assert found.text.startswith("the gallery is of the model c0ffee000000, the model is ")
        assert folders.fit(info, None).state == NOT_CHECKED

    def test_a_folder_that_cannot_be_written(self, index, read_only):
        assert (folders.writing(index).state, folders.flushing(index).state) == (OK, OK)
        read_only(index)
        found = folders.writing(index)
        assert found.state == FAIL
        assert re.match(rf"{index}: (Read-only file system|Permission denied): photos cannot be added", found.text)
        assert folders.flushing(index).state == NOT_CHECKED

    def test_a_disk_that_is_nearly_full(self, index, tmp_path, mount):
        assert folders.room(index).state == OK
        (tmp_path / "disk").mkdir()
        mount("-t", "tmpfs", "-o", "size=2000k", "tmpfs", tmp_path / "disk")
        found = folders.room(shutil.copytree(index, tmp_path / "disk/index"))
        assert (found.state, found.text[:13]) == (FAIL, "0.0 GiB free,")

    def test_a_disk_without_room_for_a_compaction(self, index, monkeypatch):
        monkeypatch.setattr(folders, "_LEAST_ROOM", 0)
        with (index / "versions/000001/large").open("wb") as file:
            file.truncate(shutil.disk_usage(index).free)  # takes no room, and says that it does
        assert folders.room(index).state == WARN

    def test_a_slow_disk(self, index, monkeypatch):
        monkeypatch.setattr(folders, "_SLOW_FLUSH_S", 0)
        found = folders.flushing(index)
        assert (found.state, found.advice) == (WARN, "put the index on a local SSD")


class TestServers:
    @pytest.fixture(autouse=True)
    def time_to_answer(self, monkeypatch):
        """Servers that are asked about TLS and the time answer, however late this machine is."""
        monkeypatch.setattr("vmmr._connection._PROBE_S", TIMEOUT_S)
        monkeypatch.setattr(servers, "_CONNECT_S", TIMEOUT_S)

    @pytest.fixture
    def client(self, free_port):
        target = f"127.0.0.1:{free_port}"
        with Client(target, target, timeout_s=TIMEOUT_S, reconnect_s=FIRST_ANSWER_S) as client:
            yield client

    def test_where_nobody_listens(self, client, free_port):
        found, info = servers.reach(client)
        assert [each.state for each in found] == [FAIL, FAIL]
        assert f"127.0.0.1:{free_port}" in found[0].text
        assert servers.served(info).state == servers.photo(client, None, info).state == NOT_CHECKED

    @pytest.mark.parametrize(
        ("status", "advice"),
        [
            (grpc.StatusCode.UNAUTHENTICATED, "give a token or a certificate that it lets in"),
            (grpc.StatusCode.PERMISSION_DENIED, "give a token or a certificate that it lets in"),
            (grpc.StatusCode.UNIMPLEMENTED, "see whether --embedder names it"),
            (grpc.StatusCode.UNAVAILABLE, "start `vmmr-embedder serve`, or name it by --embedder"),
        ],
    )
    def test_one_that_refuses_is_not_to_be_started(self, refusing, status, advice):
        target = f"127.0.0.1:{refusing(status)}"
        # Where another attempt could be made, the first answer counts; where not, the connection has all the time that it takes.
        reconnect_s = FIRST_ANSWER_S if status is grpc.StatusCode.UNAVAILABLE else None
        with Client(target, target, timeout_s=TIMEOUT_S, reconnect_s=reconnect_s) as client:
            assert servers.reach(client)[0][0].advice.startswith(advice)

    @pytest.mark.parametrize(("timeout_s", "looked_for_s"), [(50, 5), (10, 1), (1, 1)])
    def test_one_that_cannot_be_reached_is_looked_for_a_tenth_of_the_time(self, monkeypatch, timeout_s, looked_for_s):
        made = []
        monkeypatch.setattr(command, "Client", lambda *_, **settings: made.append(settings))
        command._client(command.parser().parse_args(["--timeout", str(timeout_s)]))
        assert [(each["timeout_s"], each["reconnect_s"]) for each in made] == [(timeout_s, looked_for_s)]

    def test_one_that_expects_tls_is_to_be_asked_with_it_in_the_words_of_the_command(self, serve_tls):
        target = f"127.0.0.1:{serve_tls(trustme.CA().issue_cert('127.0.0.1'))}"
        with Client(target, target, timeout_s=TIMEOUT_S) as client:
            found = servers.reach(client)[0][0]
        assert found.text.endswith("expects TLS, and this client has none: give --tls or --tls-ca")
        assert found.advice.startswith("give --tls, --tls-ca, or neither")

    @pytest.mark.parametrize(
        ("ends_in_days", "state", "said"),
        [(-1, FAIL, "certificate has expired"), (10, WARN, "ends in 10 days"), (90, OK, "ends in 90 days")],
    )
    def test_a_certificate_that_ends(self, tmp_path, serve_tls, ends_in_days, state, said):
        ca = trustme.CA()
        ca.cert_pem.write_to_path(tmp_path / "ca.pem")
        # An hour more: days are told as whole ones.
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=ends_in_days, hours=1)
        port = serve_tls(ca.issue_cert("127.0.0.1", not_before=ends - dt.timedelta(days=365), not_after=ends))
        found = servers.certificate("embedder", f"127.0.0.1:{port}", TLS(str(tmp_path / "ca.pem")))
        assert (found.state, said in found.text) == (state, True), found

    def test_a_certificate_of_another_ca(self, tmp_path, serve_tls):
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
        port = serve_tls(trustme.CA().issue_cert("127.0.0.1"))
        found = servers.certificate("embedder", f"127.0.0.1:{port}", TLS(str(tmp_path / "ca.pem")))
        assert (found.state, found.advice) == (FAIL, "trust the CA that signed it: --tls-ca")

    def test_no_certificate(self, free_port):
        address = f"127.0.0.1:{free_port}"
        assert servers.certificate("embedder", address, None).state == NOT_CHECKED
        found = servers.certificate("embedder", address, TLS())
        assert (found.state, found.text) == (NOT_CHECKED, f"{address}: Connection refused")

    @pytest.mark.parametrize(("ahead_s", "state"), [(0, OK), (20, WARN), (-3600, FAIL)])
    def test_a_clock_that_is_wrong(self, serve_clock, ahead_s, state):
        assert servers.clock(serve_clock(ahead_s)).state == state

    def test_a_clock_that_nobody_tells(self, free_port):
        assert servers.clock(None).state == NOT_CHECKED
        assert servers.clock(f"http://127.0.0.1:{free_port}/metrics").state == NOT_CHECKED
        assert "hidden" not in servers.clock(f"http://me:hidden@127.0.0.1:{free_port}/?key=hidden").text

    def test_a_page_that_is_the_port_of_grpc(self, grpc_port):
        found = servers.clock(f"http://127.0.0.1:{grpc_port}/metrics")
        assert (found.state, "BadStatusLine" in found.text) == (NOT_CHECKED, True)


def test_a_real_pair_is_well_and_one_of_another_gallery_is_not(run, built):
    started = [
        run("-m", "embedder_svc", "serve", "--port", 0, "--metrics-port", 0, "--model", MODEL),
        run("-m", "search_svc", "serve", "--port", 0, "--index", ROOT / "models/stanford-cars", "--read-only"),
        run("-m", "search_svc", "serve", "--port", 0, "--index", built),
    ]
    embedder, search, another = (server.ready() for server in started)
    where = (
        "--embedder",
        f"127.0.0.1:{embedder['port']}",
        "--http",
        f"http://127.0.0.1:{embedder['metrics_port']}/metrics",
    )
    asked = (*where, "--model", MODEL, "--timeout", 600, "--json")
    code, found = doctor(*asked, "--index", ROOT / "models/stanford-cars", "--search", f"127.0.0.1:{search['port']}")
    well = {"embedder", "search service", "served pair", "model", "gallery", "model and gallery", "clock"}
    assert {check: found[check]["state"] for check in well} == dict.fromkeys(well, "ok")
    assert found["a photo"]["state"] in ("ok", "warn"), "however slow the machine is"
    assert re.match(r"\d+ ms from file to answer \((known|unsure|unknown)\)", found["a photo"]["text"])
    assert code == any(each["state"] == "fail" for each in found.values())
    searching = ("--search", f"127.0.0.1:{search['port']}")
    code, found = doctor(*asked, "--index", ROOT / "models/stanford-cars", *searching, "--photo", ROOT / "nowhere.jpg")
    assert code == 1
    assert found["a photo"]["text"] == f"{ROOT / 'nowhere.jpg'}: No such file or directory"
    assert {check: found[check]["state"] for check in well} == dict.fromkeys(well, "ok")
    code, found = doctor(*asked, "--index", built, "--search", f"127.0.0.1:{another['port']}")
    assert code == 1
    assert {found[check]["state"] for check in ("served pair", "model and gallery")} == {"fail"}
    assert found["a photo"]["state"] == "not checked"


def test_a_file_in_place_of_a_folder_is_told_as_that(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for check, found, flag in (
        ("model", folders.model(file), "--model"),
        ("gallery", folders.gallery(file), "--index"),
    ):
        assert (found[0].check, found[0].state, found[1]) == (check, FAIL, None)
        assert found[0].text == f"{file} is a file, and a folder is wanted"
        assert flag in found[0].advice


def test_a_check_that_fails_itself_is_told_and_the_others_go_on():
    assert (
        guarded("x", lambda: 1 // 0).text
        == "the check itself failed: ZeroDivisionError: integer division or modulo by zero"
    )


def test_people_get_a_line_a_finding_and_what_to_do():
    told = lines([ok("disk", "well"), warn("a photo", "slow", "look at the queue"), not_checked("clock", "no page")])
    assert told == (
        "ok           disk     well\n"
        "warn         a photo  slow\n"
        "                      -> look at the queue\n"
        "not checked  clock    no page"
    )


def test_what_is_wrong_with_the_command_line_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "doctor", "--tls-ca", "gone.pem"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.match(r"vmmr-doctor: error: .*gone.pem", done.stderr)


def test_every_check_and_flag_is_on_the_page():
    page = (ROOT / "docs/doctor.md").read_text()
    text = "".join((ROOT / f"doctor/{name}.py").read_text() for name in ("machine", "folders", "servers", "__main__"))
    checks = set(re.findall(r'(?:ok|warn|fail|not_checked)\(\s*"([^"]+)"', text)) | {
        "served pair",
        "certificate of the ...",
    }
    assert len(checks) >= 14
    checks -= {"disk", "servers"}  # what stands for several that were not made
    assert [check for check in checks if f"| {check} |" not in page] == []
    own = re.findall(r'top\.add_\w+\("(--[a-z-]+)"', text)
    assert len(own) >= 6
    assert [flag for flag in own if flag != "--version" and f"`{flag}" not in page] == []


def doctor(*arguments):
    """The exit code, and the findings by check."""
    command = [sys.executable, "-m", "doctor", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.stderr == ""
    return done.returncode, {each["check"]: each for each in map(json.loads, done.stdout.splitlines())}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def refusing():
    """Serves, and answers every call with a status; gives the port."""
    started = []

    class Refusal(grpc.GenericRpcHandler):
        def __init__(self, status):
            self.status = status

        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(self.status, "no"))

    def start(status):
        server = grpc.server(ThreadPoolExecutor(1), handlers=[Refusal(status)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        started.append(server)
        return port

    yield start
    for server in started:
        server.stop(None)


@pytest.fixture
def mount():
    """`mount` with arguments; unmounted when the test ends."""
    if os.geteuid() != 0:
        pytest.skip("mounting a disk takes root")
    places = []

    def do(*arguments):
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        places.append(str(arguments[-1]))

    yield do
    for place in places:
        subprocess.run(["umount", "-l", place], check=False)


@pytest.fixture
def read_only(request):
    """Makes a folder one that nobody can write to, root neither."""

    def make(folder):
        if os.geteuid():
            folder.chmod(0o555)
            request.addfinalizer(lambda: folder.chmod(0o755))
            return
        mount = request.getfixturevalue("mount")
        mount("--bind", folder, folder)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)

    return make


@pytest.fixture
def free_port():
    """A port where nobody listens, and nobody else can: it is held without listening."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def serve_tls():
    """A gRPC server with a certificate; its port."""
    running = []

    def serve(certificate):
        server = grpc.server(ThreadPoolExecutor(1))
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
        )
        server.start()
        running.append(server)
        return port

    yield serve
    for server in running:
        server.stop(None).wait()


@pytest.fixture
def grpc_port():
    """The port of a gRPC server without TLS."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture
def serve_clock():
    """A page of a server whose clock is so many seconds ahead; its URL."""
    running = []

    def serve(ahead_s):
        class Page(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()

            def date_time_string(self, timestamp=None):
                import time

                return super().date_time_string(time.time() + ahead_s)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Page)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield serve
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()
