"""An index that is written to, by this process or as a program: `python live_index.py INDEX COUNT SECONDS`.

As a program it adds COUNT items, one a write, SECONDS apart, and prints for each its sequence number and when it was on the
disk, by the clock that all processes of a machine share.
"""

import sys
import time
from pathlib import Path

import numpy as np

from search_svc.index.base import VersionBase
from search_svc.index.index_dir import current
from search_svc.index.journal import StoredItem
from search_svc.index.journal_writer import JournalWriter
from search_svc.index.version import IndexVersion
from search_svc.index.writes import Add, Delete, WriteResult
from search_svc.voting.labels import parse
from tests.search_svc.builds import build_version

D = 8
NAMES = ("honda_civic_2005", "honda_pilot_2011", "misc", "toyota_camry_2007")
MODEL = "c0ffee" + 58 * "0"


def unit(rows, seed=1):
    vectors = np.random.default_rng(seed).standard_normal((rows, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(directory, spec, vectors, *, model=MODEL, **options):
    return build_version(
        directory,
        embeddings=vectors,
        item_ids=[f"photo {row}" for row in range(len(vectors))],
        labels=[parse(NAMES[row % 4]) for row in range(len(vectors))],
        uris=[f"photos/{row}.jpg" for row in range(len(vectors))],
        model=model,
        model_name="test",
        spec=spec,
        **options,
    )


def stored(label, vector):
    return StoredItem(label, "", "", {}, np.asarray(vector).astype("<f2").tobytes())


class Index:
    """Writes to an index as a server would."""

    def __init__(self, path, served=None):
        """`served` gives the version that is served; unless it is given, the current one is."""
        self.path = path
        self._served = served
        self.writer = JournalWriter(path, self._base)
        self._opened = None

    def add(self, **items):
        """The sequence number of the write; values are (label, vector)."""
        return self._commit(Add({name: stored(*item) for name, item in items.items()}))

    def delete(self, *item_ids):
        return self._commit(Delete(item_ids))

    def _commit(self, write):
        (done,) = self.writer.commit([write])
        assert isinstance(done, WriteResult), done
        return done.sequence

    def _base(self):
        if self._served:
            return VersionBase(self._served())
        if self._opened is None or self._opened.path.name != current(self.path):
            self._opened = IndexVersion.open(self.path, verify=False)
        return VersionBase(self._opened)


def main():
    index, count, seconds = Index(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3])
    for row, vector in enumerate(unit(count, seed=7)):
        sequence = index.add(**{f"late {row}": ("honda_pilot_2027", vector)})
        print(sequence, time.monotonic_ns(), flush=True)
        time.sleep(seconds)


if __name__ == "__main__":
    main()
