"""An index version: an immutable directory that holds a searchable gallery.

```
manifest.json       VersionManifest, and size and sha256 of the other files
shard-000.faiss     rows [start, stop) of the gallery, one in `step`, in faiss' own format
items.arrow         id, label and uri of every row
embeddings.npy      (items, dimension) float16: what the shards hold, before they compress it
sums.npy            (labels, dimension) float64: the sum of the embeddings of each label; absent from older versions
calibration.json    Calibration; absent if the index is not calibrated
```

A row number is an item's id everywhere in a version. Nothing here knows faiss.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from search_svc.dataset.cuts import CutCounts
from search_svc.index.index_dir import current, version_path, way_out
from search_svc.index.items import Items
from search_svc.voting.calibration import Calibration
from search_svc.voting.means import Means, sum_by_label
from svckit.artifact import NPY_ERRORS, ArtifactError, read_manifest, read_sealed, write_manifest

Kind = TypeVar("Kind", np.float16, np.float64)

Metric = Literal["ip", "l2"]
"""Scores are inner products, or minus squared Euclidean distances."""

CALIBRATION_FILE = "calibration.json"
EMBEDDINGS_FILE = "embeddings.npy"
ITEMS_FILE = "items.arrow"
SUMS_FILE = "sums.npy"
_ALWAYS_VERIFIED = (ITEMS_FILE, CALIBRATION_FILE)
"""Files that are read whole when a version is opened, and small beside the others. pyarrow ends the process over some damage."""
MANIFEST_FILE = "manifest.json"
_KIND = "index"


@dataclass(frozen=True)
class SearchParams:
    """The parameters that faiss is given with each search; None where the kind of index has no such parameter, or for its default."""

    nprobe: int | None = None
    """Inverted lists to visit (IVF)."""
    ef_search: int | None = None
    """Candidates to keep while walking the graph (HNSW)."""
    rerank: int | None = None
    """Candidates for each neighbour: so many times k are found by the index, and compared again with the embeddings."""


@dataclass(frozen=True)
class ShardInfo:
    """The file that holds every `step`-th row of the gallery from `start`, before `stop`."""

    file: str
    start: int
    stop: int
    step: int = 1
    longest: float | None = None
    """Length of the longest embedding; None if it is not known."""

    @property
    def rows(self) -> range:
        return range(self.start, self.stop, self.step)


@dataclass(frozen=True)
class VersionManifest:
    version: str
    """Six digits, for example `000001`."""
    model: str
    """Fingerprint of the model that made the embeddings."""
    model_name: str
    dimension: int
    items: int
    labels: int
    """Distinct labels."""
    factory: str
    """The faiss factory string."""
    metric: Metric
    shards: tuple[ShardInfo, ...]
    search: SearchParams
    k: int
    """Neighbours found, and voters, unless a query says otherwise."""
    temperature: float
    """The vote's, in units of the score."""
    seed: int
    train_sample: int
    """Embeddings the index was trained on; 0 if it needs no training."""
    created: datetime
    journal_sequence: int = 0
    """Number of the last journal entry that the version holds; 0 also for versions that were built from photos alone."""
    cuts: CutCounts | None = None
    """Photos by what of them was embedded; None in versions that were built before that was known."""


@dataclass(frozen=True)
class IndexVersion:
    path: Path
    manifest: VersionManifest
    embeddings: NDArray[np.float16]
    """(items, dimension), memory-mapped, read-only."""
    items: Items
    calibration: Calibration | None = None
    """None if the index is not calibrated."""
    sums: NDArray[np.float64] | None = None
    """(labels, dimension), memory-mapped, read-only; None in versions that were built before there were any."""

    @property
    def shard_paths(self) -> tuple[Path, ...]:
        return tuple(self.path / shard.file for shard in self.manifest.shards)

    @property
    def typical(self) -> Mapping[str, float]:
        """Label -> how near its photos are to each other, as a score; empty if the index is not calibrated."""
        return self.calibration.typical if self.calibration else {}

    @cached_property
    def means(self) -> Means:
        """The means of the labels. A version without sums reads all its embeddings for them, once."""
        labels = len(self.items.labels)
        sums = sum_by_label(self.embeddings, self.items.label_of, labels) if self.sums is None else self.sums
        return Means(sums)

    @classmethod
    def open(cls, index_dir: Path, version: str | None = None, *, verify: bool = True) -> Self:
        """Open the version of that name, or the current one.

        Raise ArtifactError, naming the file, the reason and the way out, if a file is missing, does not fit the others, or is not
        what was written. Of the shards, the embeddings and the sums that is asked (by sha256, of every byte) with `verify` alone.
        """
        name = version or current(index_dir)
        try:
            return cls._at(version_path(index_dir, name), verify=verify)
        except ArtifactError as error:
            raise ArtifactError(error.path, error.reason, way_out(index_dir, name)) from error

    @classmethod
    def _at(cls, path: Path, *, verify: bool) -> Self:
        if not path.is_dir():
            raise ArtifactError(path, "there is no such index version")
        fields = read_manifest(path, MANIFEST_FILE, verify=verify, always=_ALWAYS_VERIFIED)
        manifest = _manifest(path, fields)
        items = _items(path, manifest)
        calibration = _calibration(path, items) if CALIBRATION_FILE in fields["files"] else None
        embeddings = mapped_embeddings(path / EMBEDDINGS_FILE, manifest)
        has_sums = SUMS_FILE in fields["files"]
        sums = _matrix(path / SUMS_FILE, np.float64, (manifest.labels, manifest.dimension)) if has_sums else None
        return cls(path, manifest, embeddings, items, calibration, sums)


def stated(index_dir: Path, version: str) -> VersionManifest:
    """Return the manifest of a version, whether or not its other files can be read.

    Raise ArtifactError, naming the file, the reason and the way out, if even that cannot be.
    """
    path = version_path(index_dir, version)
    try:
        return _manifest(path, read_sealed(path / MANIFEST_FILE))
    except ArtifactError as error:
        raise ArtifactError(error.path, error.reason, way_out(index_dir, version)) from error


def listed(path: Path) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """Return the sha256 of a version's manifest, which is that of all it holds, and the `sha256` and `bytes` of each file that it lists."""
    fields = read_sealed(path / MANIFEST_FILE)
    return fields["sha256"], fields["files"]


def mapped_embeddings(file: Path, manifest: VersionManifest) -> NDArray[np.float16]:
    """Map the embeddings of a version into memory. Raise ArtifactError if the file does not hold so many of that dimension."""
    return _matrix(file, np.float16, (manifest.items, manifest.dimension))


def write_version_manifest(draft: Path, manifest: VersionManifest) -> None:
    """Write the manifest, the last file of a draft: it holds the sha256 of the others."""
    fields = {"kind": _KIND, **dataclasses.asdict(manifest), "created": manifest.created.isoformat()}
    write_manifest(draft, fields, MANIFEST_FILE)


def _manifest(path: Path, fields: Mapping[str, Any]) -> VersionManifest:
    try:
        manifest = _parse(fields)
        _check(manifest, path.name)
        _check_listed(manifest, fields["files"])
    except ValueError as error:
        raise ArtifactError(path / MANIFEST_FILE, str(error)) from error
    return manifest


def _parse(fields: Mapping[str, Any]) -> VersionManifest:
    if fields.get("kind") != _KIND:
        raise ValueError(f"kind must be {_KIND!r}, got {fields.get('kind')!r}")
    try:
        fields = {"journal_sequence": 0, "cuts": None, **fields}  # older versions do not have them
        values = {name: _typed(name, fields[name], kind) for name, kind in get_type_hints(VersionManifest).items()}
        values["shards"] = tuple(_shard(shard) for shard in values["shards"])
        values["search"] = _search(values["search"])
        values["cuts"] = _cuts(values["cuts"])
        values["created"] = datetime.fromisoformat(values["created"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"a field is missing or of the wrong type: {error}") from error
    return VersionManifest(**values)


def _shard(fields: Mapping[str, Any]) -> ShardInfo:
    shard = ShardInfo(**fields)
    for name, kind in {"file": str, "start": int, "stop": int, "step": int}.items():
        _typed(name, getattr(shard, name), kind)
    if shard.longest is not None:
        _typed("longest", shard.longest, float)
    return shard


def _cuts(fields: Mapping[str, Any] | None) -> CutCounts | None:
    if fields is None:
        return None
    return CutCounts(**{name: _typed(name, count, int) for name, count in fields.items()})


def _search(fields: Mapping[str, Any]) -> SearchParams:
    for name, value in fields.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    return SearchParams(**fields)


def _typed(name: str, value: Any, kind: Any) -> Any:
    plain = {str: str, int: int, float: int | float}
    if kind in plain and (not isinstance(value, plain[kind]) or isinstance(value, bool)):
        raise TypeError(f"{name} is {value!r}")
    return value


def _check(manifest: VersionManifest, directory: str) -> None:
    if manifest.version != directory:
        raise ValueError(f"version is {manifest.version!r}, but the directory is {directory!r}")
    if manifest.metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {', '.join(get_args(Metric))}, got {manifest.metric!r}")
    if not manifest.model:
        raise ValueError("model, the fingerprint, is empty")
    if manifest.k < 1 or not manifest.temperature > 0:
        raise ValueError(f"k must be >= 1 and temperature > 0, got {manifest.k} and {manifest.temperature}")
    if manifest.journal_sequence < 0:
        raise ValueError(f"journal_sequence must be >= 0, got {manifest.journal_sequence}")
    if not _partition([shard.rows for shard in manifest.shards], manifest.items):
        raise ValueError(f"the shards do not hold each of the rows 0 to {manifest.items - 1} once")
    if manifest.cuts and manifest.cuts.total != manifest.items:
        raise ValueError(f"cuts counts {manifest.cuts.total} photos, items says {manifest.items}")


def _partition(shards: Sequence[range], items: int) -> bool:
    """Return whether the shards hold each row of the gallery once, in either of the two ways that it is divided."""
    steps = len(shards)
    strided = [range(start, items, steps) for start in range(steps)]
    edges = [*(rows.start for rows in shards), items]
    contiguous = [range(*edge) for edge in pairwise(edges)]
    return len(shards) > 0 and all(shards) and (shards == strided or (edges[0] == 0 and shards == contiguous))


def _check_listed(manifest: VersionManifest, files: Mapping[str, Any]) -> None:
    needed = {EMBEDDINGS_FILE, ITEMS_FILE, *(shard.file for shard in manifest.shards)}
    if missing := sorted(needed - files.keys()):
        raise ValueError(f"files has no entry for {', '.join(missing)}")


def _matrix(file: Path, kind: type[Kind], shape: tuple[int, int]) -> NDArray[Kind]:
    """Map a matrix into memory. Raise ArtifactError if the file does not hold one of that kind and shape."""
    try:
        matrix: NDArray[Kind] = np.load(file, mmap_mode="r")
    except NPY_ERRORS as error:
        raise ArtifactError(file, str(error)) from error
    if matrix.shape != shape or matrix.dtype != kind:
        raise ArtifactError(file, f"must be {np.dtype(kind)} {shape}, is {matrix.dtype} {matrix.shape}")
    return matrix


def _items(path: Path, manifest: VersionManifest) -> Items:
    items = Items.open(path / ITEMS_FILE)
    if (len(items), len(items.labels)) != (manifest.items, manifest.labels):
        reason = f"holds {len(items)} items of {len(items.labels)} labels"
        raise ArtifactError(
            path / ITEMS_FILE, f"{reason}; the manifest says {manifest.items} items of {manifest.labels} labels"
        )
    return items


def _calibration(path: Path, items: Items) -> Calibration:
    calibration = Calibration.read(path / CALIBRATION_FILE)
    if lacking := sorted({label.label for label in items.labels} - calibration.typical.keys()):
        raise ArtifactError(path / CALIBRATION_FILE, f"typical has no entry for the label {lacking[0]!r}")
    return calibration
