"""The draft of an artifact of embeddings: a directory beside its final place, from which a run that was killed goes on exactly.

    OUT.partial/job.json                  the manifest, model and form of the embeddings; a run with others is refused
    OUT.partial/journal.jsonl             a line for each chunk of the manifest's rows that is done
    OUT.partial/artifact/embeddings.npy   the embeddings so far
    OUT.partial.lock                      locked by the process that embeds; a process that is killed leaves the file behind

A chunk's embeddings are on the disk before its line in the journal is, and the next run cuts off what the journal does not cover:
no row is lost or there twice.
"""

import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from svckit import artifact, strict_json
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

MATRIX = "embeddings.npy"

Dtype = Literal["float16", "float32"]


@dataclass(frozen=True)
class Job:
    """The inputs of a run. Another run may go on with its draft only if it has the same."""

    manifest: str
    """The sha256 of the manifest."""
    model: str
    """The model's fingerprint."""
    dtype: Dtype
    dimension: int
    photo_folder: str
    """The absolute path of the folder where the manifest's paths start, or its URL, without what lets somebody in."""
    subject: str = "whole"
    """The part of a photo that is embedded: `whole` or `main car`."""

    @property
    def element(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def row_bytes(self) -> int:
        return self.dimension * self.element.itemsize

    def header(self, rows: int) -> bytes:
        """Return the header of the .npy file. Its length does not depend on `rows`: numpy leaves room for the number to grow."""
        content = io.BytesIO()
        shape = (rows, self.dimension)
        np.lib.format.write_array_header_1_0(
            content, {"descr": self.element.str, "fortran_order": False, "shape": shape}
        )
        return content.getvalue()


class Draft:
    """A draft, locked for this process while it is open. Made by `open`."""

    def __init__(self, out: Path, job: Job, journal: IO[bytes]) -> None:
        self._out = out
        self.job = job
        self._journal = journal
        self._artifact = partial(out) / "artifact"
        self.done = 0
        """Rows of the manifest that are done, from the first on."""
        self.unreadable: dict[int, str] = {}
        """Those of them that have no embedding, with the reason."""
        self.cuts: list[list[str]] = []
        """For each embedding, the cells that say which part of the photo it is of; none if the model has no detector."""
        self._replay()
        self._matrix = self._open_matrix()

    @classmethod
    @contextmanager
    def open(cls, out: Path, job: Job) -> Iterator[Self]:
        """Open the draft for `out`, a new one or the one that an earlier run has left.

        Raise CommandError if that was another job or another process has it open, ArtifactError if it is damaged or `out`
        exists already.
        """
        directory = partial(out)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            artifact.refuse_existing(out)
            _tidy(directory)
            _check_job(directory, job)
            with (directory / "journal.jsonl").open("a+b") as journal:
                draft = cls(out, job, journal)
                with draft._matrix:
                    yield draft

    @property
    def embedded(self) -> int:
        return self.done - len(self.unreadable)

    def append(
        self, embeddings: NDArray[Any], unreadable: Mapping[int, str], cuts: Sequence[Sequence[str]] = ()
    ) -> None:
        """Add the next rows of the manifest: embeddings (n, D) of those that could be read, in order, and why the others could not.

        `cuts`, if given, has the cells that say which part of the photo each embedding is of.
        """
        self._matrix.write(np.ascontiguousarray(embeddings, self.job.element).tobytes())
        _flush(self._matrix)
        self.done += len(embeddings) + len(unreadable)
        self.unreadable.update(unreadable)
        self.cuts.extend(map(list, cuts))
        entry = {"done": self.done, "unreadable": {str(row): why for row, why in unreadable.items()}, "cuts": cuts}
        self._journal.write(f"{json.dumps(entry)}\n".encode())
        _flush(self._journal)

    def finish(self, tables: Mapping[str, bytes], fields: Mapping[str, Any]) -> None:
        """Complete the artifact by tables and its manifest, and move it to its place. If interrupted, it can be called again."""
        self._matrix.seek(0)
        self._matrix.write(self.job.header(self.embedded))
        _flush(self._matrix)
        for name, content in tables.items():
            artifact.atomic_write(self._artifact / name, content)
        artifact.write_manifest(self._artifact, fields)
        artifact.publish(self._artifact, self._out)
        self.discard()

    def discard(self) -> None:
        shutil.rmtree(partial(self._out))

    def _replay(self) -> None:
        """Read the journal, and cut off a last line that was not finished."""
        self._journal.seek(0)
        whole = 0
        for line in self._journal:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            self._take(line)
        self._journal.truncate(whole)

    def _take(self, line: bytes) -> None:
        try:
            entry = strict_json.loads(line)
            self.done = int(entry["done"])
            self.unreadable |= {int(row): str(why) for row, why in entry["unreadable"].items()}
            self.cuts.extend([str(cell) for cell in cut] for cut in entry.get("cuts", ()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(Path(self._journal.name), "is damaged: delete the directory to start over") from error

    def _open_matrix(self) -> IO[bytes]:
        """Open the matrix for appending, cut to the rows that the journal covers."""
        path = self._artifact / MATRIX
        header = self.job.header(0)
        if self.done == 0:
            path.write_bytes(header)
        expected = len(header) + self.embedded * self.job.row_bytes
        if not path.is_file() or path.stat().st_size < expected:
            raise ArtifactError(path, "has fewer rows than the journal says: delete the directory to start over")
        os.truncate(path, expected)
        file = path.open("r+b")
        file.seek(expected)
        return file


def partial(out: Path) -> Path:
    """Return the directory of the draft for `out`."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock the directory, which need not exist, for this process. Raise CommandError if another process has the lock."""
    path = directory.with_name(f"{directory.name}.lock")
    with path.open("ab") as file:
        if not _lock(file, path):
            raise CommandError(f"{directory}: another process is embedding here")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[bytes], path: Path) -> bool:
    """Try to take the lock, and return whether this process has it now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):  # not found: the process that had it has just ended, and removed it
        return False


def _tidy(directory: Path) -> None:
    """Remove what an earlier run has left in its artifact, apart from the matrix."""
    if not (directory / "artifact").is_dir():
        shutil.rmtree(directory, ignore_errors=True)  # it was killed after its artifact had moved
    (directory / "artifact").mkdir(parents=True, exist_ok=True)
    for path in (directory / "artifact").iterdir():
        if path.name != MATRIX:
            path.unlink()


def _check_job(directory: Path, job: Job) -> None:
    """Record the job of a new draft. Raise CommandError if the draft was begun as another job."""
    path = directory / "job.json"
    mine = asdict(job)
    if not path.exists():
        artifact.atomic_write(path, f"{json.dumps(mine)}\n".encode())
    begun = {"subject": Job.subject} | json.loads(
        path.read_bytes()
    )  # drafts from before there were detectors have none
    if different := [name.replace("_", " ") for name in mine if begun.get(name) != mine[name]]:
        raise CommandError(
            f"{directory} was begun with another {' and '.join(different)}: go on as it was begun, or delete it"
        )


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
