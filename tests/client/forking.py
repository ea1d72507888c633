"""A caller's process that forks: `python forking.py CASE EMBEDDER SEARCH` prints, as JSON, what its fork and then itself made of a client.

A process of its own, because gRPC's own handlers may end the fork of a process in which other threads are in gRPC at that moment, as those of
a server or of a busy client are.
"""

import asyncio
import json
import multiprocessing
import os
import sys
import warnings

import vmmr

FORK = multiprocessing.get_context("fork")
USES = {
    "identify": lambda client: client.identify(b"1").answer.year,
    "identify_many": lambda client: list(client.identify_many([b"1"])),
    "labels": lambda client: list(client.labels()),
    "info": lambda client: client.info(),
    "close": lambda client: client.close(),
}


def in_fork(use) -> dict[str, str]:
    """What a forked process made of it: what it returned or raised, in words."""
    ours, theirs = FORK.Pipe()

    def child() -> None:
        try:
            theirs.send({"returned": repr(use())})
        except BaseException as error:  # noqa: BLE001 (whatever it is, the test is to see it)
            theirs.send({type(error).__name__: str(error)})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python, too, says that threads and forks do not mix
        process = FORK.Process(target=child)
        process.start()
    theirs.close()
    try:
        said = ours.recv()
        process.join(30)
        return {**said, "pid": process.pid, "exit code": process.exitcode}
    finally:
        process.kill()


def used(targets, use):
    with vmmr.Client(*targets) as client:
        client.info()
        return in_fork(lambda: use(client)), client.identify(b"2").answer.year


def unused(targets):
    with vmmr.Client(*targets) as client:
        return in_fork(lambda: client.identify(b"1").answer.year), client.identify(b"2").answer.year


def used_async(targets):
    client = vmmr.AsyncClient(*targets)

    async def use():
        await client.info()
        said = in_fork(lambda: asyncio.run(client.info()))
        return said, (await client.identify(b"2")).answer.year

    return asyncio.run(use())


def main(case: str, *targets: str) -> None:
    cases = {"unused": unused, "async": used_async}
    fork, year = cases[case](targets) if case in cases else used(targets, USES[case])
    print(json.dumps({"fork": fork, "pid": os.getpid(), "year": year}))


if __name__ == "__main__":
    main(*sys.argv[1:])
