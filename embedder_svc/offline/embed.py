"""From a manifest of photos to their embeddings, with the code that the server runs."""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedder_svc.network.cutter import Cutter, Part, refuse_columns
from embedder_svc.network.model import Model
from embedder_svc.offline.draft import Draft, Dtype, Job
from embedder_svc.photos import photo_files
from embedder_svc.photos.manifest import Manifest
from svckit.cli import CommandError

_CHUNK = 64
"""Photos that are embedded between two lines of the journal."""

UNREADABLE_FILE = "unreadable.csv"

Item = TypeVar("Item")
Result = TypeVar("Result")


def embed(
    manifest: Manifest,
    folder: Path,
    model: Model,
    out: Path,
    *,
    dtype: Dtype,
    workers: int,
    bar: Callable[..., Any],
    whole: bool = False,
) -> dict[str, Any]:
    """Write the artifact `out`, going on where an earlier run stopped, and return the fields of its manifest.

    `workers` threads read and decode photos while the network runs. `bar(total=N)` makes the progress bar of the N photos
    that are still to do. Photos that can't be read are left out and listed. Of each photo the main car is embedded if the model has
    a detector, unless `whole`. Raise CommandError or ArtifactError.
    """
    refuse_columns(manifest.columns)
    cutter = Cutter(model, whole=whole)
    job = Job(
        manifest.sha256, model.info.fingerprint, dtype, model.info.dimension, str(folder.resolve()), cutter.subject
    )
    with Draft.open(out, job) as draft:
        _fill(draft, [folder / path for path in manifest.paths], cutter, workers, bar)
        if not draft.embedded:
            draft.discard()
            raise CommandError(
                f"none of the {draft.done} photos can be read; {folder / manifest.paths[0]}: {draft.unreadable[0]}"
            )
        fields = _fields(draft, model) | cutter.counts(draft.cuts)
        draft.finish(_tables(manifest, draft, cutter.columns), fields)
    return fields


def _fill(draft: Draft, paths: Sequence[Path], cutter: Cutter, workers: int, bar: Callable[..., Any]) -> None:
    model = cutter.model
    chunk_size = model.max_batch * -(-_CHUNK // model.max_batch)  # whole runs of the network

    def read(path: Path) -> Part | str:
        return photo_files.attempt(path, cutter.part)

    with ThreadPoolExecutor(workers, "decode") as pool, bar(total=len(paths) - draft.done) as progress:
        photos = _map_in_order(pool, read, paths[draft.done :], ahead=2 * chunk_size)
        try:
            while chunk := list(islice(photos, chunk_size)):
                draft.append(*_embed_chunk(chunk, draft.done, model, draft.job))
                progress.update(len(chunk))
        finally:
            pool.shutdown(cancel_futures=True)


def _map_in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """Like `pool.map`, but with at most `ahead` results waiting, so that a slow consumer does not fill the memory."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _embed_chunk(
    chunk: Sequence[Part | str], start: int, model: Model, job: Job
) -> tuple[NDArray[np.floating[Any]], dict[int, str], list[list[str]]]:
    """Return the embeddings of the photos that could be read, by their row in the manifest why the others could not, and the cells of
    each embedding's part.
    """
    parts = [part for part in chunk if not isinstance(part, str)]
    embeddings = model.embed([pixels for pixels, _ in parts])
    with np.errstate(over="ignore"):
        converted = embeddings.astype(job.element)
    if not np.isfinite(converted).all():
        raise CommandError(
            f"an embedding is not finite in {job.dtype}: its values are too large for it, or not numbers"
        )
    unreadable = {row: part for row, part in enumerate(chunk, start) if isinstance(part, str)}
    return converted, unreadable, [cells for _, cells in parts if cells]


def _fields(draft: Draft, model: Model) -> dict[str, Any]:
    return {
        "kind": "embeddings",
        "model": model.info.fingerprint,
        "model_name": model.info.name,
        "dimension": draft.job.dimension,
        "count": draft.embedded,
        "dtype": draft.job.dtype,
        "normalized": model.info.normalized,
        "skipped": len(draft.unreadable),
    }


def _tables(manifest: Manifest, draft: Draft, columns: Sequence[str]) -> dict[str, bytes]:
    """Return the tables of the artifact; `columns` are those of the cells in `draft.cuts`."""
    rows = [row for number, row in enumerate(manifest.rows) if number not in draft.unreadable]
    if columns:
        rows = [(*row, *cut) for row, cut in zip(rows, draft.cuts, strict=True)]
    missing = [(manifest.paths[number], reason) for number, reason in draft.unreadable.items()]
    return {
        "items.csv": _csv((*manifest.columns, *columns), rows),
        UNREADABLE_FILE: _csv(("path", "reason"), missing),
    }


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return content.getvalue().encode()
