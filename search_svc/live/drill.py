"""`vmmr-search drill`: restores a backup to a temporary folder, and asks it what the index is asked.

Both galleries are opened as servers open them, at the same entry of the journal. What they find must be the same, to the bit.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_svc.engine.local import LocalEngine
from search_svc.index.backup import Backup, refuse_another, restore
from search_svc.index.backup_command import add_at_sequence, told
from search_svc.index.index_dir import current, version_names
from search_svc.index.journal import Journal
from search_svc.index.version import IndexVersion, stated
from search_svc.index.version_lease import VersionLease
from search_svc.live.following import Replay
from search_svc.live.view import Opened, View
from svckit.artifact import ArtifactError, sha256
from svckit.cli import CommandError
from svckit.redaction import without_secrets

_K = 10
_EACH = 32
"""Queries of each kind."""


@dataclass(frozen=True)
class Drill:
    backup: Backup
    queries: int
    exact: bool
    """True if the versions of the two differ, so that both were searched exactly."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "drill",
        help="try whether a backup can be restored, and answers as the index does",
        description="Restores a backup to a temporary folder, which is removed again, and compares what it finds with what the index "
        "finds that it is of, as that was at the same entry of the journal. Exit code 1 if anything is not the same, to the bit.",
    )
    parser.add_argument("backups", metavar="BACKUPS", help="the folder of backups: a path or a URL")
    parser.add_argument(
        "index", metavar="INDEX", type=Path, help="index data directory to compare with; it may be served"
    )
    add_at_sequence(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    done = drill(args.backups, args.index, args.at_sequence)
    how = "searched exactly, for the index has another version now" if done.exact else "searched as they are served"
    print(
        f"{without_secrets(args.backups)}: {told(done.backup)}: {done.queries} queries have the same {_K} neighbours, to the bit ({how})"
    )


def drill(backups: str, index_dir: Path, at_sequence: int | None = None) -> Drill:
    """Restore a backup, compare it with the index, and remove it.

    Raise CommandError if their answers differ, if the backup is of another index, or if the index has let go of what it was then, and what `restore` raises.
    """
    current(index_dir)  # where there is no index, say that first
    refuse_another(backups, index_dir)
    with tempfile.TemporaryDirectory() as work:
        restored = Path(work) / "index"
        backup = restore(backups, restored, at_sequence)
        upto = backup.journal_sequence
        with _opened(restored, backup.version, upto) as ours, _live(index_dir, restored, backup) as theirs:
            exact = not _same_version(ours.opened.version.path, theirs.opened.version.path)
            queries = _queries(ours)
            _compare(_found(ours, queries, exact=exact), _found(theirs, queries, exact=exact))
    return Drill(backup, len(queries), exact)


@contextmanager
def _live(index_dir: Path, restored: Path, backup: Backup) -> Iterator[View]:
    """Open the index as it was at the sequence of the backup, by the backup's version if it still has it."""
    there = version_names(index_dir)
    fitting = [name for name in there if stated(index_dir, name).journal_sequence <= backup.journal_sequence]
    if not fitting:
        text = f"holds writes after entry {backup.journal_sequence} in all its versions: back up, and try that backup"
        raise CommandError(f"{index_dir} {text}")
    same = restored / "versions" / backup.version
    name = next((name for name in fitting if _same_version(same, index_dir / "versions" / name)), None)
    wanted = name or (current(index_dir) if current(index_dir) in fitting else fitting[-1])
    lease = VersionLease(index_dir / "versions" / wanted)
    try:
        with _opened(index_dir, wanted, backup.journal_sequence) as view:
            yield view
    finally:
        lease.release()


@contextmanager
def _opened(index_dir: Path, name: str, upto: int) -> Iterator[View]:
    version = IndexVersion.open(index_dir, name, verify=False)
    with LocalEngine.open(version) as engine, Journal.open(index_dir) as journal:
        replay = Replay(Opened(version, engine), journal, upto)
        replay.finish()
        view = replay.view()
        if view.sequence != upto:
            raise ArtifactError(index_dir, f"ends with entry {view.sequence}, and {upto} was backed up")
        yield view


def _same_version(one: Path, other: Path) -> bool:
    return sha256(one / "manifest.json") == sha256(other / "manifest.json")


def _queries(view: View) -> NDArray[np.float32]:
    """Return photos of the version, photos that were written since, and vectors that are no photos. (queries, dimension)"""
    embeddings = view.opened.version.embeddings
    of_version = embeddings[np.linspace(0, len(embeddings) - 1, min(_EACH, len(embeddings))).astype(np.int64)]
    written = view.written.embeddings[view.written.live[-_EACH:]] if view.written else embeddings[:0]
    neither = np.random.default_rng(0).standard_normal((_EACH, embeddings.shape[1]))
    return np.concatenate([of_version, written, neither]).astype(np.float32)


def _found(view: View, queries: NDArray[np.float32], *, exact: bool) -> list[list[tuple[str, bytes]]]:
    """Return item id and score of the neighbours of each query."""
    params = view.manifest.search
    answered = view.search(queries, _K, params=params, labels=None, exact=exact, timeout_s=None, allow_partial=False)
    hits = answered.hits
    return [
        list(zip(view.items.take(rows[rows >= 0].tolist())[0], map(bytes, scores[rows >= 0]), strict=True))
        for rows, scores in zip(hits.ids, hits.scores, strict=True)
    ]


def _compare(restored: list[list[tuple[str, bytes]]], live: list[list[tuple[str, bytes]]]) -> None:
    different = [query for query, (one, other) in enumerate(zip(restored, live, strict=True)) if one != other]
    if different:
        raise CommandError(
            f"{len(different)} of {len(live)} queries are answered otherwise by the backup than by the index: number "
            f"{different[0]} finds {restored[different[0]][:3]}, not {live[different[0]][:3]}"
        )
