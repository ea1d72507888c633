"""The items of an index version: `items.arrow`, memory-mapped, so that opening costs nothing and looking up little.

One record batch, a row an item: `item_id` and `uri` (large_string), and `label`, dictionary-encoded: an int32 index into
the distinct labels (label, make, model, year), which are sorted by their label string.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from search_svc.labels import Label
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


class Items:
    """Ids, labels and uris by row number, 0 to N - 1."""

    labels: tuple[Label, ...]
    """The distinct labels, sorted by their label string."""
    label_of: NDArray[np.int32]
    """(N,) index into `labels`, read-only."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._item_ids = batch.column("item_id")
        self._uris = batch.column("uri")
        column = batch.column("label")
        self.labels = tuple(Label(**fields) for fields in column.dictionary.to_pylist())
        self.label_of = column.indices.to_numpy()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises ArtifactError if the file cannot be read as items."""
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                if reader.schema != _SCHEMA or reader.num_record_batches != 1:
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

    def take(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """The item ids and the uris of rows."""
        positions = pa.array(rows, pa.int64())
        return self._item_ids.take(positions).to_pylist(), self._uris.take(positions).to_pylist()


def write_items(path: Path, item_ids: Sequence[str], labels: Sequence[Label], uris: Sequence[str]) -> None:
    """Writes one row an item; all three sequences are aligned."""
    distinct = {label.label: label for label in labels}
    position = {name: i for i, name in enumerate(sorted(distinct))}
    rows = [
        {"label": label.label, "make": label.make, "model": label.model, "year": label.year}
        for _, label in sorted(distinct.items())
    ]
    label_of = pa.array((position[label.label] for label in labels), pa.int32(), size=len(labels))
    batch = pa.record_batch(
        [
            pa.array(item_ids, pa.large_string()),
            pa.array(uris, pa.large_string()),
            pa.DictionaryArray.from_arrays(label_of, pa.array(rows, _LABEL)),
        ],
        schema=_SCHEMA,
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_batch(batch)
