"""Claims about an engine that fails on some prompts: the others get their answers."""

from types import SimpleNamespace

import pytest

from job.config.sections import GenerationSection
from job.errors import ConfigError, RetryError
from job.inference.each import OneByOne
from job.inference.engine import Generated


class Fragile:
    """An engine that fails on a prompt with the token 13, and on its whole call."""

    context_tokens, prompts_ahead = 100, 0

    def generate(self, prompts, settings, on_done=None):
        if any(13 in prompt for prompt in prompts):
            raise ValueError("unlucky")
        if on_done:
            on_done(len(prompts))
        return [Generated(f"said {prompt[0]}", 2, "stop") for prompt in prompts]


def test_prompt_that_breaks_the_engine_gets_an_empty_answer(caplog):
    done: list[int] = []
    prompts = [[1], [2], [13], [4], [5]]
    answers = OneByOne(Fragile()).generate(prompts, GenerationSection(), done.append)
    assert [answer.text for answer in answers] == ["said 1", "said 2", "", "said 4", "said 5"]
    assert sum(done) == 5
    assert "scored as empty" in caplog.text


def test_engine_that_answers_nothing_is_a_mistake_in_the_config():
    message = r"none of 2 conversations \(the first: ValueError: unlucky\)"
    with pytest.raises(ConfigError, match=message):
        OneByOne(Fragile()).generate([[13], [13, 4]], GenerationSection())


def test_a_gpu_that_fails_is_no_failure_of_a_prompt():
    def fail(prompts, settings, on_done=None):
        raise RetryError("the GPU failed")

    engine = SimpleNamespace(generate=fail, context_tokens=9)
    with pytest.raises(RetryError):
        OneByOne(engine).generate([[1], [2]], GenerationSection())
