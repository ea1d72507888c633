"""A journal that is not there although there was one: it was lost, and what was written since with it.

With the journal its mark may be gone. Then versions tell, that hold entries of it, or the lock that whoever wrote to it has made beside
it. A journal that was never made, or that a restored index does without since its version holds all that was backed up, differs: nobody
wrote to it, or the mark says that a version holds all that was acknowledged.
"""

from pathlib import Path

from search_svc.index import journal_mark, turns
from search_svc.index.index_dir import version_names
from search_svc.index.journal_mark import NOTHING, Mark
from search_svc.index.version import VersionManifest, stated
from svckit.artifact import ArtifactError


def most_held(index_dir: Path) -> VersionManifest | None:
    """Return what the version says that holds the most of the journal, of those that can be read; None if there is none."""
    found = []
    for name in version_names(index_dir):
        try:
            found.append(stated(index_dir, name))
        except ArtifactError:
            continue
    return max(found, key=lambda made: made.journal_sequence, default=None)


def held(index_dir: Path) -> int:
    """Return the number of the last journal entry that a version holds; 0 if none holds any."""
    most = most_held(index_dir)
    return most.journal_sequence if most else 0


def was_written(path: Path) -> bool:
    """Return whether a journal was written to of which not even the mark is there."""
    # The lock is made when both are on the disk.
    return path.with_name(turns.FILE).exists() and not journal_mark.path_of(path).exists()


def refuse(path: Path, mark: Mark | None, *, log: bool = False) -> None:
    """Raise ArtifactError if a journal that is not there was lost; `log` tells whether its log is there, which may hold all of it."""
    most = most_held(path.parent)
    if most and most.journal_sequence > (mark or NOTHING).sequence:
        if (journal_mark.read(path) or NOTHING).sequence >= most.journal_sequence:
            return  # it was made since `mark` was read
        text, lost = (
            f"version {most.version} holds its entries up to {most.journal_sequence}",
            "any that came after are lost",
        )
    elif mark is None and was_written(path):
        text, lost = f"{turns.FILE} beside it tells that it was written to", "all that was written is lost"
    else:
        return
    repair = f"`vmmr-search repair {path.parent}`"
    if log:
        raise ArtifactError(
            path, f"is missing, and {text}", f"{repair} saves what its log holds; a backup may have more"
        )
    remedy = f"`vmmr-search restore` makes an index of a backup, which may have them; {repair}, or `serve --accept-loss`, goes on without them"
    raise ArtifactError(path, f"is missing, and {text}: {lost}", remedy)
