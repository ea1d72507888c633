"""Locks between processes: the kernel's, which end with whoever holds them, however that ends."""

import fcntl


def locked(descriptor: int) -> bool:
    """Whether the open file or directory is this descriptor's alone now, until it is closed; False at once if it is others'."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
