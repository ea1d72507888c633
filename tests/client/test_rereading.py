"""Files that change while a program runs, and a client whose certificates do."""

import asyncio
import gc
import logging
import threading
from pathlib import Path

import pytest
import trustme
import vmmr
from vmmr._rereading import Reread

from svckit.tls import ServerCertificate


class Numbers:
    """Two files that hold one number."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "a", folder / "b"]
        self.write("1")
        self.problems: list[str] = []
        self.meanwhile = lambda: None
        self.reread = Reread(self.files, self._read, lambda error: self.problems.append(str(error)))

    def write(self, *texts: str) -> None:
        for file, text in zip(self.files, texts * 2, strict=False):
            draft = file.with_suffix(".new")
            draft.write_text(text)
            draft.replace(file)

    def _read(self) -> int:
        a, b = (file.read_text() for file in self.files)
        self.meanwhile()
        if a != b:
            raise ValueError(f"{a} is not {b}")
        return int(a)


@pytest.fixture
def numbers(tmp_path):
    return Numbers(tmp_path)


def test_files_are_read_anew_when_they_change_and_only_then(numbers):
    first = numbers.reread.latest()
    assert numbers.reread.latest() is first
    numbers.write("2")
    assert numbers.reread.latest() == 2


def test_files_that_do_not_go_together_leave_the_last_value_and_are_told_once(numbers):
    numbers.write("2", "1")
    assert [numbers.reread.latest() for _ in range(3)] == [1, 1, 1]
    assert (numbers.problems, numbers.reread.stale) == (["2 is not 1"], True)
    numbers.write("2")
    assert (numbers.reread.latest(), numbers.reread.stale) == (2, False)


def test_so_does_a_file_that_is_gone(numbers):
    numbers.files[0].unlink()
    assert numbers.reread.latest() == 1
    assert numbers.reread.latest() == 1
    (told,) = numbers.problems
    assert str(numbers.files[0]) in told


def test_what_was_written_while_it_was_read_is_read_again(numbers):
    def meanwhile() -> None:
        numbers.meanwhile = lambda: None
        numbers.write("3")

    numbers.write("2")
    numbers.meanwhile = meanwhile
    assert numbers.reread.latest() == 1, "it may be half of the one and half of the other"
    assert numbers.reread.latest() == 3
    assert numbers.problems == []


def test_what_is_wrong_at_first_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        Reread([tmp_path / "a"], (tmp_path / "a").read_text, print)


class Identity:
    """The files of a party: its certificate and key, and the CA that it trusts."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.name = name
        self.ca, self.cert, self.key = (folder / f"{part}.pem" for part in ("ca", "cert", "key"))

    def take(self, ca: trustme.CA) -> None:
        """Replace all files by those of a CA."""
        issued = ca.issue_cert(self.name)
        self.ca.write_bytes(ca.cert_pem.bytes())
        self.cert.write_bytes(b"".join(link.bytes() for link in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())


@pytest.fixture
def parties(tmp_path):
    both = Identity(tmp_path / "server", "127.0.0.1"), Identity(tmp_path / "client", "client@example.org")
    first = trustme.CA()
    for party in both:
        party.take(first)
    return both


@pytest.fixture
def targets(parties, serve, services):
    server = ServerCertificate(parties[0].cert, parties[0].key, parties[0].ca)
    return serve(services.embedder, server.credentials()), serve(services.search, server.credentials())


@pytest.fixture
def tls(parties):
    return vmmr.TLS(ca=parties[1].ca, cert=parties[1].cert, key=parties[1].key)


def test_a_client_takes_the_new_certificates_of_both_sides(connect, services, parties, targets, tls):
    shown = []
    services.search.script.marked[b""] = lambda _, context: shown.append(*context.auth_context()["x509_pem_cert"])
    client = connect(*targets, tls=tls)
    assert client.identify(b"1").answer.year == 2001
    assert shown == [parties[1].cert.read_bytes()]
    second = trustme.CA()
    for party in parties:
        party.take(second)
    assert client.identify(b"2").answer.year == 2002
    assert shown[1:] == [parties[1].cert.read_bytes()]
    with pytest.raises(vmmr.UnavailableError, match="not trusted"):
        connect(*targets, tls=vmmr.TLS()).identify(b"1")


def test_files_that_can_not_be_used_leave_the_connection_as_it_was(connect, parties, targets, tls, caplog):
    client = connect(*targets, tls=tls)
    client.identify(b"1")
    parties[1].key.write_bytes(trustme.CA().issue_cert("other").private_key_pem.bytes())
    with caplog.at_level(logging.WARNING, "vmmr"):
        for _ in range(2):
            assert client.identify(b"2").answer.year == 2002
    (told,) = {record.getMessage() for record in caplog.records}
    assert f"TLS cert {parties[1].cert} with key {parties[1].key}" in told


@pytest.mark.parametrize(("wrong", "named"), [("ca", "TLS ca"), ("cert", "TLS cert"), ("key", "TLS cert")])
def test_files_that_can_not_be_used_at_first_are_refused(parties, targets, tls, wrong, named):
    getattr(parties[1], wrong).write_text("nothing of the kind")
    with pytest.raises(ValueError, match=named):
        vmmr.Client(*targets, tls=tls)


@pytest.fixture
def waits(services):
    """Makes the embedder wait over the photo 2222; events that tell when it does, and end it."""
    began, leave = threading.Event(), threading.Event()
    services.embedder.script.marked[b"2222"] = lambda *_: began.set() or (leave.wait(60) and None)
    yield began, leave
    leave.set()


def test_calls_under_way_end_over_their_old_connection(parties, targets, tls, waits):
    began, leave = waits
    answers = []
    with vmmr.Client(*targets, tls=tls, timeout_s=60) as client:
        calling = threading.Thread(target=lambda: answers.append(client.identify(b"2222")))
        calling.start()
        assert began.wait(60)
        change(parties)
        assert client.identify(b"3").answer.year == 2003
        gc.collect()
        leave.set()
        calling.join()
        gc.collect()
        assert len(client._connection._channels) == 2, "those to both services; the old ones are closed"
    assert len(answers) == 1


async def test_so_do_those_of_tasks(parties, targets, tls, waits):
    began, leave = waits
    async with vmmr.AsyncClient(*targets, tls=tls, timeout_s=60) as client:
        calling = asyncio.create_task(client.identify(b"2222"))
        assert await asyncio.to_thread(began.wait, 60)
        change(parties)
        assert (await client.identify(b"3")).answer.year == 2003
        gc.collect()
        leave.set()
        await calling
        del calling
        gc.collect()
        assert len(client._connection._channels) == 2


def change(parties) -> None:
    second = trustme.CA()
    for party in parties:
        party.take(second)
