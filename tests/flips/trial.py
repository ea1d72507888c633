"""One bit is flipped in one file of an index, and everything that can be done with the index is tried."""

import contextlib
import gc
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search_svc.__main__ import PROGRAM, parser
from search_svc.index.base import VersionBase
from search_svc.index.index_dir import version_names
from search_svc.index.journal import Journal, StoredItem
from search_svc.index.version import IndexVersion
from search_svc.serving.gallery_reader import GalleryReader, ItemFilter
from svckit import cli
from svckit.artifact import ArtifactError
from svckit.cli import CommandError
from svckit.config import ConfigError
from svckit.errors import ServiceError
from tests.flips.asking import WrongError, ask
from tests.flips.scenes import Expected, Scene

RIGHT, REFUSED, RIDDLE, SILENT = "right", "refused", "riddle", "silent"
_NAMED = (ArtifactError, CommandError, ConfigError, ServiceError)
_WAY_OUT = re.compile(r"vmmr-search (repair|rollback|restore|build)|backup")
_LOST = re.compile(r"(\d+) lost")
_PARSER = parser()


@dataclass(frozen=True)
class Place:
    scene: str
    file: str
    offset: int
    bit: int

    most_lost = 1
    """Entries that this can cost at most: one that is damaged is found wherever it is."""

    def damaged(self, file: str, whole: bytes) -> bytes | None:
        """Return what is in a file of the index instead; None if it is not there."""
        return flipped(whole, self) if file == self.file else whole


class Harm(Protocol):
    """What is wrong with an index."""

    @property
    def file(self) -> str: ...

    @property
    def most_lost(self) -> float: ...

    def damaged(self, file: str, whole: bytes) -> bytes | None: ...


@dataclass(frozen=True)
class Outcome:
    kind: str
    told: str = ""


class Table:
    """A directory with one scene on it, which is laid anew after every trial."""

    def __init__(self, scene: Scene, directory: Path) -> None:
        self.scene = scene
        self.index = directory / "index"
        self._most_lost: float = 0
        self._elsewhere = directory / "elsewhere"
        self._content = {path.relative_to(scene.index): path.read_bytes() for path in files(scene.index)}
        self._folders = [path.relative_to(scene.index) for path in folders(scene.index)]
        shutil.copytree(scene.index, self.index, dirs_exist_ok=True)

    def lay(self, harm: Harm | None = None) -> None:
        """Makes the index what the scene is, but for that."""
        shutil.rmtree(self._elsewhere, ignore_errors=True)
        for path in files(self.index):
            if path.relative_to(self.index) not in self._content:
                path.unlink()
        for path in sorted(folders(self.index), reverse=True):
            if path.relative_to(self.index) not in self._folders:
                path.rmdir()
        for name in self._folders:
            (self.index / name).mkdir(parents=True, exist_ok=True)
        for name, whole in self._content.items():
            path = self.index / name
            content = harm.damaged(str(name), whole) if harm else whole
            if content is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != content:
                path.unlink(missing_ok=True)
                path.write_bytes(content)

    def attempt(self, way: str, harm: Harm | None = None) -> Outcome:
        """What comes of it when this is done with the index with that harm done to it."""
        self.lay(harm)
        self._most_lost = harm.most_lost if harm else 0
        name = Path(harm.file).name if harm else ""
        try:
            WAYS[way](self)
        except WrongError as error:
            return Outcome(SILENT, str(error))
        except _NAMED as error:
            return refusal(str(error), name)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what the user would be told)
            return Outcome(RIDDLE, f"{type(error).__name__}: {error}")
        return Outcome(RIGHT)

    def serve(self) -> None:
        ask(self.index, self.scene.expected)

    def compact(self) -> None:
        command("compact", self.index)
        ask(self.index, self.scene.expected, write=False)

    def back_up(self) -> None:
        command("backup", self.index, self._elsewhere / "backup")
        command("restore", self._elsewhere / "backup", self._elsewhere / "index")
        ask(self._elsewhere / "index", self.scene.expected, write=False)

    def restore(self) -> None:
        """Of a scene that is a backup."""
        command("restore", self.index, self._elsewhere / "index")
        ask(self._elsewhere / "index", self.scene.expected, write=False)

    def roll_back(self) -> None:
        command("rollback", self.index, version_names(self.index)[-1])
        ask(self.index, self.scene.expected, write=False)

    def repair(self) -> None:
        """What repair tells must be true: nothing lost is all there, and what is lost is in no other way wrong."""
        gc.collect()  # a connection that an error before this still refers to is this process' own
        code, text = run("repair", self.index)
        if code == 0:
            try:
                ask(self.index, self.scene.expected)
            except _NAMED as error:
                if "journal" in Path(str(error).split(":", 1)[0]).name:
                    raise WrongError(f"repair ends with code 0, and then: {error}") from error
                raise  # of a file that repair does not speak of
            return
        if "saved" in text:
            check_what_is_left(self.index, self.scene.expected, text)
            check_how_much_is_lost(self.index, self.scene.expected, text, self._most_lost)
            text += " (all that is told to be saved is as it was; a backup has the rest)"
        # Here that is no way out.
        raise CommandError(text.replace("`vmmr-search repair", "`this"))


def check_what_is_left(index: Path, expected: Expected, text: str) -> None:
    """Raises WrongError unless every item is what it once was: what was lost can be a write, or the deletion after it."""
    after, last = what_is_left(index)
    if last < expected.sequence:
        raise WrongError(f"after the repair {last} is the last number; {expected.sequence} was acknowledged ({text})")
    for item_id in expected.ever.keys() | after.keys():
        if after.get(item_id) not in expected.ever.get(item_id, [None]):
            raise WrongError(f"after the repair {item_id!r} is what it never was ({text})")
    if "none lost" in text:
        raise WrongError(f"repair ends with code 1, and says: {text}")


def check_how_much_is_lost(index: Path, expected: Expected, text: str, most: float = 1) -> None:
    """Raises WrongError if more was lost than a bit can cost, or the items that differ are more than was told."""
    told = int(found[1]) if (found := _LOST.search(text)) else 0
    if told > most:
        raise WrongError(f"one bit cost {told} entries ({text})")
    after, _ = what_is_left(index)
    items = expected.items
    different = sorted(item_id for item_id in items.keys() | after.keys() if items.get(item_id) != after.get(item_id))
    if len(different) > told:
        raise WrongError(f"{len(different)} items differ {different[:3]}, and repair told of {told} ({text})")


def what_is_left(index: Path) -> tuple[dict[str, StoredItem], int]:
    """The items, by id, and the last number."""
    with Journal.open(index) as journal:
        base = VersionBase(IndexVersion.open(index))
        return dict(GalleryReader(base, journal).page("", 10_000, ItemFilter())), journal.sequence()


WAYS = {
    "serve": Table.serve,
    "backup": Table.back_up,
    "compact": Table.compact,
    "repair": Table.repair,
    "rollback": Table.roll_back,
    "restore": Table.restore,
}


def flipped(whole: bytes, place: Place) -> bytes:
    content = bytearray(whole)
    content[place.offset] ^= 1 << place.bit
    return bytes(content)


def refusal(text: str, name: str) -> Outcome:
    """Whether it names the file, or for a file of the journal's the journal, and a way out."""
    names = (name, "journal.db") if name.startswith("journal") else (name,)
    if not any(each in text for each in names):
        return Outcome(RIDDLE, f"does not name the file: {text}")
    if not _WAY_OUT.search(text):
        return Outcome(RIDDLE, f"names no way out: {text}")
    return Outcome(REFUSED, text)


def command(*words: object) -> None:
    """Runs a command of vmmr-search, here; raises CommandError with what it says if it fails."""
    code, text = run(*words)
    if code:
        raise CommandError(text)


def run(*words: object) -> tuple[int, str]:
    """The exit code of a command, and what it says; of one that fails without progress."""
    said, progress = io.StringIO(), io.StringIO()
    args = _PARSER.parse_args(list(map(str, words)))
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(progress):
        try:
            cli.run(lambda: args.run(args), PROGRAM)
        except SystemExit as end:
            if isinstance(end.code, int) or end.code is None:
                return end.code or 0, said.getvalue()
            return 1, said.getvalue() + str(end.code)
    return 0, said.getvalue()


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_dir())
