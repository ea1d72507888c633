"""Several processes on one port, with real ones. What they share with a server alone, test_server.py tests of both."""

import os
import re
import resource
import signal
import socket
import time
import urllib.request
import uuid
from pathlib import Path

import grpc
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from vmmr.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from svckit.cores import shares

TIMEOUT_S = 60


@pytest.fixture
def start(spawn):
    """Starts the example service with two workers, unless told otherwise; it is ready."""

    def start(*flags, workers=2):
        process = spawn("--workers", str(workers), "--drain-pause-s", "0", *flags)
        process.first("ready")
        return process

    return start


def until(condition):
    """Waits for something that happens in other processes."""
    end = time.monotonic() + TIMEOUT_S
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return result


def workers_of(process):
    """Pids of the workers that took their place last, by number."""
    return {line["worker"]: line["pid"] for line in process.logged("worker ready")}


def port_of(process):
    return process.first("ready")["port"]


def embed(channel, *milliseconds, metadata=()):
    images = [embedder_pb2.Image(content=str(ms).encode()) for ms in milliseconds or (1,)]
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
    request = embedder_pb2.EmbedRequest(images=images)
    return stub.Embed(request, timeout=TIMEOUT_S, wait_for_ready=True, metadata=metadata)


def has_come(channel):
    """Returns when the call that was made before over this channel is at its worker: the next, behind it, is answered."""
    embedder_pb2_grpc.EmbedderServiceStub(channel).GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)


def code_of(channel):
    """How a call ends; OK if it is answered."""
    try:
        embed(channel)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def worker_behind(process, connect):
    """A channel, and the number of the worker that its connection leads to."""
    channel, request_id = connect(port_of(process)), uuid.uuid4().hex
    embed(channel, metadata=(("x-request-id", request_id),))
    return channel, process.first("call", request_id=request_id)["worker"]


def channels_to(process, connect, numbers):
    """A channel to each of the workers, found by trying."""
    found = {}
    while not found.keys() >= set(numbers):
        channel, number = worker_behind(process, connect)
        found[number] = channel
    return found


def replaced(process, number, pid):
    """The pid of the process that took the place of one that was killed."""
    return until(lambda: (now := workers_of(process)[number]) != pid and now)


def metrics(process, workers=("0", "1")):
    """Samples by name, each with its labels and value, once it is these workers that answer."""

    def found():
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            text = response.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        by_name = {name: [(s.labels, s.value) for s in samples if s.name == name] for name in {s.name for s in samples}}
        answering = {labels["worker"] for labels, _ in by_name.get("vmmr_calls_in_flight", [])}
        return answering == set(workers) and by_name

    url = f"http://127.0.0.1:{process.first('ready')['metrics_port']}/metrics"
    return until(found)


def can_be_taken(port):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_calls_over_many_connections_reach_all_workers(start, connect):
    process = start(workers=3)
    for _ in range(40):
        embed(connect(port_of(process)))
    calls = until(lambda: len(calls := process.logged("call")) == 40 and calls)
    assert {call["worker"] for call in calls} == {0, 1, 2}
    assert len(set(workers_of(process).values())) == 3


def test_a_killed_worker_is_replaced_and_told_while_the_others_serve(start, connect, tmp_path):
    process = start("--fails-with", str(tmp_path / "broken"))
    channels, pids = channels_to(process, connect, (0, 1)), workers_of(process)
    (tmp_path / "broken").touch()
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: len(process.logged("worker ended")) >= 3)
    embed(channels[1])
    (tmp_path / "broken").unlink()
    replaced(process, 0, pids[0])
    embed(channels_to(process, connect, (0,))[0])
    first, *later = process.logged("worker ended")
    assert (first["worker"], first["pid"], first["ended_with"]) == (0, pids[0], "SIGKILL")
    assert later[0]["ended_with"] == "exit code 1"
    assert later[0]["error"] == "the model is corrupt"
    assert [line["restarts"] for line in (first, *later)] == list(range(1, len(later) + 2))
    assert [line["restart_in_s"] for line in (first, *later)][:3] == [0.1, 0.2, 0.4]
    assert process.said() == [], "an error of a worker is in the log"
    assert workers_of(process)[1] == pids[1]


def test_a_worker_that_gives_up_answers_its_calls_and_is_replaced_and_told_with_its_reason(start, connect, tmp_path):
    process = start("--gives-up-on", str(tmp_path / "gone"), "--pauses-until", str(tmp_path / "told"))
    channels, pids = channels_to(process, connect, (0, 1)), workers_of(process)
    request = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=b"600")])
    calls = [
        embedder_pb2_grpc.EmbedderServiceStub(channel).Embed.future(request, timeout=TIMEOUT_S)
        for channel in channels.values()
    ]
    for channel in channels.values():
        has_come(channel)
    (tmp_path / "gone").touch()
    until(lambda: len(process.logged("given up")) == 2)
    (tmp_path / "gone").unlink()
    (tmp_path / "told").touch()
    assert [call.result().embeddings.dimension for call in calls] == [1, 1]
    for number, pid in pids.items():
        replaced(process, number, pid)
    ended = [(line["ended_with"], line["error"]) for line in process.logged("worker ended")]
    assert ended == 2 * [("exit code 1", "the disk is gone")]
    embed(connect(port_of(process)))


def test_a_call_to_a_worker_that_is_killed_may_be_tried_again(start, connect):
    process = start()
    channel, number = worker_behind(process, connect)
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
    call = stub.Embed.future(embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=b"5000")]), timeout=TIMEOUT_S)
    os.kill(workers_of(process)[number], signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    # What is sent before the channel has noticed fails in the same way.
    codes = iter(lambda: code_of(channel), grpc.StatusCode.OK)
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE}


def test_a_port_that_was_free_stays_ours_when_all_workers_die(start, connect):
    process = start()
    port, pids = port_of(process), workers_of(process)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    for pid in pids.values():
        until(lambda pid=pid: not psutil.pid_exists(pid))
    assert not can_be_taken(port)
    embed(connect(port))
    assert {replaced(process, number, pid) for number, pid in pids.items()}.isdisjoint(pids.values())


def test_a_supervisor_that_is_killed_leaves_no_process_and_calls_are_answered(start, connect):
    process = start("--drain-pause-s", "0.3")
    port = port_of(process)
    channel, _ = worker_behind(process, connect)
    family = psutil.Process(process.popen.pid).children(recursive=True)
    assert {child.pid for child in family} >= set(workers_of(process).values())
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
    call = stub.Embed.future(embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=b"500")]), timeout=TIMEOUT_S)
    has_come(channel)
    process.popen.kill()
    assert call.result().embeddings.dimension == 1
    _, alive = psutil.wait_procs(family, TIMEOUT_S)
    assert alive == []
    until(lambda: can_be_taken(port))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_as_of_a_terminal_or_an_init_ends_all_in_order_once(start, connect, signum):
    process = start("--drain-pause-s", "0.3")
    channels = channels_to(process, connect, (0, 1))
    request = embedder_pb2.EmbedRequest(images=[embedder_pb2.Image(content=b"600")])
    calls = [
        embedder_pb2_grpc.EmbedderServiceStub(channel).Embed.future(request, timeout=TIMEOUT_S)
        for channel in channels.values()
    ]
    for channel in channels.values():
        has_come(channel)
    os.killpg(process.popen.pid, signum)
    assert [call.result().embeddings.dimension for call in calls] == [1, 1]
    assert process.wait() == 0
    assert process.said() == []
    assert process.logged("worker ended") == []
    assert sorted(line.get("worker", -1) for line in process.logged("stopped")) == [-1, 0, 1]


def test_the_second_signal_leaves_no_process(start):
    process = start("--drain-pause-s", "1000")
    family = psutil.Process(process.popen.pid).children(recursive=True)
    process.popen.send_signal(signal.SIGTERM)
    process.first("signal")
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert psutil.wait_procs(family, TIMEOUT_S)[1] == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fails", r"the model is corrupt"),
        ("breaks", r"Traceback (?s:.)*\nZeroDivisionError: nobody thought of this"),
        ("dies", r"worker [012] ended with SIGKILL"),
    ],
)
def test_a_worker_that_fails_at_the_start_ends_all_and_is_told_once(spawn, how, said):
    process = spawn("--workers", "3", "--warm-up", how)
    assert re.fullmatch(said, process.fatal())
    assert not process.logged("ready")


def test_two_servers_do_not_share_a_port_even_while_they_start(spawn):
    port = spawn("--workers", "2", "--warm-up", "never").first("listening")["port"]
    for workers in ("1", "2"):
        second = spawn("--workers", workers, "--port", str(port))
        assert second.fatal().startswith(f"cannot listen on 127.0.0.1:{port}: is the port taken, ")


def test_one_endpoint_tells_the_metrics_of_all_workers(start, connect):
    process = start("--metrics-port", "0")
    for number, channel in channels_to(process, connect, (0, 1)).items():
        for _ in range(number + 1):
            embed(channel)
    before = metrics(process)
    assert before["vmmr_workers"] == [({}, 2)]
    assert before["vmmr_worker_restarts_total"] == [({"worker": "0"}, 0), ({"worker": "1"}, 0)]
    handled = {labels["worker"]: value for labels, value in before["grpc_server_handled_total"]}
    assert handled.keys() == {"0", "1"}
    until(lambda: len(process.logged("call")) == sum(handled.values()))
    assert {labels["worker"] for labels, _ in before["vmmr_batch_seconds_bucket"]} == {"0", "1"}
    pid = workers_of(process)[1]
    os.kill(pid, signal.SIGKILL)
    replaced(process, 1, pid)
    after = metrics(process)
    assert after["vmmr_worker_restarts_total"] == [({"worker": "0"}, 0), ({"worker": "1"}, 1)]
    assert {labels["worker"] for labels, _ in after["grpc_server_handled_total"]} == {"0"}


def test_a_worker_that_does_not_answer_is_left_out_of_the_metrics(start):
    process = start("--metrics-port", "0")
    pid = workers_of(process)[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert metrics(process, workers=("1",))["vmmr_workers"] == [({}, 2)]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_worker_has_its_share_of_the_processors(start):
    available = os.sched_getaffinity(0)
    expected = [share.processors or available for share in shares(2)]
    assert [os.sched_getaffinity(pid) for _, pid in sorted(workers_of(start()).items())] == expected


def test_a_worker_never_sees_the_interrupt_of_a_terminal_not_even_while_it_starts(start):
    """It would be told with a traceback. The mask is there before Python is."""
    for pid in workers_of(start()).values():
        status = Path(f"/proc/{pid}/status").read_text()
        blocked = int(re.search(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)[1], 16)
        assert blocked & 1 << signal.SIGINT - 1


def test_a_supervisor_that_may_start_no_process_tries_again(start, connect):
    process = start()
    pid = workers_of(process)[0]
    # No file descriptor is free for the pipes of another process.
    allowed = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
    open_files = psutil.Process(process.popen.pid).num_fds()
    resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (open_files - 3, allowed[1]))
    os.kill(pid, signal.SIGKILL)
    until(lambda: [line for line in process.logged("worker ended") if line["ended_with"] == "no process"])
    embed(channels_to(process, connect, (1,))[1])
    resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, allowed)
    replaced(process, 0, pid)
