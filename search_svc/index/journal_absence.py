"""A journal that is not there, of an index whose versions hold entries of one: it was lost, and what was written since with it.

With the journal its mark may be gone, so only the versions tell. A journal that was never made, or that a restored index does without
since its version holds all that was backed up, differs: no version holds an entry, or the mark says that a version holds all that was acknowledged.
"""

from pathlib import Path

from search_svc.index import journal_mark
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


def refuse(path: Path, mark: Mark | None) -> None:
    """Raise ArtifactError if a journal that is not there was lost."""
    most = most_held(path.parent)
    if most is None or most.journal_sequence <= (mark or NOTHING).sequence:
        return
    if (journal_mark.read(path) or NOTHING).sequence >= most.journal_sequence:
        return  # it was made since `mark` was read
    text = f"is missing, and version {most.version} holds its entries up to {most.journal_sequence}: any that came after are lost"
    remedy = (
        f"`vmmr-search restore` makes an index of a backup, which may have them; `vmmr-search repair {path.parent}`, "
        "or `serve --accept-loss`, goes on without them"
    )
    raise ArtifactError(path, text, remedy)
