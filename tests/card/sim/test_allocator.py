"""The played allocator against the rules of PyTorch's source, and against the plan's own count."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calculator.memory.allocator import reserved_bytes
from tests.card.sim.allocator import MIB, Allocator, most_block_bytes

GIB = 1 << 30


def test_small_requests_share_a_segment_of_2_mib() -> None:
    memory = Allocator(GIB)
    blocks = [memory.allocate(1000) for _ in range(2048)]
    assert {block.size for block in blocks} == {1024}
    assert memory.reserved == 2 * MIB
    memory.allocate(1)
    assert memory.reserved == 4 * MIB


def test_middle_requests_share_20_mib_and_large_ones_have_a_segment_of_their_own() -> None:
    memory = Allocator(GIB)
    memory.allocate(3 * MIB)
    memory.allocate(9 * MIB)
    assert memory.reserved == 20 * MIB
    memory.allocate(8 * MIB)  # exactly what is left
    assert memory.reserved == 20 * MIB
    memory.allocate(10 * MIB)
    assert memory.reserved == 30 * MIB
    memory.allocate(30 * MIB + 1)
    assert memory.reserved == 62 * MIB


def test_the_end_of_a_large_segment_is_kept_whole_where_it_is_short() -> None:
    memory = Allocator(GIB)
    block = memory.allocate(19 * MIB + MIB // 2)
    assert block.size == 20 * MIB  # half a MiB is not worth a split
    assert memory.allocated == 20 * MIB


def test_the_smallest_free_block_is_taken_and_neighbours_join() -> None:
    memory = Allocator(GIB)
    first, second, third = (memory.allocate(size * MIB) for size in (4, 5, 6))
    for block in (first, third, second):
        memory.free(block)
    assert memory.allocated == 0
    assert memory.reserved == 20 * MIB
    assert memory.allocate(9 * MIB).address == first.address
    memory.empty_cache()
    assert memory.reserved == 20 * MIB  # a part is used


def test_memory_that_is_not_there_is_an_error_after_the_cache_is_emptied() -> None:
    memory = Allocator(64 * MIB)
    kept = memory.allocate(20 * MIB)
    memory.free(memory.allocate(40 * MIB))
    assert memory.reserved == 60 * MIB
    memory.allocate(44 * MIB)  # the free segment is given back first
    with pytest.raises(torch.OutOfMemoryError):
        memory.allocate(2 * MIB)
    memory.free(kept)
    memory.allocate(2 * MIB)


def test_expandable_segments_grow_page_by_page() -> None:
    memory = Allocator(GIB, expandable=True)
    first = memory.allocate(30 * MIB)
    assert memory.reserved == 40 * MIB
    memory.allocate(25 * MIB)
    assert memory.reserved == 60 * MIB
    memory.free(first)
    memory.allocate(12 * MIB)  # from what the first has left, and that is split
    memory.allocate(18 * MIB)
    assert memory.reserved == 60 * MIB


def test_a_played_failure_leaves_no_trace() -> None:
    memory = Allocator(GIB, fail_at=1)
    memory.allocate(512)
    with pytest.raises(torch.OutOfMemoryError):
        memory.allocate(512)
    memory.allocate(512)
    assert memory.allocated == 1024


@given(st.lists(st.integers(1, 40 * MIB), max_size=40))
def test_the_plan_counts_segments_as_the_allocator_does(sizes: list[int]) -> None:
    memory = Allocator(1 << 40)
    for size in sizes:
        memory.allocate(size)
    assert memory.reserved == reserved_bytes(sizes)


@given(st.lists(st.tuples(st.integers(1, 30 * MIB), st.booleans()), max_size=40))
def test_no_block_is_larger_than_the_rules_allow(steps: list[tuple[int, bool]]) -> None:
    """Also one that lies where another was freed."""
    memory = Allocator(1 << 40)
    blocks = []
    for size, kept in steps:
        blocks.append(memory.allocate(size))
        assert size <= blocks[-1].size <= most_block_bytes(size)
        if not kept:
            memory.free(blocks.pop(0))


def test_the_most_that_a_block_can_have_is_had() -> None:
    memory = Allocator(GIB)
    assert memory.allocate(19 * MIB).size == most_block_bytes(19 * MIB)
    assert memory.allocate(MIB).size == most_block_bytes(MIB)


@given(st.lists(st.tuples(st.integers(1, 30 * MIB), st.booleans()), max_size=40))
def test_what_is_freed_can_be_had_again(steps: list[tuple[int, bool]]) -> None:
    memory = Allocator(1 << 40)
    blocks = []
    for size, kept in steps:
        blocks.append(memory.allocate(size))
        if not kept:
            memory.free(blocks.pop(0))
    assert memory.allocated == sum(block.size for block in blocks)
    for block in blocks:
        memory.free(block)
    memory.empty_cache()
    assert memory.reserved == 0
