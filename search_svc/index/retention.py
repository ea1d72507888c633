"""List the versions of an index, remove those that need not stay, and choose the one that is served.

However many stay: each of them, with the journal, is the whole gallery. So the journal keeps what the oldest of them lacks.
While one that stays cannot be read, it is not known what it lacks, nor whether the others have to stand in for it: then all stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search_svc.index.index_dir import current, make_current, only_builder, version_names, version_path
from search_svc.index.journal import Journal
from search_svc.index.journal_check import read_through
from search_svc.index.journal_pruning import prune, takes_out
from search_svc.index.version import IndexVersion, VersionManifest, stated
from search_svc.index.version_lease import exclusive_version, in_use
from svckit.artifact import ArtifactError, remove_directory
from svckit.cli import CommandError

KEEP_VERSIONS = 2
"""Versions to keep unless told otherwise: the current one, and the one before it to roll back to."""


@dataclass(frozen=True)
class Kept:
    """A version on the disk, or the current one if it is not there."""

    name: str
    manifest: VersionManifest | None
    """None if it cannot be read: if any of its files is gone or damaged, or its disk fails."""
    current: bool
    in_use: bool
    """True if some process serves it."""
    problem: str = ""
    """Why it cannot be read; empty if it can."""


class UnreadableVersionError(ArtifactError):
    """A version that stays cannot be read, so nothing is taken away that may be needed in its stead."""


def versions(index_dir: Path) -> list[Kept]:
    """Return the versions, oldest first. Raise ArtifactError if it is no index data directory."""
    served = current(index_dir)
    found = (_kept(index_dir, name, served) for name in _names(index_dir, served))
    return [kept for kept in found if kept is not None]


def retire(index_dir: Path, keep: int) -> list[str]:
    """Remove all versions but the current one, the newest others, `keep` in all, and those in use; return the names of the removed.

    Then take out of the journal what no remaining version needs. Raise BuildRunningError if another process is changing versions,
    and UnreadableVersionError, naming the version, the file and the reason, if one that is to stay cannot be read: nothing is
    removed then, nor taken out of the journal.
    """
    with only_builder(index_dir):
        there = versions(index_dir)
        others = [kept for kept in there if not kept.current]
        surplus = [kept.name for kept in others[: max(0, len(others) - keep + 1)] if not kept.in_use]
        stay = [kept for kept in there if kept.name not in surplus]
        _check_readable(index_dir, stay)
        if surplus:
            _verify(index_dir, stay)
        removed = [name for name in surplus if _remove(index_dir, name)]
        upto = _needed_by_none(index_dir)
        if not surplus and takes_out(index_dir, upto):  # one that lacked them is gone already, as by hand
            _verify(index_dir, stay)
        prune(index_dir, upto)
    return removed


def roll_back(index_dir: Path, version: str | None = None) -> str:
    """Make a version the current one, by default the newest of those before it, and return its name.

    With the journal it is the gallery as it is now: nothing that was written is lost. Raise CommandError if there is no such
    version, and ArtifactError if it is damaged, or what it needs of the journal is.
    """
    with only_builder(index_dir):
        name = version or _before(index_dir)
        if name not in version_names(index_dir):
            raise CommandError(f"{index_dir} has no version {name}: `vmmr-search versions` lists them")
        check_whole(index_dir, IndexVersion.open(index_dir, name).manifest)
        make_current(index_dir, name)
    return name


def check_whole(index_dir: Path, manifest: VersionManifest) -> None:
    """Raise CommandError if the version and the journal are not the whole gallery, or if that cannot be known."""
    with Journal.open(index_dir) as journal:
        if journal.pruned > manifest.journal_sequence:
            text = f"it holds the journal to {manifest.journal_sequence}, which was pruned up to {journal.pruned}"
            raise CommandError(f"version {manifest.version} can't be served any more: {text}")
        if journal.model not in (None, manifest.model) and journal.sequence() > manifest.journal_sequence:
            text = f"what was written since is of another model ({journal.model})"
            raise CommandError(f"version {manifest.version} can't be served: {text}")
        newest = _newest(index_dir, manifest, there_is_a_journal=journal.model is not None)
        if manifest.journal_sequence < newest and journal.sequence() < newest:
            text = f"it holds the journal to {manifest.journal_sequence}, and what came up to {newest} is not there any more"
            raise CommandError(f"version {manifest.version} can't be served: {text}")
        # The version that is current now may hold an entry that is damaged in the journal, where nobody has read it since.
        journal.verify()
        for _ in read_through(journal, manifest.journal_sequence, journal.sequence()):
            pass


def _names(index_dir: Path, served: str) -> list[str]:
    """Return the names of the versions on the disk, oldest first, and of the current one even if it is not there."""
    return sorted({*version_names(index_dir), served}, key=int)


def _kept(index_dir: Path, name: str, served: str) -> Kept | None:
    """Return what is known of a version, or None if it was removed just now."""
    try:
        held = in_use(version_path(index_dir, name))
    except FileNotFoundError:
        if name != served:
            return None
        held = False
    try:
        manifest = IndexVersion.open(index_dir, name, verify=False).manifest
    except (ArtifactError, OSError) as error:
        return Kept(name, None, name == served, held, str(error))
    return Kept(name, manifest, name == served, held)


def _check_readable(index_dir: Path, stay: Sequence[Kept]) -> None:
    if bad := next((kept for kept in stay if kept.manifest is None), None):
        text = f"version {bad.name} cannot be read ({bad.problem})"
        way_out = (
            "nothing is removed, and nothing taken out of the journal, until it can be read or its folder is removed"
        )
        raise UnreadableVersionError(index_dir, f"{text}: {way_out}")


def _verify(index_dir: Path, stay: Sequence[Kept]) -> None:
    """Read every byte of the versions that would be fallen back on: sizes and manifests do not show a bit that flipped."""
    for kept in stay:
        try:
            IndexVersion.open(index_dir, kept.name)
        except ArtifactError as error:
            text = f"version {kept.name} is damaged ({error.path}: {error.reason}), and would be among those that stay"
            way_out = "nothing is removed until its folder is removed, or restored"
            raise UnreadableVersionError(index_dir, f"{text}: {way_out}") from error


def _remove(index_dir: Path, name: str) -> bool:
    """Remove a version unless somebody uses it, and return whether it is gone."""
    path = version_path(index_dir, name)
    with exclusive_version(path) as free:
        if free:
            remove_directory(path)  # what is left of it if this is killed, the next build or `retire` clears away
    return free


def _needed_by_none(index_dir: Path) -> int:
    """Return the last journal entry that every version holds, so that none needs it. Raise UnreadableVersionError if one cannot be read."""
    there = versions(index_dir)
    _check_readable(index_dir, there)
    return min(kept.manifest.journal_sequence for kept in there if kept.manifest)


def _before(index_dir: Path) -> str:
    served = current(index_dir)
    older = [name for name in version_names(index_dir) if int(name) < int(served)]
    if not older:
        raise CommandError(f"{index_dir} has no version before {served}")
    return older[-1]


def _newest(index_dir: Path, wanted: VersionManifest, *, there_is_a_journal: bool) -> int:
    """Return the last journal entry that any version holds.

    A version that does not even tell that is passed over if there is a journal, which holds what was written since `wanted`.
    Without one, that version may be all that is left of it: raise CommandError.
    """
    newest = wanted.journal_sequence
    for name in version_names(index_dir):
        try:
            newest = max(newest, stated(index_dir, name).journal_sequence)
        except ArtifactError as error:
            if there_is_a_journal:
                continue
            text = f"there is no journal, and version {name}, which may hold more, cannot be read ({error})"
            way_out = f"if it is lost, remove {version_path(index_dir, name)}"
            raise CommandError(f"version {wanted.version} can't be served: {text}: {way_out}") from error
    return newest


def table(kept: Sequence[Kept]) -> str:
    """Return the versions as lines for people, and below them why some cannot be read."""
    rows = [("version", "created (UTC)", "items", "model", "journal", ""), *map(_row, kept)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{each.name} cannot be read: {each.problem}" for each in kept if each.problem)])


def _row(kept: Kept) -> tuple[str, ...]:
    made = kept.manifest
    state = ", ".join(text for text, holds in (("current", kept.current), ("in use", kept.in_use)) if holds)
    if made is None:
        return (kept.name, "cannot be read", "", "", "", state)
    created = f"{made.created:%Y-%m-%d %H:%M:%S}"
    model = f"{made.model_name} ({made.model[:12]})"
    return (kept.name, created, str(made.items), model, str(made.journal_sequence), state)
