"""How malloc serves a training on the CPU. Knows nothing of models."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 1 << 30
LARGEST_OF_OLD_GLIBC = 32 << 20


def keep_freed_memory() -> None:
    """Let malloc keep what one step frees for the next, as torch does on a GPU.

    By default glibc gives tensors back to the kernel, which clears each page before it gives it again: as chance has
    it, up to a fifth of a training's time. The process then keeps up to 1 GiB more than it needs at the moment. Does
    nothing where malloc is not glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and (
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) or mallopt(M_MMAP_THRESHOLD, LARGEST_OF_OLD_GLIBC)
    ):
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
