"""What an index is built from: photos with their embeddings, ids, labels and uris."""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from search_svc.building.checkpoints import Checkpoints, Pace
from search_svc.building.mapped import drop_pages
from search_svc.dataset.cuts import Cuts
from search_svc.dataset.embeddings import Embeddings
from search_svc.voting.labels import Label, first_contradiction
from svckit.artifact import sha256_of
from svckit.cli import CommandError, progress

_CHUNK_ROWS = 8192
_COPIED = "embeddings"


class Rows(Protocol):
    """An array of embeddings (M, dimension), as far as a build needs it: rows are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]: ...


@dataclass(frozen=True, kw_only=True)
class BuildSource:
    """The photos that an index is built from. All sequences are aligned with `rows`."""

    model: str
    """Fingerprint of the model that made the embeddings."""
    model_name: str
    embeddings: Rows
    """(M, dimension), of these photos and maybe of others."""
    rows: NDArray[np.int64]
    """(N,): where the photos are among the embeddings."""
    item_ids: Sequence[str]
    labels: Sequence[Label]
    uris: Sequence[str]
    batch_ids: Sequence[str] = ()
    """Batches of items that were added while a gallery was served. Given together with the attributes, or not at all."""
    attributes: Sequence[Mapping[str, str]] = ()
    cuts: Cuts | None = None
    """What of each photo was embedded; None if that is known of none."""
    embeddings_fingerprint: str | None = None
    """A text that changes with the embeddings' values; None: it is computed from them."""

    @classmethod
    def of(cls, embeddings: Embeddings, rows: NDArray[np.int64]) -> Self:
        """Return the photos in these rows of a collection that was embedded. Their paths are their ids and uris."""
        photos = [embeddings.photos[row] for row in rows.tolist()]
        paths = [photo.path for photo in photos]
        return cls(
            model=embeddings.model,
            model_name=embeddings.model_name,
            embeddings=embeddings.matrix,
            rows=rows,
            item_ids=paths,
            labels=[photo.label for photo in photos],
            uris=paths,
            cuts=None if embeddings.cuts is None else embeddings.cuts.take(rows),
            embeddings_fingerprint=embeddings.fingerprint,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        return int(self.embeddings.shape[1])

    @property
    def value_fingerprint(self) -> str:
        """Return `embeddings_fingerprint`, or the sha256 of all embeddings, which are read for that."""
        return self.embeddings_fingerprint or _fingerprint(self.embeddings)

    @property
    def fingerprint(self) -> str:
        """Return the sha256 of all but the embeddings' values."""
        cars = sorted({(car.label, car.make, car.model, car.year or 0) for car in self.labels})
        parts = (
            names[i : i + _CHUNK_ROWS] for names in (self.item_ids, self.uris) for i in range(0, len(self), _CHUNK_ROWS)
        )
        return sha256_of(
            itertools.chain(
                (self.rows.tobytes(), self.label_of.tobytes(), json.dumps(cars).encode()),
                (json.dumps(part).encode() for part in parts),
            )
        )

    @property
    def label_of(self) -> NDArray[np.int64]:
        """(N,) Labels as numbers, in the order of their names."""
        number = {name: i for i, name in enumerate(sorted({label.label for label in self.labels}))}
        return np.array([number[label.label] for label in self.labels])

    def check(self) -> None:
        """Raise CommandError if there are no photos, or they contradict each other."""
        if not len(self):
            raise CommandError("there is no photo to index")
        if not len(self) == len(self.item_ids) == len(self.labels) == len(self.uris):
            counts = f"{len(self.item_ids)} ids, {len(self.labels)} labels, {len(self.uris)} uris"
            raise CommandError(f"the gallery is out of line: {len(self)} embeddings, {counts}")
        if repeated := _first_repeated(self.item_ids):
            raise CommandError(f"two photos have the id {repeated!r}")
        if places := first_contradiction(self.labels):
            one, other = (f"{self.labels[place].car} for {self.item_ids[place]!r}" for place in places)
            raise CommandError(f"the label {self.labels[places[0]].label!r} has {one}, but {other}")

    def by_label(self) -> Self:
        """Return the photos sorted by label; the photos of a label stay in their order."""
        return self.select(np.argsort(self.label_of, kind="stable").tolist())

    def select(self, places: Sequence[int]) -> Self:
        """Return the photos at these places, in this order."""
        columns = ("item_ids", "labels", "uris", "batch_ids", "attributes")
        selected: dict[str, Any] = {
            name: [values[place] for place in places] for name in columns if (values := getattr(self, name))
        }
        chosen = np.array(places, np.int64)
        cuts = None if self.cuts is None else self.cuts.take(chosen)
        return replace(self, rows=self.rows[chosen], cuts=cuts, **selected)


def copy_embeddings(path: Path, source: BuildSource, work: Path) -> float:
    """Write the embeddings of the photos as float16 to a .npy file; return their mean squared length.

    A copy that was killed is continued from what it recorded in `work`. Raises CommandError if float16 cannot hold a value.
    """
    checkpoints, pace = Checkpoints(work), Pace()
    found = checkpoints.find(_COPIED)
    done, squares = (int(found.state["rows"]), found.state["squares"]) if found else (0, 0.0)
    with (
        path.open("ab" if found else "wb") as file,
        progress(initial=done, total=len(source), desc="copy", unit="photo") as bar,
    ):
        if not found:
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(source), source.dimension)}
            np.lib.format.write_array_header_1_0(file, header)
        for start in range(done, len(source), _CHUNK_ROWS):
            chunk = _chunk(source, start)
            file.write(chunk.tobytes())
            squares += _squares(chunk)
            done = start + len(chunk)
            bar.update(len(chunk))
            pace.maybe(lambda: _record(checkpoints, file, done, squares))  # noqa: B023 - called at once
        if squares == 0:
            raise CommandError("all embeddings are zero")
        if not found or done > found.state["rows"]:
            _record(checkpoints, file, done, squares)
    return squares / len(source)


def _fingerprint(embeddings: Rows) -> str:
    rows = np.arange(embeddings.shape[0])
    starts = range(0, len(rows), _CHUNK_ROWS)
    return sha256_of(np.ascontiguousarray(embeddings[rows[start : start + _CHUNK_ROWS]]).tobytes() for start in starts)


def copied_rows(work: Path) -> int:
    """Return how many rows a copy that was killed has recorded."""
    return int(Checkpoints(work).state(_COPIED).get("rows", 0))


def _chunk(source: BuildSource, start: int) -> NDArray[np.float16]:
    rows = source.rows[start : start + _CHUNK_ROWS]
    with np.errstate(over="ignore"):
        chunk = source.embeddings[rows].astype(np.dtype("<f2"))
    drop_pages(source.embeddings)
    finite = np.isfinite(chunk).all(axis=1)
    if not finite.all():
        bad = source.item_ids[start + int(np.argmin(finite))]
        raise CommandError(f"the embedding of {bad!r} has a value that is no number, or too large for float16")
    return chunk


def _squares(chunk: NDArray[np.float16]) -> float:
    """Return the sum of the squared lengths."""
    wide = chunk.astype(np.float32)
    return float(np.einsum("nd,nd->n", wide, wide).sum(dtype=np.float64))


def _record(checkpoints: Checkpoints, file: IO[bytes], rows: int, squares: float) -> None:
    file.flush()
    checkpoints.keep(_COPIED, Path(file.name), rows=rows, squares=squares)


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
