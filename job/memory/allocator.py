"""A model of torch's caching allocator for GPUs: the memory that it reserves for given tensors.

Follows c10's CUDACachingAllocator with expandable segments, which recap sets for a training. Sizes
are in bytes.
"""

import bisect
from dataclasses import dataclass, field

MIB = 1 << 20
BLOCK_BYTES = 512  # each tensor begins at a multiple of it
MAX_SMALL_BYTES = MIB
SMALL_STEP = 2 * MIB  # by which the segment of small tensors grows
LARGE_STEP = 20 * MIB


@dataclass(eq=False)
class Extent:
    """A part of a segment, which a tensor has or which is free, and its neighbours."""

    pool: "_Pool"
    start: int
    size: int
    is_used: bool = False
    before: "Extent | None" = None
    after: "Extent | None" = None


@dataclass
class _Pool:
    """One segment that grows at its end. `free` has size and start of its free extents, sorted."""

    step: int
    size: int = 0
    last: Extent | None = None
    free: list[tuple[int, int]] = field(default_factory=list)
    extents: dict[int, Extent] = field(default_factory=dict)  # by their start

    def add_free(self, extent: Extent) -> None:
        extent.is_used = False
        bisect.insort(self.free, (extent.size, extent.start))
        self.extents[extent.start] = extent

    def remove_free(self, extent: Extent) -> None:
        del self.free[bisect.bisect_left(self.free, (extent.size, extent.start))]

    def grow(self, size: int) -> Extent:
        """Return a free extent at the end that holds `size` bytes, in memory mapped for it."""
        end = self.last
        if end is None or end.is_used:
            extent = Extent(self, self.size, 0, before=end)
            if end is not None:
                end.after = extent
            self.last = end = extent
        else:
            self.remove_free(end)
        mapped = -(-(size - end.size) // self.step) * self.step
        end.size += mapped
        self.size += mapped
        self.add_free(end)
        return end


class CachingAllocator:
    """The memory that is reserved in both pools. It is never given back while a step runs."""

    def __init__(self) -> None:
        self._small = _Pool(SMALL_STEP)
        self._large = _Pool(LARGE_STEP)

    @property
    def reserved(self) -> int:
        """The reserved bytes, which only grow."""
        return self._small.size + self._large.size

    def allocate(self, size: int) -> Extent:
        """Take the smallest free extent that holds `size` bytes, or memory at the end."""
        size = max(BLOCK_BYTES, -(-size // BLOCK_BYTES) * BLOCK_BYTES)
        pool = self._small if size <= MAX_SMALL_BYTES else self._large
        found = bisect.bisect_left(pool.free, (size, -1))
        is_there = found < len(pool.free)
        extent = pool.extents[pool.free[found][1]] if is_there else pool.grow(size)

        pool.remove_free(extent)
        rest = extent.size - size
        if rest:
            after = Extent(pool, extent.start + size, rest, before=extent, after=extent.after)
            if extent.after is not None:
                extent.after.before = after
            extent.after = after
            extent.size = size
            if pool.last is extent:
                pool.last = after
            pool.add_free(after)
        extent.is_used = True
        pool.extents[extent.start] = extent
        return extent

    def release(self, extent: Extent) -> None:
        """Free the extent, and join it with free neighbours."""
        pool = extent.pool
        before, after = extent.before, extent.after
        if after is not None and not after.is_used:
            pool.remove_free(after)
            del pool.extents[after.start]
            _join(extent, after)
        if before is not None and not before.is_used:
            pool.remove_free(before)
            del pool.extents[extent.start]
            _join(before, extent)
            extent = before
        pool.add_free(extent)


def _join(extent: Extent, after: Extent) -> None:
    """Let `extent` be as large as both, which are neighbours."""
    extent.size += after.size
    extent.after = after.after
    if after.after is not None:
        after.after.before = extent
    if extent.pool.last is after:
        extent.pool.last = extent
