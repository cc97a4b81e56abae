"""Claims about which prompts go through the model together."""

import random

import pytest

from job.inference.batch import PART_TOKENS, divide, shared_tokens
from job.inference.transformers_engine import (
    BatchLimits,
    count_fitting,
    longest_first,
    padded_tokens,
)


def batches(lengths: list[int], limits: BatchLimits) -> list[list[int]]:
    order, found = longest_first(lengths), []
    while order:
        size = count_fitting([lengths[row] for row in order], limits)
        found.append(order[:size])
        order = order[size:]
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_prompt_is_in_one_batch_and_every_batch_keeps_both_limits(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 400) for _ in range(300)]
    limits = BatchLimits(tokens=2000, rows=16, new_tokens=50)
    found = batches(lengths, limits)
    assert sorted(row for batch in found for row in batch) == list(range(300))
    for batch in found:
        assert len(batch) <= 16
        assert len(batch) * (max(lengths[row] for row in batch) + 50) <= 2000


def test_no_batch_has_room_for_the_next_row():
    lengths = [90, 10, 40, 60, 20, 80]
    limits = BatchLimits(tokens=200, rows=16, new_tokens=10)
    assert batches(lengths, limits) == [[0, 5], [3, 2], [4, 1]]


def test_the_longest_prompts_go_first_and_equal_ones_keep_their_order():
    assert longest_first([3, 9, 3, 7]) == [1, 3, 0, 2]


def test_a_row_over_the_budget_goes_alone():
    limits = BatchLimits(tokens=100, rows=16, new_tokens=10)
    assert batches([500, 500, 20, 20], limits) == [[0], [1], [2, 3]]


def test_padded_tokens_are_those_of_every_row_with_its_answer():
    limits = BatchLimits(tokens=600, rows=64, new_tokens=10)
    count = count_fitting([50] * 12, limits)
    assert count == 10
    assert padded_tokens([50, 9, 1], new_tokens=10) == 180
    assert padded_tokens([50] * count, new_tokens=10) <= limits.tokens


def test_parts_are_all_prompts_in_order_within_their_limit():
    draw = random.Random(3)
    prompts = [[0] * draw.randint(1, 400) for _ in range(300)]
    prompts.insert(100, [0] * (PART_TOKENS + 1))
    parts = divide(prompts)
    assert [prompt for part in parts for prompt in part] == prompts
    too_large = [part for part in parts if len(part) * max(map(len, part)) > PART_TOKENS]
    assert too_large == [[prompts[100]]]


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], 0),
        ([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 9, 7], [1, 2, 3, 4, 5, 8]], 5),
        ([[1, 2, 3, 4, 5, 6]] * 2, 5),  # a rest is left, whose logits come next
        ([[1, 2, 3, 4, 5], [1, 2, 3, 9, 5]], 0),  # hardly any
    ],
)
def test_shared_tokens_are_those_that_all_prompts_begin_with(prompts, shared):
    assert shared_tokens(prompts) == shared
