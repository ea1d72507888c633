"""What is fuzzed. A target takes bytes, and raises if what comes of them is neither right nor refused by name."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz.files import Bundle, CalibrationFile, Csv, EmbeddingsManifest, Index, IndexManifest, JournalFiles
from tests.fuzz.messages import Message
from tests.fuzz.pictures import Crop, Photo

Target = Callable[[bytes], object]

TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "photo": Photo,
    "crop": Crop,
    "message": Message,
    "csv": Csv,
    "calibration": CalibrationFile,
    "model.json": Bundle,
    "index manifest": IndexManifest,
    "embeddings manifest": EmbeddingsManifest,
    "index": Index,
    "journal": JournalFiles,
}
"""Makers of targets, which are given a folder that is not there yet, for their files."""

CORPUS = Path(__file__).parent / "corpus"
_MEMORY = Path("/dev/shm")  # a disk would have to write each input


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for files of targets, in memory where that can be."""
    return tempfile.TemporaryDirectory(prefix="vmmr-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
