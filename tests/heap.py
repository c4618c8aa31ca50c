"""How much of what a process freed it has to be given again, as the kernel counts it."""

from __future__ import annotations

import ctypes
import resource

SIZE, PIECES = 8 << 20, 32


def faults() -> list[int]:
    """Pages given each of three times that 256 MiB were held.

    The pieces come from the C library with nothing between them: a tensor's small parts, once freed, would wait in a list of
    theirs on top of the heap, and nothing below could be given back in any case.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    counts, pieces = [], [0] * PIECES
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for i in range(PIECES):
            pieces[i] = library.malloc(SIZE)
        for piece in pieces:
            ctypes.memset(piece, 1, SIZE)
        for piece in pieces:
            library.free(piece)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return counts


if __name__ == "__main__":
    from agentdistill.policies.heap import keep_freed

    keep_freed()
    print(*faults())
