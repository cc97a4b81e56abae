"""Claims about how many tokens a batch may have, by the memory that batches take."""

from typing import Any

import pytest
import torch

from job.config.sections import GenerationSection
from job.inference.budget import (
    BATCHES_UNTIL_MORE,
    FIRST_TOKENS,
    MAX_SHARE,
    GpuMemory,
    TokenBudget,
    memory_of,
)
from job.inference.decode import decode
from job.inference.transformers_engine import TransformersEngine

KILOBYTE = 1 << 10
SETTINGS = GenerationSection(max_new_tokens=4)


class CountedMemory:
    """The memory of a device on which a token takes a kilobyte."""

    def __init__(self, tokens: int, fitting: int | None = None) -> None:
        self.tokens = tokens  # that seem to fit
        self.fitting = fitting or tokens  # that do
        self.batch = 0  # tokens of the prompts of the last batch
        self.failures = 0

    def begin(self) -> None:
        """The batch is known from `decode`."""

    def peak_bytes(self) -> int:
        return self.batch * KILOBYTE

    def free_bytes(self) -> int:
        return self.tokens * KILOBYTE

    def decode(self, model: Any, prompts: list[list[int]], *rest: Any) -> list[list[int]]:
        """Decode unless the prompts do not fit."""
        self.batch = len(prompts) * len(prompts[0])
        if self.batch > self.fitting:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(model, prompts, *rest)


def grown(budget: TokenBudget, memory: CountedMemory, batches: int = 5) -> list[int]:
    """Return the budget after each of several batches that fill it."""
    found = []
    for _ in range(batches):
        memory.batch = budget.tokens
        budget.succeed(memory.batch, memory.batch)
        found.append(budget.tokens)
    return found


def test_batches_grow_in_steps_to_the_share_of_the_memory_that_is_free():
    memory = CountedMemory(tokens=1_000_000)
    budget = TokenBudget(memory)
    largest = int(MAX_SHARE * 1_000_000)
    assert grown(budget, memory) == [65_536, 262_144, largest, largest, largest]


def test_a_batch_that_does_not_fit_is_halved_and_grows_back_to_less():
    memory = CountedMemory(tokens=1_000_000)
    budget = TokenBudget(memory)
    budget.fail(padded_tokens=10_000, rows=8)
    assert budget.tokens == 5_000
    assert grown(budget, memory)[-1] == 7_500
    budget.fail(padded_tokens=7_500, rows=6)
    assert grown(budget, memory)[-1] == 5_625


def test_a_small_batch_says_nothing_about_the_memory_of_a_large_one():
    memory = CountedMemory(tokens=1_000_000)
    budget = TokenBudget(memory)
    memory.batch = 100
    budget.succeed(100, 200)
    assert budget.tokens == FIRST_TOKENS


def test_batches_of_long_answers_to_short_prompts_grow(model, tokenizer):
    memory = CountedMemory(tokens=1_000_000)
    budget = TokenBudget(memory)
    budget.tokens = 100
    prompts = [[0, 60, 61, 62]] * 12

    def decode_shortly(model: Any, rows: list[list[int]], *rest: Any) -> list[list[int]]:
        memory.batch = len(rows) * len(rows[0])
        return [[0]] * len(rows)

    engine = TransformersEngine(model, tokenizer, decode_shortly, budget)
    engine.generate(prompts, GenerationSection(max_new_tokens=20))
    assert budget.tokens == 400


def test_memory_that_was_short_for_a_moment_does_not_bound_a_night():
    memory = CountedMemory(tokens=1_000_000)
    budget = TokenBudget(memory)
    budget.fail(padded_tokens=200, rows=2)
    assert grown(budget, memory, BATCHES_UNTIL_MORE)[-1] == 150
    assert grown(budget, memory, 10)[-1] == int(MAX_SHARE * 1_000_000)


def test_memory_that_is_nearly_full_makes_no_batch_smaller_before_it_fails():
    memory = CountedMemory(tokens=100)
    budget = TokenBudget(memory)
    assert grown(budget, memory)[-1] == FIRST_TOKENS


def test_a_config_may_want_larger_batches_until_one_does_not_fit():
    budget = TokenBudget(None)
    assert budget.limit(None) == FIRST_TOKENS
    assert budget.limit(100_000) == 100_000
    assert budget.limit(64) == 64
    budget.fail(padded_tokens=90_000, rows=9)
    assert budget.limit(100_000) == 45_000
    assert budget.limit(64) == 64


def test_only_the_memory_of_a_gpu_is_measured():
    assert memory_of(torch.device("cpu")) is None
    assert isinstance(memory_of(torch.device("cuda", 0)), GpuMemory)
    budget = TokenBudget(None)
    budget.succeed(FIRST_TOKENS, FIRST_TOKENS)
    assert budget.tokens == FIRST_TOKENS


def test_the_engine_answers_alike_while_its_batches_grow_and_shrink(model, tokenizer):
    prompts = [[0, *range(60, 60 + length)] for length in range(20, 4, -1)]
    wanted = TransformersEngine(model, tokenizer).generate(prompts, SETTINGS)
    memory = CountedMemory(tokens=150, fitting=60)
    budget = TokenBudget(memory)
    budget.tokens = 60
    sizes = []

    def watched(*arguments: Any) -> list[list[int]]:
        sizes.append(len(arguments[1]))
        return memory.decode(*arguments)

    engine = TransformersEngine(model, tokenizer, watched, budget)
    assert engine.generate(prompts * 3, SETTINGS) == wanted * 3
    assert sizes[0] == 2
    assert max(sizes) > 4, "batches grew"
    assert memory.failures > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_deterministic_answers_do_not_depend_on_other_prompts(model, tokenizer, temperature):
    settings = GenerationSection(max_new_tokens=8, temperature=temperature, deterministic=True)
    prompts = [[0, *range(60, 60 + length)] for length in (9, 3, 7, 5)]
    sizes = []

    def watched(*arguments: Any) -> list[list[int]]:
        sizes.append(len(arguments[1]))
        return decode(*arguments)

    engine = TransformersEngine(model, tokenizer, watched)
    together = engine.generate(prompts, settings)
    assert together == [engine.generate([prompt], settings)[0] for prompt in prompts]
    assert set(sizes) == {1}
