"""The items of an index version: `items.arrow`, memory-mapped, so that opening costs nothing and looking up little.

One record batch, a row an item: `item_id` and `uri` (large_string), and `label`, dictionary-encoded: an int32 index into
the distinct labels (label, make, model, year), which are sorted by their label string. Two columns more, if any item was
added through the GalleryService with what they hold: `batch_id`, dictionary-encoded, and `attributes`, a map. One more, if it is known
of any item what of its photo was embedded: `cut`, a struct, null where that is not known.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from vmmr.label_names import canonical, normalise

from search_svc.dataset.cuts import Cut, CutKind, Cuts
from search_svc.voting.labels import Label
from search_svc.voting.vocabulary import Vocabulary
from search_svc.voting.years import Years
from svckit.artifact import ArtifactError

_LABEL = pa.struct(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("make", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("year", pa.int32()),
    ]
)
_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.large_string(), nullable=False),
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("label", pa.dictionary(pa.int32(), _LABEL), nullable=False),
    ]
)
_ENROLLED = (
    pa.field("batch_id", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("attributes", pa.map_(pa.string(), pa.string()), nullable=False),
)
_CUT = pa.field(
    "cut",
    pa.struct(
        [
            *(pa.field(side, pa.float32(), nullable=False) for side in ("left", "top", "right", "bottom")),
            pa.field("car_score", pa.float32()),
            pa.field("no_car_found", pa.bool_(), nullable=False),
        ]
    ),
)
_SCHEMAS = [pa.schema([*_SCHEMA, *enrolled, *cut]) for enrolled in ((), _ENROLLED) for cut in ((), (_CUT,))]


_FEW = 16
"""Up to this many rows are looked up one by one, in 0.7 microseconds a string. Arrow takes 10 to begin with, and hardly more for many."""


class Items:
    """Gives ids, labels and uris by row number, 0 to N - 1."""

    labels: tuple[Label, ...]
    """The distinct labels, sorted by their label string."""
    label_of: NDArray[np.int32]
    """(N,) index into `labels`, read-only."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._item_ids = batch.column("item_id")
        self._uris = batch.column("uri")
        column = batch.column("label")
        self.labels = tuple(_label(**fields) for fields in column.dictionary.to_pylist())
        self.label_of = column.indices.to_numpy()
        columns = {name: batch.column(name) for name in batch.schema.names}
        self._batch_ids = columns.get("batch_id")
        self._attributes = columns.get("attributes")
        self._cuts = columns.get("cut")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file of items. Raise ArtifactError if it cannot be read as items."""
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                if reader.schema not in _SCHEMAS or reader.num_record_batches != 1:
                    raise ArtifactError(path, "not the items of an index version")
                return cls(reader.get_batch(0))
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(path, str(error)) from error

    def __len__(self) -> int:
        return len(self._item_ids)

    def item_id(self, row: int) -> str:
        item_id: str = self._item_ids[row].as_py()
        return item_id

    def uri(self, row: int) -> str:
        uri: str = self._uris[row].as_py()
        return uri

    def batch_id(self, row: int) -> str:
        """Return the batch that an item was added in; empty if it was added in none."""
        batch_id: str = self._batch_ids[row].as_py() if self._batch_ids is not None else ""
        return batch_id

    def attributes(self, row: int) -> dict[str, str]:
        return dict(self._attributes[row].as_py()) if self._attributes is not None else {}

    def cut(self, row: int) -> Cut | None:
        """Return what of an item's photo was embedded; None if that is not known."""
        return None if self.cuts is None else self.cuts[row]

    @cached_property
    def cuts(self) -> Cuts | None:
        """What of each item's photo was embedded; None if that is known of none."""
        return None if self._cuts is None else _decoded_cuts(self._cuts)

    @cached_property
    def cut_kinds(self) -> NDArray[np.uint8]:
        """(N,) the CutKind of each item."""
        return np.full(len(self), CutKind.UNKNOWN, np.uint8) if self.cuts is None else self.cuts.kinds

    def rows_of_batch(self, batch_id: str) -> NDArray[np.int64]:
        """Return the rows that were added in a batch, ascending."""
        if self._batch_ids is None or not batch_id or batch_id not in (names := self._batch_ids.dictionary.to_pylist()):
            return np.empty(0, np.int64)
        return np.flatnonzero(self._batch_ids.indices.to_numpy() == names.index(batch_id))

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the labels of rows, as indices into `labels`."""
        return self.label_of[rows]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of photos of each label: (labels,)."""
        return np.bincount(self.label_of, minlength=len(self.labels))

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """The number of photos of each label."""
        sizes: Counter[str] = Counter()
        for label, count in zip(self.labels, self.counts.tolist(), strict=True):
            sizes[label.label] += count
        return sizes

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of these labels; a gallery that changes adds new labels after them."""
        return Vocabulary(self.labels)

    @cached_property
    def makes(self) -> frozenset[str]:
        """The makes of several words, by which those of new labels are read."""
        return frozenset(make for label in self.labels if " " in (make := normalise(label.make)))

    @cached_property
    def years(self) -> Years:
        """The years of each model."""
        return Years(self.labels)

    @cached_property
    def by_id(self) -> NDArray[np.uint32]:
        """The rows in the order of their item ids. Sorting a million takes a second, so it is done when first asked for."""
        order: NDArray[np.uint32] = pc.sort_indices(self._item_ids).to_numpy().astype(np.uint32)
        return order

    def row(self, item_id: str) -> int | None:
        """Return the row of an item, or None if none has that id."""
        place = self.place_by_id(item_id)
        found = place < len(self) and self._id_bytes(place) == item_id.encode()
        return int(self.by_id[place]) if found else None

    def place_by_id(self, item_id: str) -> int:
        """Return how many items have a lower id, in the order of `by_id`."""
        return bisect_left(range(len(self)), item_id.encode(), key=self._id_bytes)

    def _id_bytes(self, place: int) -> bytes:
        """Return the UTF-8 id of the item at a place in the order of ids. Bytes have the order of code points."""
        offsets, content = self._raw_ids
        row = self.by_id[place]
        return bytes(content[offsets[row] : offsets[row + 1]])

    @cached_property
    def _raw_ids(self) -> tuple[NDArray[np.int64], memoryview]:
        """Ids as Arrow keeps them, offsets and bytes: five times faster to compare than strings made of them."""
        _, offsets, content = self._item_ids.buffers()
        first = self._item_ids.offset
        places = np.frombuffer(offsets, np.int64)[first : first + len(self) + 1]
        return places, memoryview(content) if content is not None else memoryview(b"")

    def take(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """Return the item ids and the uris of rows."""
        if len(rows) <= _FEW:
            return [self.item_id(row) for row in rows], [self.uri(row) for row in rows]
        positions = pa.array(rows, pa.int64())
        return self._item_ids.take(positions).to_pylist(), self._uris.take(positions).to_pylist()


def write_items(
    path: Path,
    item_ids: Sequence[str],
    labels: Sequence[Label],
    uris: Sequence[str],
    *,
    batch_ids: Sequence[str] = (),
    attributes: Sequence[Mapping[str, str]] = (),
    cuts: Cuts | None = None,
) -> None:
    """Write one row for each item; the sequences are aligned. Give `batch_ids` and `attributes` together, or neither."""
    columns = [pa.array(item_ids, pa.large_string()), pa.array(uris, pa.large_string()), _encoded(labels)]
    schema = _SCHEMA
    if batch_ids:
        schema = pa.schema([*schema, *_ENROLLED])
        columns.append(pa.array(batch_ids, pa.string()).dictionary_encode())
        columns.append(pa.array([list(each.items()) for each in attributes], schema.field("attributes").type))
    if cuts is not None and cuts.known.any():
        schema = schema.append(_CUT)
        columns.append(_encoded_cuts(cuts))
    batch = pa.record_batch(columns, schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)


def _label(label: str, make: str, model: str, year: int | None) -> Label:
    """Return a label of the file. Older versions have labels as they were given, which may be in another form of Unicode."""
    return Label(canonical(label), make, model, year)


def _encoded(labels: Sequence[Label]) -> pa.DictionaryArray:
    distinct = {label.label: label for label in labels}
    position = {name: i for i, name in enumerate(sorted(distinct))}
    rows = [
        {"label": label.label, "make": label.make, "model": label.model, "year": label.year}
        for _, label in sorted(distinct.items())
    ]
    label_of = pa.array((position[label.label] for label in labels), pa.int32(), size=len(labels))
    return pa.DictionaryArray.from_arrays(label_of, pa.array(rows, _LABEL))


def _encoded_cuts(cuts: Cuts) -> pa.StructArray:
    sides = [pa.array(cuts.table[side]) for side in ("left", "top", "right", "bottom")]
    scores = pa.array(cuts.table["car_score"], from_pandas=True)  # NaN becomes null
    arrays = [*sides, scores, pa.array(cuts.no_car)]
    return pa.StructArray.from_arrays(arrays, fields=list(_CUT.type), mask=pa.array(~cuts.known))


def _decoded_cuts(column: pa.StructArray) -> Cuts:
    numbers = [
        column.field(side).to_numpy(zero_copy_only=False) for side in ("left", "top", "right", "bottom", "car_score")
    ]
    no_car = column.field("no_car_found").to_numpy(zero_copy_only=False)
    return Cuts.of_columns(numbers, no_car, column.is_valid().to_numpy(zero_copy_only=False))
