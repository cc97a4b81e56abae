"""Claims about the vLLM engine, with real vLLM on a CPU; what fails is a step of it, not vLLM itself."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from job.errors import RetryError
from job.inference.each import Failure, generate_each
from job.inference.engine import Generated
from job.inference.vllm_engine import VllmEngine
from tests.vllm.conftest import SETTINGS

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]
SAME = 0.95  # of greedy answers in float32; two likeliest tokens that are alike to the last bits may change places


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(7)
    return [[0] + [draw.randint(60, 310) for _ in range(draw.randint(3, 60))] for _ in range(40)]


@pytest.fixture(scope="module")
def wanted(engine: VllmEngine, prompts: list[list[int]]) -> list[Generated]:
    return engine.generate(prompts, SETTINGS)


class Watched:
    """vLLM's engine, with something done before each step; knows the prompts under way and counts the steps."""

    def __init__(
        self, engine: Any, before: Callable[[list[list[int]]], None] = lambda prompts: None
    ) -> None:
        self._engine, self._before, self.under_way, self.steps, self.added = (
            engine,
            before,
            {},
            0,
            0,
        )
        self.model_config, self.vllm_config = engine.model_config, engine.vllm_config

    def add_request(self, request: str, prompt: Any, *arguments: Any, **more: Any) -> None:
        self.added += 1
        self.under_way[request] = prompt["prompt_token_ids"]
        self._engine.add_request(request, prompt, *arguments, **more)

    def step(self) -> Any:
        self._before(list(self.under_way.values()))
        self.steps += bool(self.under_way)
        outputs = self._engine.step()
        for output in outputs:
            self.under_way.pop(output.request_id)
        return outputs

    def has_unfinished_requests(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

    def abort_request(self, requests: list[str]) -> None:
        for request in requests:
            self.under_way.pop(request, None)
        self._engine.abort_request(requests)

    def reset_prefix_cache(self) -> bool:
        return bool(self._engine.reset_prefix_cache())


def over(engine: VllmEngine, watched: Watched) -> VllmEngine:
    """A new engine of recap's over the same engine of vLLM's."""
    return VllmEngine(watched, engine._tokenizer, engine._ends, engine._adapter)


def failing_on(
    poison: list[list[int]], error: type[Exception] = RuntimeError
) -> Callable[[list[list[int]]], None]:
    """A step fails while one of these prompts is under way, after vLLM has scheduled it."""

    def before(under_way: list[list[int]]) -> None:
        if any(prompt is bad for prompt in under_way for bad in poison):
            raise error("the kernel cannot do this")

    return before


def test_both_engines_answer_alike(wanted, reference, prompts):
    answers = reference.generate(prompts, SETTINGS)
    same = sum(ours == theirs for ours, theirs in zip(wanted, answers, strict=True))
    assert same >= SAME * len(prompts)
    assert {answer.finish_reason for answer in wanted} == {"stop", "length"}
    assert {answer.output_tokens for answer in wanted if answer.finish_reason == "length"} == {24}


def test_vllm_keeps_what_prompts_have_in_common(engine):
    assert engine._engine.vllm_config.cache_config.enable_prefix_caching


def test_progress_counts_every_prompt_once(engine, wanted, prompts):
    told: list[int] = []
    assert engine.generate(prompts, SETTINGS, told.append) == wanted
    assert sum(told) == len(prompts)
    assert engine.generate([], SETTINGS) == []


def test_prompts_told_ahead_are_under_way_before_they_are_asked_for_and_generated_once(
    engine, wanted, prompts
):
    watched = Watched(engine._engine)
    ours = over(engine, watched)
    ours.expect(prompts[20:], SETTINGS)
    assert ours.generate(prompts[:20], SETTINGS) == wanted[:20]
    assert ours.generate(prompts[20:], SETTINGS) == wanted[20:]
    assert watched.added == len(prompts)
    together = Watched(engine._engine)
    over(engine, together).generate(prompts, SETTINGS)
    assert watched.steps <= together.steps + 1


def test_a_prompt_that_vllm_cannot_take_is_told_before_any_work_and_costs_no_other_its_answer(
    engine, wanted, prompts
):
    watched = Watched(engine._engine)
    ours = over(engine, watched)
    for bad, said in (
        ([0, 10**6], "token 1000000 is not among"),
        ([0, -1], "token -1"),
        ([7] * 600, "do not fit"),
    ):
        with pytest.raises(ValueError, match=said):
            ours.generate([*prompts[:5], bad], SETTINGS)
        ours.expect([bad], SETTINGS)
        assert watched.added == 0
        found = generate_each(
            over(engine, Watched(engine._engine)), [bad, *prompts[:5]], SETTINGS, lambda _: None
        )
        assert isinstance(found[0], Failure)
        assert found[1:] == wanted[:5]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError])
def test_a_prompt_that_breaks_a_step_is_found_and_costs_no_other_its_answer(
    engine, wanted, prompts, error
):
    watched = Watched(engine._engine, failing_on([prompts[3], prompts[17]], error))
    told: list[int] = []
    found = generate_each(over(engine, watched), prompts, SETTINGS, told.append)
    broken = f"{error.__name__}: the kernel cannot do this"
    assert [str(answer) for answer in found if isinstance(answer, Failure)] == [broken] * 2
    assert [row for row, answer in enumerate(found) if isinstance(answer, Failure)] == [3, 17]
    assert [answer for answer in found if isinstance(answer, Generated)] == [
        answer for row, answer in enumerate(wanted) if row not in (3, 17)
    ]
    assert sum(told) == len(prompts)


def test_a_prompt_told_ahead_that_breaks_a_step_is_blamed_when_it_is_asked_for_and_not_before(
    engine, wanted, prompts
):
    ours = over(engine, Watched(engine._engine, failing_on([prompts[30]])))
    ours.expect(prompts[20:], SETTINGS)
    assert [ours.generate([prompt], SETTINGS)[0] for prompt in prompts[:3]] == wanted[:3]
    found = generate_each(ours, prompts[20:], SETTINGS, lambda _: None)
    assert [row for row, answer in enumerate(found, 20) if isinstance(answer, Failure)] == [30]


def test_out_of_memory_means_fewer_prompts_at_once_from_then_on(engine, wanted, prompts):
    sizes: list[int] = []

    def small(under_way: list[list[int]]) -> None:
        sizes.append(len(under_way))
        if len(under_way) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")

    ours, told = over(engine, Watched(engine._engine, small)), list[int]()
    ours.expect(prompts[20:], SETTINGS)
    assert ours.generate(prompts[:20], SETTINGS, told.append) == wanted[:20]
    assert sum(told) == 20
    assert [size for size in sizes if size > 7] == [40, 20, 10]
    sizes.clear()
    ours.expect(prompts[20:], SETTINGS)
    assert ours.generate(prompts[20:], SETTINGS) == wanted[20:]
    assert max(sizes) <= 5, "the number that fits is remembered"


def test_one_prompt_that_does_not_fit_into_memory_is_rejected_alone(engine, wanted, prompts):
    watched = Watched(engine._engine, failing_on([prompts[5]], torch.OutOfMemoryError))
    found = generate_each(over(engine, watched), prompts, SETTINGS, lambda _: None)
    assert [row for row, answer in enumerate(found) if isinstance(answer, Failure)] == [5]


def test_a_gpu_that_fails_is_worth_another_try(engine, prompts):
    ours = over(engine, Watched(engine._engine, failing_on(prompts[:1], torch.AcceleratorError)))
    with pytest.raises(RetryError, match="the GPU failed"):
        ours.generate(prompts[:2], SETTINGS)
    ours._drop([str(number) for number in range(9)], RuntimeError())


def test_a_vllm_that_cannot_go_on_is_worth_another_try(engine, prompts):
    class Dead(Watched):
        def abort_request(self, requests: list[str]) -> None:
            super().abort_request(requests)
            raise RuntimeError("dead")

    ours = over(engine, Dead(engine._engine, failing_on(prompts[:1])))
    with pytest.raises(RetryError, match=r"vLLM failed \(the kernel cannot do this\).*\(dead\)"):
        ours.generate(prompts[:2], SETTINGS)


def test_sampled_answers_repeat_with_the_seed_whatever_they_are_batched_with(
    engine, prompts, wanted
):
    settings = SETTINGS.model_copy(update={"temperature": 1.0, "top_p": 0.9})
    first = engine.generate(prompts, settings)
    assert engine.generate(prompts[:5], settings) == first[:5]
    assert first != wanted
    assert engine.generate(prompts, settings.model_copy(update={"seed": 43})) != first
    narrow = engine.generate(prompts, settings.model_copy(update={"top_p": 1e-6}))
    assert sum(ours == theirs for ours, theirs in zip(narrow, wanted, strict=True)) >= SAME * len(
        prompts
    )
