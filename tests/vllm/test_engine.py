"""Claims about the vLLM engine, with real vLLM on a CPU. A step of it is made to fail, not vLLM."""

import pytest
import torch

from job.errors import RetryError, is_out_of_memory
from job.inference.each import Failure, generate_each
from job.inference.engine import Generated
from job.inference.vllm_engine import VllmEngine
from tests.vllm.engines import MIN_SAME_SHARE, SETTINGS, Watched, count_same, failing_on, over

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def wanted(engine: VllmEngine, prompts: list[list[int]]) -> list[Generated]:
    return engine.generate(prompts, SETTINGS)


def failed_rows(answers: list[Generated | Failure]) -> list[int]:
    return [row for row, answer in enumerate(answers) if isinstance(answer, Failure)]


def test_both_engines_answer_alike(wanted, reference, prompts):
    answers = reference.generate(prompts, SETTINGS)
    assert count_same(wanted, answers) >= MIN_SAME_SHARE * len(prompts)
    assert {answer.finish_reason for answer in wanted} == {"stop", "length"}
    assert {answer.output_tokens for answer in wanted if answer.finish_reason == "length"} == {24}


def test_beginnings_that_prompts_share_are_cached(engine):
    assert engine._engine.vllm_config.cache_config.enable_prefix_caching


def test_progress_counts_every_prompt_once(engine, wanted, prompts):
    done: list[int] = []
    assert engine.generate(prompts, SETTINGS, done.append) == wanted
    assert sum(done) == len(prompts)
    assert engine.generate([], SETTINGS) == []


def test_expected_prompts_run_ahead_of_their_call_and_once(engine, wanted, prompts):
    watched = Watched(engine._engine)
    ours = over(engine, watched)
    ours.expect(prompts[20:], SETTINGS)
    assert ours.generate(prompts[:20], SETTINGS) == wanted[:20]
    assert ours.generate(prompts[20:], SETTINGS) == wanted[20:]
    assert watched.added == len(prompts)
    together = Watched(engine._engine)
    over(engine, together).generate(prompts, SETTINGS)
    assert watched.steps <= together.steps + 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([0, 10**6], "token 1000000 is not among"),
        ([0, -1], "token -1"),
        ([7] * 600, "do not fit"),
    ],
)
def test_invalid_prompt_fails_alone_before_any_work(engine, wanted, prompts, bad, message):
    watched = Watched(engine._engine)
    ours = over(engine, watched)
    with pytest.raises(ValueError, match=message):
        ours.generate([*prompts[:5], bad], SETTINGS)
    ours.expect([bad], SETTINGS)
    assert watched.added == 0
    found = generate_each(ours, [bad, *prompts[:5]], SETTINGS, lambda _: None)
    assert failed_rows(found) == [0]
    assert found[1:] == wanted[:5]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError])
def test_prompt_that_breaks_a_step_fails_alone(engine, wanted, prompts, error):
    watched = Watched(engine._engine, failing_on([prompts[3], prompts[17]], error))
    done: list[int] = []
    found = generate_each(over(engine, watched), prompts, SETTINGS, done.append)
    assert failed_rows(found) == [3, 17]
    assert str(found[3]) == str(found[17]) == f"{error.__name__}: the kernel cannot do this"
    for row, answer in enumerate(wanted):
        assert row in (3, 17) or found[row] == answer
    assert sum(done) == len(prompts)


def test_expected_prompt_that_breaks_a_step_fails_in_its_own_call(engine, wanted, prompts):
    ours = over(engine, Watched(engine._engine, failing_on([prompts[30]])))
    ours.expect(prompts[20:], SETTINGS)
    assert [ours.generate([prompt], SETTINGS)[0] for prompt in prompts[:3]] == wanted[:3]
    found = generate_each(ours, prompts[20:], SETTINGS, lambda _: None)
    assert failed_rows(found) == [10]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_out_of_memory_lowers_the_number_of_running_prompts(engine, wanted, prompts, error):
    sizes: list[int] = []

    def small(running: list[list[int]]) -> None:
        sizes.append(len(running))
        if len(running) > 7:
            raise error

    ours = over(engine, Watched(engine._engine, small))
    done: list[int] = []
    ours.expect(prompts[20:], SETTINGS)
    assert ours.generate(prompts[:20], SETTINGS, done.append) == wanted[:20]
    assert sum(done) == 20
    assert [size for size in sizes if size > 7] == [40, 20, 10]
    sizes.clear()
    ours.expect(prompts[20:], SETTINGS)
    assert ours.generate(prompts[20:], SETTINGS) == wanted[20:]
    assert max(sizes) <= 5, "the number that fits is remembered"


@pytest.mark.parametrize("available", [0, 1 << 20])
def test_a_cache_for_which_vllm_finds_no_memory_is_a_lack_of_it(available):
    from vllm.v1.core.kv_cache_utils import _check_enough_kv_cache_memory

    with pytest.raises(ValueError, match="Try increasing") as caught:
        _check_enough_kv_cache_memory(available, lambda: 1 << 30, 4096, lambda _: 0)
    assert is_out_of_memory(caught.value)


def test_one_prompt_that_does_not_fit_into_memory_is_rejected_alone(engine, wanted, prompts):
    watched = Watched(engine._engine, failing_on([prompts[5]], torch.OutOfMemoryError))
    found = generate_each(over(engine, watched), prompts, SETTINGS, lambda _: None)
    assert failed_rows(found) == [5]


def test_a_gpu_that_fails_raises_retry_error(engine, prompts):
    ours = over(engine, Watched(engine._engine, failing_on(prompts[:1], torch.AcceleratorError)))
    with pytest.raises(RetryError, match="the GPU failed"):
        ours.generate(prompts[:2], SETTINGS)
    ours._drop([str(number) for number in range(9)], RuntimeError())


def test_a_vllm_that_does_not_recover_raises_retry_error(engine, prompts):
    class Dead(Watched):
        def abort_request(self, requests: list[str]) -> None:
            super().abort_request(requests)
            raise RuntimeError("dead")

    ours = over(engine, Dead(engine._engine, failing_on(prompts[:1])))
    with pytest.raises(RetryError, match=r"vLLM failed \(the kernel cannot do this\).*\(dead\)"):
        ours.generate(prompts[:2], SETTINGS)


def test_sampled_answers_repeat_with_the_seed_in_any_batch(engine, prompts, wanted):
    settings = SETTINGS.model_copy(update={"temperature": 1.0, "top_p": 0.9})
    first = engine.generate(prompts, settings)
    assert engine.generate(prompts[:5], settings) == first[:5]
    assert first != wanted
    assert engine.generate(prompts, settings.model_copy(update={"seed": 43})) != first
    narrow = engine.generate(prompts, settings.model_copy(update={"top_p": 1e-6}))
    assert count_same(narrow, wanted) >= MIN_SAME_SHARE * len(prompts)
