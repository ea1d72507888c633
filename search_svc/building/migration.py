"""Migration: builds an index for another model from the gallery of an index, beside that index.

Every photo is fetched from its uri and embedded anew by a running embedder, which looks for its main car if the new model has a detector;
a part that its owner gave is kept. Labels, ids and attributes of the items stay. The
old index is only read, and serves on. Photos are embedded once: run again, a migration takes in what changed since.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import vmmr

from search_svc.building.build import build_version
from search_svc.building.build_source import BuildSource
from search_svc.building.compaction import MergedGallery, merge_journal, spec_like
from search_svc.building.embedding_cache import EmbeddingCache, Remade, photo_key
from search_svc.building.spec import IndexSpec, Resources
from search_svc.dataset.cuts import Cut, CutKind
from search_svc.dataset.embeddings import Embeddings
from search_svc.fitting.held_out import HeldOutPhotos
from search_svc.index.index_dir import version_names
from search_svc.index.journal import Journal
from search_svc.index.version import IndexVersion
from search_svc.index.version_lease import VersionLease
from svckit.artifact import ArtifactError, sha256_of
from svckit.cli import CommandError, progress

_BATCHES_AT_ONCE = 3
"""While one batch is embedded, one is fetched and one waits at the embedder."""
_READ_ROWS = 4096


@dataclass(frozen=True)
class PhotoFetcher:
    """Fetches photos from the uris of their items."""

    root: Path | None
    """The folder that uris which are paths are relative to; None: there is none."""
    allow_private: bool = False
    """Fetch from private addresses, too."""

    def fetch(self, uri: str) -> bytes:
        """Return the encoded photo. Raises vmmr.PhotoError, OSError or ValueError, which say why it cannot be read."""
        if uri.startswith(("http://", "https://")):
            return vmmr.URL(uri, allow_private=self.allow_private).read()
        return self._path(uri).read_bytes()

    def _path(self, uri: str) -> Path:
        if not uri:
            raise ValueError("has no uri")
        if self.root is None:
            raise ValueError("its uri is a path: --photos says of which folder")
        path = PurePosixPath(uri)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"its uri leads out of {self.root}")
        return self.root / path


@dataclass(frozen=True)
class FailedPhoto:
    """A photo that cannot be fetched or embedded."""

    item_id: str
    reason: str


@dataclass(frozen=True)
class Migration:
    """The result of a migration."""

    version: IndexVersion | None
    """None if the new index holds everything already."""
    embedded: int
    """How many photos were embedded this time."""
    left_out: Sequence[FailedPhoto]
    """Photos that the version lacks."""
    held: HeldOutPhotos | None
    """The photos that it was calibrated on, if they were enough; None if none were given."""
    upto: int
    """Number of the last entry of the old index's journal that is in the new index."""


Embedded = dict[int, Remade]
"""Row -> its new embedding."""
Failures = dict[int, str]
"""Row -> why its photo cannot be fetched or embedded."""


@dataclass(frozen=True)
class GalleryEmbedder:
    """Embeds the photos of a gallery with the model that `client` reaches."""

    client: vmmr.Client
    photos: PhotoFetcher
    batch: int
    """Most photos in one request."""

    def embed_missing(
        self, gallery: BuildSource, keys: Sequence[bytes], cache: EmbeddingCache, most: int
    ) -> tuple[int, list[FailedPhoto]]:
        """Embed the photos that the cache lacks into it. Return how many were embedded, and which could not be.

        `most` is the number of photos that the embedder takes in one request.
        """
        batch = min(self.batch, most)
        rows = [row for row, key in enumerate(keys) if not cache.has(key)]
        batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        failed: list[FailedPhoto] = []
        with progress(initial=len(keys) - len(rows), total=len(keys), desc="embed", unit="photo") as bar:
            for embedded, failures in _map_in_order(lambda some: self._embed(gallery, some), batches):
                cache.add({keys[row]: remade for row, remade in embedded.items()})
                failed += [FailedPhoto(gallery.item_ids[row], reason) for row, reason in failures.items()]
                bar.update(len(embedded) + len(failures))
        return len(rows) - len(failed), failed

    def _embed(self, gallery: BuildSource, rows: Iterable[int]) -> tuple[Embedded, Failures]:
        fetched, failures = self._fetch(gallery, rows)
        while fetched:
            try:
                embeddings = self.client.embed(list(fetched.values()))
            except vmmr.InvalidPhotoError as error:
                refused = {list(fetched)[position]: str(error.of(position)) for position in error.photos}
                if not refused:
                    raise
                failures |= refused
                fetched = {row: photo for row, photo in fetched.items() if row not in failures}
            else:
                return dict(zip(fetched, _remade(embeddings), strict=True)), failures
        return {}, failures

    def _fetch(self, gallery: BuildSource, rows: Iterable[int]) -> tuple[dict[int, vmmr.Photo], Failures]:
        fetched: dict[int, vmmr.Photo] = {}
        failures: Failures = {}
        for row in rows:
            try:
                crop = _given(gallery.cuts[row] if gallery.cuts else None)
                fetched[row] = vmmr.Photo(self.photos.fetch(gallery.uris[row]), crop)
            except (vmmr.PhotoError, OSError, ValueError) as error:
                failures[row] = str(error)
        return fetched, failures


def _given(cut: Cut | None) -> vmmr.Box | None:
    """Return the part of a photo that its owner gave, if one was given."""
    if cut is None or cut.kind is not CutKind.GIVEN:
        return None
    return vmmr.Box(cut.left, cut.top, cut.right, cut.bottom)


def _remade(embeddings: vmmr.Embeddings) -> list[Remade]:
    if embeddings.parts is None:
        return [Remade(vector, None) for vector in embeddings.vectors]
    pairs = zip(embeddings.vectors, embeddings.parts, strict=True)
    return [Remade(vector, _cut(part.cut)) for vector, part in pairs]


def _cut(cut: vmmr.Cut) -> Cut:
    box = cut.box
    return Cut(box.left, box.top, box.right, box.bottom, cut.car_score, cut.no_car_found)


def migrate(
    index_dir: Path,
    new_dir: Path,
    embedder: GalleryEmbedder,
    *,
    dev: Embeddings | None = None,
    skip_missing: bool = False,
    factory: str | None = None,
    resources: Resources = Resources(),
) -> Migration:
    """Build the next version of `new_dir`: the gallery that `index_dir` holds now, for the model of `embedder`.

    It is calibrated on the dev photos of `dev`, if there are enough, and otherwise not at all. If photos cannot be fetched or
    embedded, and are not to be skipped, nothing is built: CommandError names all of them. Raises CommandError, too, if the
    arguments make no sense, ArtifactError if a file is damaged, vmmr.VmmrError if the embedder does not answer.
    """
    model = embedder.client.model_info()
    _check(index_dir, new_dir, model.fingerprint, dev)
    merged, gallery, keys = _read_gallery(index_dir)
    (new_dir / "versions").mkdir(parents=True, exist_ok=True)
    with EmbeddingCache(new_dir, model.fingerprint, model.dimension) as cache:
        embedded, failed = embedder.embed_missing(gallery, keys, cache, model.limits.max_images)
        if failed and not skip_missing:
            raise CommandError(_failure_text(failed))
        rows = [row for row, key in enumerate(keys) if cache.has(key)]
        keys = [keys[row] for row in rows]
        gallery = _with_new_embeddings(gallery.select(rows), model.name, cache, keys)
        held = _held(gallery, dev) if dev else None
        spec = _spec(merged, len(rows), factory, dev)
        version = _build(new_dir, gallery, keys, cache, spec=spec, held=held, resources=resources)
    return Migration(version, embedded, failed, held, merged.upto)


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


def _read_gallery(index_dir: Path) -> tuple[MergedGallery, BuildSource, list[bytes]]:
    """Return the gallery of the index as it is now, its photos, and their keys in the cache."""
    lease = VersionLease.current(index_dir)  # meanwhile, entries that the version lacks are not pruned from the journal
    try:
        base = IndexVersion.open(index_dir, lease.path.name, verify=False)
        with Journal.open(index_dir) as journal:
            merged = merge_journal(base, journal, journal.sequence())
        gallery = merged.build_source()
        return merged, gallery, _photo_keys(gallery)
    finally:
        lease.release()


def _photo_keys(gallery: BuildSource) -> list[bytes]:
    keys: list[bytes] = []
    ids, uris = gallery.item_ids, gallery.uris
    for start in range(0, len(ids), _READ_ROWS):
        part = gallery.embeddings[np.arange(start, min(start + _READ_ROWS, len(ids)))]
        keys += [photo_key(ids[start + n], uris[start + n], part[n].tobytes()) for n in range(len(part))]
    return keys


def _map_in_order(
    work: Callable[[list[int]], tuple[Embedded, Failures]], batches: Sequence[list[int]]
) -> Iterator[tuple[Embedded, Failures]]:
    """Yield the results of `work` in the order of the batches; run few batches ahead of what was taken."""
    with ThreadPoolExecutor(_BATCHES_AT_ONCE, thread_name_prefix="embed") as pool:
        try:
            running = deque(pool.submit(work, rows) for rows in batches[:_BATCHES_AT_ONCE])
            for rows in batches[_BATCHES_AT_ONCE:]:
                yield running.popleft().result()
                running.append(pool.submit(work, rows))
            for future in running:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _failure_text(failed: Sequence[FailedPhoto]) -> str:
    lines = "\n".join(f"  {each.item_id}: {each.reason}" for each in failed)
    return f"{len(failed)} photos cannot be embedded, and nothing was built (--skip-missing leaves them out):\n{lines}"


def _with_new_embeddings(
    gallery: BuildSource, model_name: str, cache: EmbeddingCache, keys: Sequence[bytes]
) -> BuildSource:
    return dataclasses.replace(
        gallery,
        model=cache.model,
        model_name=model_name,
        embeddings=cache.rows(keys),
        rows=np.arange(len(keys)),
        cuts=cache.cuts(keys),
    )


def _spec(merged: MergedGallery, items: int, factory: str | None, dev: Embeddings | None) -> IndexSpec:
    """Return the spec of the old index, but for what depends on the embeddings' values."""
    old = merged.base.manifest
    spec = spec_like(old, items, len(merged.label_names))
    return dataclasses.replace(spec, factory=factory or spec.factory, temperature=None, k=None if dev else old.k)


def _build(
    new_dir: Path,
    gallery: BuildSource,
    keys: Sequence[bytes],
    cache: EmbeddingCache,
    *,
    spec: IndexSpec,
    held: HeldOutPhotos | None,
    resources: Resources,
) -> IndexVersion | None:
    """Build a version of the gallery, or return None if the current one is of the same, and as it was built."""
    job = _job(gallery, keys, spec, held)
    if cache.last_build == _built(job, _current_and_whole(new_dir)):
        return None
    gallery = dataclasses.replace(gallery, embeddings_fingerprint=job)
    version = build_version(new_dir, gallery, spec, held=held, resources=resources)
    cache.record_build(_built(job, version.path.name))
    return version


def _built(job: str, version: str) -> str:
    return f"{job} {version}"


def _current_and_whole(index_dir: Path) -> str:
    """Return the name of the current version; empty if there is none, or if any byte of it is not as it was written."""
    with suppress(ArtifactError):
        return IndexVersion.open(index_dir).path.name
    return ""


def _job(gallery: BuildSource, keys: Sequence[bytes], spec: IndexSpec, held: HeldOutPhotos | None) -> str:
    """Return the sha256 of all that the version depends on."""
    names = zip(gallery.labels, gallery.batch_ids, gallery.attributes, strict=True)
    others = (repr((label.label, batch, sorted(more.items()))).encode() for label, batch, more in names)
    dev = held.embeddings[held.rows].tobytes() if held else b""
    cuts = b"" if gallery.cuts is None else gallery.cuts.table.tobytes()
    return sha256_of([*keys, *others, cuts, repr(spec).encode(), dev])


def _held(gallery: BuildSource, dev: Embeddings) -> HeldOutPhotos:
    """Return the dev photos with labels of the gallery that are not in the gallery, and show a car."""
    known = {label.label: label for label in gallery.labels}
    there = {*gallery.item_ids, *gallery.uris}
    rows = [
        row
        for row, photo in enumerate(dev.photos)
        if photo.split == "dev" and photo.label.label in known and photo.path not in there and not photo.no_car_found
    ]
    return HeldOutPhotos(dev.matrix, np.array(rows, np.int64), [known[dev.photos[row].label.label] for row in rows])
