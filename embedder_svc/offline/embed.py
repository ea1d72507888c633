"""From a manifest of photos to their embeddings, with the code that the server runs."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from embedder_svc.network.bundle import BundleInfo
from embedder_svc.network.cutter import Cutting, refuse_columns
from embedder_svc.offline.chunks import Embedder, Work
from embedder_svc.offline.draft import Draft, Job
from embedder_svc.photos.manifest import Manifest
from svckit.cli import CommandError

UNREADABLE_FILE = "unreadable.csv"


def embed(manifest: Manifest, work: Work, embedder: Embedder, out: Path, *, bar: Callable[..., Any]) -> dict[str, Any]:
    """Write the artifact `out`, going on where an earlier run stopped, and return the fields of its manifest.

    `bar(total=N)` makes the progress bar of the N photos that are still to do. Photos that can't be read are left out and listed. Of
    each photo the main car is embedded if the model has a detector, unless `work` says whole photos. Raise CommandError or ArtifactError.
    """
    refuse_columns(manifest.columns)
    info = embedder.info
    cutting = Cutting.of(info, whole=work.whole)
    job = Job(manifest.sha256, info.fingerprint, work.dtype, info.dimension, work.folder.identity, cutting.subject)
    with Draft.open(out, job) as draft:
        _fill(draft, manifest.paths, embedder, bar)
        if not draft.embedded:
            draft.discard()
            raise CommandError(
                f"none of the {draft.done} photos can be read; {work.folder.named(manifest.paths[0])}: {draft.unreadable[0]}"
            )
        fields = _fields(draft, info) | cutting.counts(draft.cuts)
        draft.finish(_tables(manifest, draft, cutting.columns), fields)
    return fields


def _fill(draft: Draft, names: Sequence[str], embedder: Embedder, bar: Callable[..., Any]) -> None:
    size = embedder.chunk_size
    chunks = (names[start : start + size] for start in range(draft.done, len(names), size))
    with bar(total=len(names) - draft.done) as progress, closing(embedder.embed_all(chunks)) as made:
        for chunk in made:
            before = draft.done
            unreadable = {before + place: why for place, why in chunk.unreadable.items()}
            draft.append(chunk.embeddings, unreadable, chunk.cuts)
            progress.update(draft.done - before)


def _fields(draft: Draft, info: BundleInfo) -> dict[str, Any]:
    return {
        "kind": "embeddings",
        "model": info.fingerprint,
        "model_name": info.name,
        "dimension": draft.job.dimension,
        "count": draft.embedded,
        "dtype": draft.job.dtype,
        "normalized": info.normalized,
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
