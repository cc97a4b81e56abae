"""Settings of the tests here, and a wrapper of vLLM's engine that watches it or lets it fail."""

from collections.abc import Callable, Sequence
from typing import Any

from job.config.sections import AdapterModelSection, GenerationSection
from job.inference.vllm_engine import VllmEngine

SECTION = AdapterModelSection(dtype="float32")
SETTINGS = GenerationSection(max_new_tokens=24)

# Of greedy answers in float32. Two tokens whose likelihoods differ in the last bits may change
# places.
MIN_SAME_SHARE = 0.95


def count_same(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    return sum(one == other for one, other in zip(ours, theirs, strict=True))


class Watched:
    """vLLM's engine, with a call before each step.

    Knows the prompts that are running, and counts the steps and the prompts that were added.
    """

    def __init__(
        self,
        engine: Any,
        before_step: Callable[[list[list[int]]], None] = lambda running: None,
    ) -> None:
        self._engine = engine
        self._before_step = before_step
        self.running: dict[str, list[int]] = {}  # by request
        self.steps = 0
        self.added = 0
        self.model_config = engine.model_config
        self.vllm_config = engine.vllm_config

    def add_request(self, request: str, prompt: Any, *arguments: Any, **more: Any) -> None:
        self.added += 1
        self.running[request] = prompt["prompt_token_ids"]
        self._engine.add_request(request, prompt, *arguments, **more)

    def step(self) -> Any:
        self._before_step(list(self.running.values()))
        self.steps += bool(self.running)
        outputs = self._engine.step()
        for output in outputs:
            self.running.pop(output.request_id)
        return outputs

    def has_unfinished_requests(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

    def abort_request(self, requests: list[str]) -> None:
        for request in requests:
            self.running.pop(request, None)
        self._engine.abort_request(requests)

    def reset_prefix_cache(self) -> bool:
        return bool(self._engine.reset_prefix_cache())


def over(engine: VllmEngine, watched: Watched) -> VllmEngine:
    """Return a new engine of recap's over the same engine of vLLM's."""
    return VllmEngine(watched, engine._tokenizer, engine._ends, engine._adapter)


def failing_on(
    poison: list[list[int]], error: type[Exception] = RuntimeError
) -> Callable[[list[list[int]]], None]:
    """Return a `before_step` that raises while one of these prompts is running.

    vLLM has scheduled the prompt by then.
    """

    def before_step(running: list[list[int]]) -> None:
        if any(prompt is bad for prompt in running for bad in poison):
            raise error("the kernel cannot do this")

    return before_step
