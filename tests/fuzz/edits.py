"""Edits of a file, read from bytes: what a fuzzer changes is what happens to the file, and not its content of fifty kilobytes."""

import io
import random
from collections.abc import Sequence

_LONGEST = 32


def edited(content: bytes, script: bytes) -> bytes:
    """Return the content after the edits: each is a kind, a place (3 bytes, taken modulo the length), a length, and bytes if it writes."""
    source, out = io.BytesIO(script), bytearray(content)
    while len(head := source.read(5)) == 5:
        kind, length = head[0] % 6, 1 + head[4] % _LONGEST
        place = int.from_bytes(head[1:4], "little") % (len(out) + 1)
        if kind == 0:
            new = source.read(length)
            out[place : place + len(new)] = new
        elif kind == 1:
            out[place:place] = source.read(length)
        elif kind == 2:
            del out[place : place + length]
        elif kind == 3:
            out[place : place + length] = bytes(len(out[place : place + length]))
        elif kind == 4:
            other = int.from_bytes(source.read(3), "little") % (len(out) + 1)
            out[place : place + length] = out[other : other + length]
        elif length == _LONGEST:  # seldom: little is left to try after it
            del out[place:]
        else:
            out[place : place + 1] = bytes(byte ^ 1 << length % 8 for byte in out[place : place + 1])
    return bytes(out)


def mutated(corpus: Sequence[bytes], chance: random.Random) -> bytes:
    """Return one of the corpus after some edits, for a machine without a fuzzer that looks at coverage."""
    content = chance.choice(corpus)
    count = chance.choice((1, 1, 2, 4, 8))
    return edited(content, b"".join(chance.randbytes(5 + chance.randrange(_LONGEST)) for _ in range(count)))
