"""Locks between processes: the kernel's, which end with whoever holds them, however that ends.

They are of an open file or directory, and seen by every process of the machine, of whatever user or container.
"""

import fcntl
import os
import struct

_FLOCK = "hhqqixxxx"
"""The kernel's struct flock: type, whence, start, length (0 for all of the file), process."""


def locked(descriptor: int) -> bool:
    """Lock an open file or directory for this descriptor alone, until it is closed; return False at once if others have it."""
    return _locked(descriptor, fcntl.LOCK_EX)


def locked_with_others(descriptor: int) -> bool:
    """Lock an open file or directory together with others, until the descriptor is closed; return False at once if one has it alone."""
    return _locked(descriptor, fcntl.LOCK_SH)


def unlock(descriptor: int) -> None:
    """End the lock that this descriptor has, if it has one."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def mark_used(descriptor: int) -> None:
    """Mark an open file or directory as used until the descriptor is closed. This excludes nobody; `used` asks for it."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_RDLCK))


def used(descriptor: int) -> bool:
    """Return whether another descriptor, of any process, has marked the open file or directory as used.

    Only asks: nothing is locked meanwhile, so nobody's lock fails because of it.
    """
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    found: int = struct.unpack(_FLOCK, answer)[0]
    return found != fcntl.F_UNLCK


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
