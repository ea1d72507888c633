"""Which versions of an index there are, which of them stay, and which is served.

However many stay: each of them, with the journal, is the whole gallery. So the journal keeps what the oldest of them lacks.
"""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search_svc.index.index_dir import current, make_current, only_builder, version_names, version_path
from search_svc.index.journal import Journal
from search_svc.index.journal_writer import prune
from search_svc.index.version import IndexVersion, VersionManifest
from search_svc.index.version_lease import alone_with
from svckit.artifact import ArtifactError
from svckit.cli import CommandError

KEEP_VERSIONS = 2
"""Versions to keep unless told otherwise: the current one, and the one before it to roll back to."""


@dataclass(frozen=True)
class Kept:
    """A version on the disk."""

    name: str
    manifest: VersionManifest | None
    """None if it is damaged."""
    current: bool
    in_use: bool
    """Some process serves it."""


def versions(index_dir: Path) -> list[Kept]:
    """Oldest first. Raises ArtifactError if it is no index data directory."""
    served = current(index_dir)
    return [_kept(index_dir, name, served) for name in version_names(index_dir)]


def retire(index_dir: Path, keep: int) -> list[str]:
    """Removes versions but the current one, the newest others, `keep` in all, and those that are in use; returns which.

    Then takes out of the journal what none needs that is left. Raises BuildRunningError if another process is changing versions.
    """
    with only_builder(index_dir):
        served = current(index_dir)
        others = [name for name in version_names(index_dir) if name != served]
        removed = [name for name in others[: max(0, len(others) - keep + 1)] if _remove(index_dir, name)]
        prune(index_dir, _needed_by_none(index_dir))
    return removed


def roll_back(index_dir: Path, version: str | None = None) -> str:
    """Makes a version the current one: by default the newest of those before it. Returns its name.

    With the journal it is the gallery as it is now: nothing that was written is lost. Raises CommandError if there is no such
    version, and ArtifactError if it is damaged.
    """
    with only_builder(index_dir):
        name = version or _before(index_dir)
        if name not in version_names(index_dir):
            raise CommandError(f"{index_dir} has no version {name}: `vmmr-search versions` lists them")
        _check_whole(index_dir, IndexVersion.open(index_dir, name).manifest)
        make_current(index_dir, name)
    return name


def _kept(index_dir: Path, name: str, served: str) -> Kept:
    try:
        manifest = IndexVersion.open(index_dir, name, verify=False).manifest
    except ArtifactError:
        manifest = None
    with alone_with(version_path(index_dir, name)) as free:
        return Kept(name, manifest, name == served, not free)


def _remove(index_dir: Path, name: str) -> bool:
    """Whether nobody used it, and it is gone."""
    path = version_path(index_dir, name)
    doomed = path.with_name(f".{name}.{secrets.token_hex(4)}.tmp")
    with alone_with(path) as free:
        if free:
            # A reader sees all of it or nothing; what is left of it if this is killed, the next build clears away.
            path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return free


def _needed_by_none(index_dir: Path) -> int:
    """Journal entries up to here are in every version that can be served."""
    manifests = [kept.manifest for kept in versions(index_dir) if kept.manifest]
    return min((manifest.journal_sequence for manifest in manifests), default=0)


def _before(index_dir: Path) -> str:
    served = current(index_dir)
    older = [name for name in version_names(index_dir) if int(name) < int(served)]
    if not older:
        raise CommandError(f"{index_dir} has no version before {served}")
    return older[-1]


def _check_whole(index_dir: Path, manifest: VersionManifest) -> None:
    """Raises CommandError if the version and the journal are not the whole gallery."""
    with Journal.open(index_dir) as journal:
        if journal.pruned > manifest.journal_sequence:
            text = f"it holds the journal to {manifest.journal_sequence}, which was pruned up to {journal.pruned}"
            raise CommandError(f"version {manifest.version} can't be served any more: {text}")
        if journal.model not in (None, manifest.model) and journal.sequence() > manifest.journal_sequence:
            text = f"what was written since is of another model ({journal.model})"
            raise CommandError(f"version {manifest.version} can't be served: {text}")
        newest = max(kept.manifest.journal_sequence for kept in versions(index_dir) if kept.manifest)
        if manifest.journal_sequence < newest and journal.sequence() < newest:
            text = f"it holds the journal to {manifest.journal_sequence}, and what came up to {newest} is not there any more"
            raise CommandError(f"version {manifest.version} can't be served: {text}")


def table(kept: Sequence[Kept]) -> str:
    """For people."""
    rows = [("version", "created (UTC)", "items", "model", "journal", ""), *map(_row, kept)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(kept: Kept) -> tuple[str, ...]:
    made = kept.manifest
    state = ", ".join(text for text, holds in (("current", kept.current), ("in use", kept.in_use)) if holds)
    if made is None:
        return (kept.name, "damaged", "", "", "", state)
    created = f"{made.created:%Y-%m-%d %H:%M:%S}"
    model = f"{made.model_name} ({made.model[:12]})"
    return (kept.name, created, str(made.items), model, str(made.journal_sequence), state)
