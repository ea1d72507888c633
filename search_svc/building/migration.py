"""Migration: the gallery of an index for another model, in an index of its own beside it.

Every photo is had from its uri and embedded anew by a running embedder; what else is known of the items stays. The old index
is read alone, and serves on. Photos are embedded once: run again, a migration takes in what the old index has become since.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import vmmr
from numpy.typing import NDArray

from search_svc.building.build import build_version
from search_svc.building.build_source import Gallery
from search_svc.building.compaction import Source, source_of, spec_of
from search_svc.building.embedding_cache import Remade, photo_key
from search_svc.building.spec import IndexSpec, Resources
from search_svc.dataset.embeddings import Embeddings
from search_svc.fitting.held_out import HeldOutPhotos
from search_svc.index.index_dir import version_names
from search_svc.index.journal import Journal
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import Holding
from svckit.artifact import sha256_of
from svckit.cli import CommandError, progress

_AT_ONCE = 3
"""Batches: while one is embedded, one is read and one waits at the embedder."""
_READ_ROWS = 4096


@dataclass(frozen=True)
class Where:
    """How a photo is had from its item's uri."""

    root: Path | None
    """The folder that uris which are paths are relative to."""
    allow_private: bool = False
    """Fetch from private addresses, too."""

    def photo(self, uri: str) -> bytes:
        """Raises vmmr.PhotoError, OSError or ValueError, which say why it cannot be had."""
        if uri.startswith(("http://", "https://")):
            return vmmr.URL(uri, allow_private=self.allow_private).read()
        return self._file(uri).read_bytes()

    def _file(self, uri: str) -> Path:
        if not uri:
            raise ValueError("has no uri")
        if self.root is None:
            raise ValueError("its uri is a path: --photos says of which folder")
        path = PurePosixPath(uri)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"its uri leads out of {self.root}")
        return self.root / path


@dataclass(frozen=True)
class Lost:
    """A photo that cannot be embedded."""

    item_id: str
    reason: str


@dataclass(frozen=True)
class Migrated:
    version: IndexVersion | None
    """None if there is nothing that the new index does not have already."""
    embedded: int
    """Photos that were embedded this time."""
    lost: Sequence[Lost]
    """Left out of the version."""
    held: HeldOutPhotos | None
    """What it was calibrated on, if that was enough."""
    upto: int
    """Entries of the old index's journal up to here are in it."""


def migrate(
    index_dir: Path,
    new_dir: Path,
    client: vmmr.Client,
    where: Where,
    *,
    dev: Embeddings | None = None,
    skip_missing: bool = False,
    factory: str | None = None,
    batch: int = 16,
    resources: Resources = Resources(),
) -> Migrated:
    """Builds the next version of `new_dir`, of the gallery that `index_dir` holds now, for the model that `client` embeds with.

    Calibrated on the dev photos of `dev`, if there are enough; otherwise not at all. Photos that cannot be had or embedded end
    it before anything is built, unless they are to be skipped: CommandError names all of them. Raises CommandError, too, if
    that makes no sense, ArtifactError if a file is damaged, vmmr.VmmrError if the embedder does not answer.
    """
    model = client.model_info()
    _check(index_dir, new_dir, model.fingerprint, dev)
    source, gallery, photos = _read(index_dir)
    (new_dir / "versions").mkdir(parents=True, exist_ok=True)
    with Remade(new_dir, model.fingerprint, model.dimension) as remade:
        embedder = _Embedder(client, where, gallery.item_ids, gallery.uris)
        embedded, lost = embedder.all_but_those_there(photos, remade, min(batch, model.limits.max_images))
        if lost and not skip_missing:
            raise CommandError(_told(lost))
        kept = [row for row, photo in enumerate(photos) if remade.has(photo)]
        taken = [photos[row] for row in kept]
        gallery = _of_model(_taken(gallery, kept), model.name, remade, taken)
        held = _held(gallery, dev) if dev else None
        spec = _spec(source, len(kept), factory, dev)
        version = _build(new_dir, gallery, taken, remade, spec=spec, held=held, resources=resources)
    return Migrated(version, embedded, lost, held, source.upto)


def _check(index_dir: Path, new_dir: Path, model: str, dev: Embeddings | None) -> None:
    if new_dir.resolve() == index_dir.resolve():
        raise CommandError(f"{new_dir}: is the old index: name a new one, which is served beside it")
    if dev and dev.model != model:
        raise CommandError(
            f"the dev photos are of the model {dev.model}, the embedder serves {model}: embed them with it"
        )
    if IndexVersion.open(index_dir, verify=False).manifest.model == model:
        raise CommandError(f"{index_dir} is of the model {model} already, which the embedder serves")
    with Journal.open(new_dir) as journal:
        if journal.sequence():
            raise CommandError(f"{new_dir} was written to: it lives a life of its own now. Migrate into another index")
    if version_names(new_dir) and (made := IndexVersion.open(new_dir, verify=False).manifest.model) != model:
        raise CommandError(f"{new_dir} is of the model {made}, the embedder serves {model}: name another index")


def _read(index_dir: Path) -> tuple[Source, Gallery, list[bytes]]:
    """The gallery as it is now, and the keys of its photos."""
    holding = Holding.current(index_dir)  # so that the journal keeps what the version lacks
    try:
        base = IndexVersion.open(index_dir, holding.path.name, verify=False)
        with Journal.open(index_dir) as journal:
            source = source_of(base, journal, journal.sequence())
        gallery = source.gallery()
        return source, gallery, _photo_keys(gallery)
    finally:
        holding.release()


def _photo_keys(gallery: Gallery) -> list[bytes]:
    keys, old = [], gallery.embeddings
    ids, uris = gallery.item_ids, gallery.uris
    for start in range(0, len(ids), _READ_ROWS):
        part = old[np.arange(start, min(start + _READ_ROWS, len(ids)))]
        keys += [photo_key(ids[start + n], uris[start + n], part[n].tobytes()) for n in range(len(part))]
    return keys


Made = dict[int, NDArray[np.float32]]
Bad = dict[int, str]


@dataclass(frozen=True)
class _Embedder:
    """Of the photos of a gallery, which are told apart by row."""

    client: vmmr.Client
    where: Where
    item_ids: Sequence[str]
    uris: Sequence[str]

    def all_but_those_there(self, photos: Sequence[bytes], remade: Remade, batch: int) -> tuple[int, list[Lost]]:
        """Embeds what was not yet; returns how many, and which it could not."""
        rows = [row for row, photo in enumerate(photos) if not remade.has(photo)]
        batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        lost: list[Lost] = []
        with progress(initial=len(photos) - len(rows), total=len(photos), desc="embed", unit="photo") as bar:
            for made, bad in _in_turn(self.embedded, batches):
                remade.add({photos[row]: vector for row, vector in made.items()})
                lost += [Lost(self.item_ids[row], reason) for row, reason in bad.items()]
                bar.update(len(made) + len(bad))
        return len(rows) - len(lost), lost

    def embedded(self, rows: Iterable[int]) -> tuple[Made, Bad]:
        """By row, embeddings, and why photos have none."""
        had, bad = self._had(rows)
        while had:
            try:
                vectors = self.client.embed(list(had.values())).vectors
            except vmmr.InvalidPhotoError as error:
                refused = {list(had)[position]: str(error.of(position)) for position in error.photos}
                if not refused:
                    raise
                bad |= refused
                had = {row: photo for row, photo in had.items() if row not in bad}
            else:
                return dict(zip(had, vectors, strict=True)), bad
        return {}, bad

    def _had(self, rows: Iterable[int]) -> tuple[dict[int, bytes], Bad]:
        had: dict[int, bytes] = {}
        bad: Bad = {}
        for row in rows:
            try:
                had[row] = self.where.photo(self.uris[row])
            except (vmmr.PhotoError, OSError, ValueError) as error:
                bad[row] = str(error)
        return had, bad


def _in_turn(work: Callable[[list[int]], tuple[Made, Bad]], batches: Sequence[list[int]]) -> Iterator[tuple[Made, Bad]]:
    """The results in order, few of them ahead of who takes them."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="embed") as pool:
        try:
            coming = deque(pool.submit(work, rows) for rows in batches[:_AT_ONCE])
            for rows in batches[_AT_ONCE:]:
                yield coming.popleft().result()
                coming.append(pool.submit(work, rows))
            for future in coming:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _told(lost: Sequence[Lost]) -> str:
    lines = "\n".join(f"  {each.item_id}: {each.reason}" for each in lost)
    return f"{len(lost)} photos cannot be embedded, and nothing was built (--skip-missing leaves them out):\n{lines}"


def _taken(gallery: Gallery, rows: Sequence[int]) -> Gallery:
    """Return these photos of a gallery."""
    columns = ("item_ids", "labels", "uris", "batch_ids", "attributes")
    taken: dict[str, Any] = {name: [getattr(gallery, name)[row] for row in rows] for name in columns}
    return dataclasses.replace(gallery, rows=gallery.rows[list(rows)], **taken)


def _of_model(gallery: Gallery, model_name: str, remade: Remade, photos: Sequence[bytes]) -> Gallery:
    """Return the same photos with the embeddings of another model."""
    return dataclasses.replace(
        gallery,
        model=remade.model,
        model_name=model_name,
        embeddings=remade.rows(photos),
        rows=np.arange(len(photos)),
    )


def _spec(source: Source, items: int, factory: str | None, dev: Embeddings | None) -> IndexSpec:
    """As the old index, but for what depends on the embeddings' values."""
    spec = spec_of(source.base.manifest, items, len(source.label_names))
    return dataclasses.replace(
        spec, factory=factory or spec.factory, temperature=None, k=None if dev else source.base.manifest.k
    )


def _build(
    new_dir: Path,
    gallery: Gallery,
    photos: Sequence[bytes],
    remade: Remade,
    *,
    spec: IndexSpec,
    held: HeldOutPhotos | None,
    resources: Resources,
) -> IndexVersion | None:
    """Build a version of the gallery, or return None if the last one that was built is of the same."""
    job = _job(gallery, photos, spec, held)
    if remade.built == job and version_names(new_dir):
        return None
    gallery = dataclasses.replace(gallery, embeddings_fingerprint=job)
    version = build_version(new_dir, gallery, spec, held=held, resources=resources)
    remade.build_is_of(job)
    return version


def _job(gallery: Gallery, photos: Sequence[bytes], spec: IndexSpec, held: HeldOutPhotos | None) -> str:
    """sha256 of all that the version depends on."""
    names = zip(gallery.labels, gallery.batch_ids, gallery.attributes, strict=True)
    others = (repr((label.label, batch, sorted(more.items()))).encode() for label, batch, more in names)
    dev = held.embeddings[held.rows].tobytes() if held else b""
    return sha256_of([*photos, *others, repr(spec).encode(), dev])


def _held(gallery: Gallery, dev: Embeddings) -> HeldOutPhotos:
    """The dev photos of the gallery's labels that are not in the gallery."""
    known = {label.label: label for label in gallery.labels}
    there = {*gallery.item_ids, *gallery.uris}
    rows = [
        row
        for row, photo in enumerate(dev.photos)
        if photo.split == "dev" and photo.label.label in known and photo.path not in there
    ]
    return HeldOutPhotos(dev.matrix, np.array(rows, np.int64), [known[dev.photos[row].label.label] for row in rows])
