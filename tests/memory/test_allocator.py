"""Claims about the model of torch's allocator for GPUs."""

import random

from job.memory.allocator import BLOCK_BYTES, LARGE_STEP, MIB, SMALL_STEP, CachingAllocator


def test_freed_memory_serves_the_next_tensor():
    allocator = CachingAllocator()
    first = allocator.allocate(30 * MIB)
    reserved = allocator.reserved
    allocator.release(first)
    allocator.allocate(30 * MIB)
    assert allocator.reserved == reserved == 2 * LARGE_STEP


def test_free_neighbours_become_one_place():
    allocator = CachingAllocator()
    extents = [allocator.allocate(10 * MIB) for _ in range(4)]
    for number in (0, 2, 1, 3):
        allocator.release(extents[number])
    allocator.allocate(40 * MIB)
    assert allocator.reserved == 2 * LARGE_STEP


def test_the_segment_grows_by_what_its_free_end_lacks():
    allocator = CachingAllocator()
    allocator.allocate(15 * MIB)  # leaves 5 of 20
    allocator.allocate(25 * MIB)
    assert allocator.reserved == 2 * LARGE_STEP


def test_small_tensors_have_a_segment_of_their_own():
    allocator = CachingAllocator()
    allocator.allocate(1)
    assert allocator.reserved == SMALL_STEP


def test_tensors_never_share_a_byte():
    draw = random.Random(3)
    allocator = CachingAllocator()
    live = []
    for _ in range(2_000):
        if live and draw.random() < 0.5:
            allocator.release(live.pop(draw.randrange(len(live))))
        else:
            live.append(allocator.allocate(draw.choice([100, 5_000, 2 * MIB, 7 * MIB])))
    for pool in {id(each.pool): each.pool for each in live}.values():
        places = sorted((each.start, each.size) for each in live if each.pool is pool)
        ends = [0, *(start + size for start, size in places)]
        assert all(start >= end for (start, _), end in zip(places, ends, strict=False))
        assert ends[-1] <= pool.size
    assert allocator.reserved >= sum(each.size for each in live)
    assert all(each.size % BLOCK_BYTES == 0 for each in live)
