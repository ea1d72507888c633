"""Files of other people's, or of a disk that damaged them: each is read right, or refused by an error that names it."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedder_svc.network import bundle
from embedder_svc.photos.manifest import Manifest
from search_svc.dataset import exclude, photo_list
from search_svc.dataset.cuts import Cuts
from search_svc.dataset.embeddings import Embeddings
from search_svc.index.index_dir import current
from search_svc.index.version import IndexVersion
from search_svc.voting.calibration import Calibration
from svckit.artifact import ArtifactError, sealed, write_manifest
from svckit.cli import CommandError
from svckit.config import ConfigError
from svckit.errors import ServiceError
from tests.embedder_svc import tiny_bundle
from tests.flips import scenes
from tests.flips.asking import ask
from tests.fuzz.edits import edited

NAMED = (ArtifactError, CommandError, ConfigError, ServiceError)
"""Errors whose message names the file, or the argument, and says why."""


class Csv:
    """The readers of `manifest.csv`, `items.csv` and exclusion lists, each on the same file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._path = folder / "file.csv"

    def __call__(self, content: bytes) -> None:
        self._path.write_bytes(content)
        for read in (photo_list.read, exclude.read, Cuts.read, Manifest.read):
            with contextlib.suppress(ArtifactError):
                read(self._path)


class CalibrationFile:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._path = folder / "calibration.json"

    def __call__(self, content: bytes) -> None:
        self._path.write_bytes(content)
        with contextlib.suppress(ArtifactError):
            Calibration.read(self._path).write(self._path)


class _Sealed:
    """A folder whose manifest says what the fuzzer makes up: as it is, and, if it is JSON, with a seal that fits it."""

    def __init__(self, manifest: Path) -> None:
        self._manifest = manifest

    def __call__(self, content: bytes) -> None:
        self._attempt(content)
        with contextlib.suppress(ValueError, RecursionError):
            fields = json.loads(content)
            if isinstance(fields, dict):
                self._attempt(json.dumps(sealed(self._fit(fields))).encode())

    def _attempt(self, content: bytes) -> None:
        self._manifest.write_bytes(content)
        with contextlib.suppress(*NAMED):
            self._open()

    def _fit(self, fields: Mapping[str, object]) -> Mapping[str, object]:
        return fields

    def _open(self) -> None:
        raise NotImplementedError


class IndexManifest(_Sealed):
    def __init__(self, folder: Path) -> None:
        self._index = Index(folder)
        super().__init__(self._index.version / "manifest.json")

    def _open(self) -> None:
        IndexVersion.open(self._index.path)


class EmbeddingsManifest(_Sealed):
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        np.save(folder / "embeddings.npy", np.eye(2, scenes.D, dtype=np.float16))
        (folder / "items.csv").write_text(
            "path,label,make,model,year,split\n1.jpg,a_b_2000,a,b,2000,train\n2.jpg,c,c,,,dev\n"
        )
        write_manifest(folder, {})
        self._files = json.loads((folder / "manifest.json").read_bytes())["files"]
        super().__init__(folder / "manifest.json")

    def _fit(self, fields: Mapping[str, object]) -> Mapping[str, object]:
        return {**fields, "files": fields.get("files") or self._files}

    def _open(self) -> None:
        Embeddings.open(self._folder)


class Bundle(_Sealed):
    """A model bundle, whose `model.json` is the fuzzer's."""

    def __init__(self, folder: Path) -> None:
        tiny_bundle.make(folder, detector={})
        self._folder = folder
        super().__init__(folder / bundle.DESCRIPTION)
        self.description = self._manifest.read_bytes()

    def _open(self) -> None:
        bundle.read(self._folder)


class Index:
    """An index as a server left it that was killed, one of whose files is edited: answers are right, or it is refused."""

    def __init__(self, folder: Path, scene: str = "stopped", journal: bool = False) -> None:
        made = getattr(scenes, scene)(folder.with_name(f"{folder.name} of {scene}"))
        self._expected, self.path = made.expected, folder
        shutil.copytree(made.index, folder)
        self.version = folder / "versions" / current(folder)
        self._content = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        self._edited = [path for path in self._content if (path.parent == folder) == journal]

    @property
    def calibration(self) -> bytes:
        return self._content[self.version / "calibration.json"]

    @property
    def manifest(self) -> bytes:
        return self._content[self.version / "manifest.json"]

    def __call__(self, script: bytes) -> None:
        if not script:
            return
        chosen = self._edited[script[0] % len(self._edited)]
        self._lay({**self._content, chosen: edited(self._content[chosen], script[1:])})
        with contextlib.suppress(*NAMED):
            ask(self.path, self._expected, write=False)

    def _lay(self, content: Mapping[Path, bytes]) -> None:
        for path in sorted(self.path.rglob("*")):
            if path.is_file() and path not in content:
                path.unlink()
        for path, whole in content.items():
            if not path.exists() or path.read_bytes() != whole:
                path.unlink(missing_ok=True)
                path.write_bytes(whole)


class JournalFiles(Index):
    """The same of the journal's own files, which SQLite reads: also its log, of a server that was killed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "killed", journal=True)
