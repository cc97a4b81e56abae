"""The engine on vLLM: prompts join and leave its batch at each step, so that it is never idle while there are any.

Token ids in, token ids out: no text, template or tokenizer of vLLM's takes part. Prompts of later calls are under way
while those of this one end (`expect`). Knows nothing of files, nor of how vLLM was started (`vllm_start` does).
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from job.config.sections import GenerationSection
from job.errors import RecapError, RetryError
from job.inference.ending import to_answer
from job.inference.engine import Generated
from job.model import Tokenizer
from job.telemetry import warn

BATCHES_AHEAD = 4  # answers of 128 tokens outlast three whole batches of answers of 40
NAN = "NaNs detected in logits"  # what vLLM's RuntimeError begins with
DRAINING_STEPS = 8  # until steps that were scheduled ahead of a failure are through


class VllmEngine:
    """An `Engine` over a vLLM engine in this process (`vllm.v1.engine.llm_engine.LLMEngine`, or what stands in for it).

    `adapter` is vLLM's request for it, None for the base (or what the adapter is merged into). Holds which prompts are
    under way, and how many at once fit into memory once it ran out.
    """

    def __init__(self, engine: Any, tokenizer: Tokenizer, ends: frozenset[int], adapter: Any = None) -> None:
        self._engine, self._tokenizer, self._ends, self._adapter = engine, tokenizer, ends, adapter
        self._vocabulary: int = engine.model_config.get_vocab_size()
        self._requests = 0
        self._ahead: dict[tuple[int, GenerationSection], tuple[str, list[int]]] = {}  # by the identity of the prompt
        self._finished_ahead: dict[str, Generated] = {}
        self._most: int | None = None  # prompts at once; None until memory ran out
        self.context_tokens: int = engine.model_config.max_model_len
        self.prompts_ahead: int = BATCHES_AHEAD * engine.vllm_config.scheduler_config.max_num_seqs

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Answers in the order of `prompts`.

        Raises ValueError for a prompt that vLLM cannot take, before any work; what vLLM raises on the prompts; and
        RetryError when the GPU itself fails, or vLLM cannot go on.
        """
        for prompt in prompts:
            self._check(prompt, settings)
        answers: dict[int, Generated] = {}
        waiting, running, told = deque(range(len(prompts))), dict[str, int](), 0
        while len(answers) < len(prompts):
            while waiting and (self._most is None or len(running) < self._most):
                row = waiting.popleft()
                request = self._begin(prompts[row], settings)
                if request in self._finished_ahead:
                    answers[row] = self._finished_ahead.pop(request)
                else:
                    running[request] = row
            if running:
                try:
                    finished = self._step()
                except RecapError:
                    raise
                except Exception as error:
                    self._recover(error, running)
                    waiting.extendleft(sorted(running.values(), reverse=True))
                    running.clear()
                    continue
                for request, answer in finished:
                    if request in running:
                        answers[running.pop(request)] = answer
                    else:
                        self._finished_ahead[request] = answer
                if running and not self._engine.has_unfinished_requests():
                    raise RecapError(f"vLLM has lost {len(running)} prompts")
            if on_done and len(answers) > told:
                on_done(len(answers) - told)
                told = len(answers)
        return [answers[row] for row in range(len(prompts))]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Begin with prompts that a later call asks for; what is wrong with one is told there."""
        if self._most is not None:
            return
        for prompt in prompts:
            try:
                self._check(prompt, settings)
            except ValueError:
                continue
            self._ahead[id(prompt), settings] = self._add(prompt, settings), prompt

    def _check(self, prompt: Sequence[int], settings: GenerationSection) -> None:
        """ValueError for what would break the batch that it is in: vLLM without a tokenizer looks at no ids."""
        if not prompt or len(prompt) + settings.max_new_tokens > self.context_tokens:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and an answer of {settings.max_new_tokens} do not fit into the "
                f"{self.context_tokens} tokens that vLLM was started with"
            )
        strange = next((id for id in prompt if not 0 <= id < self._vocabulary), None)
        if strange is not None:
            raise ValueError(f"token {strange} is not among the {self._vocabulary} of the model's vocabulary")

    def _begin(self, prompt: list[int], settings: GenerationSection) -> str:
        request, _ = self._ahead.pop((id(prompt), settings), (None, None))
        return request or self._add(prompt, settings)

    def _add(self, prompt: list[int], settings: GenerationSection) -> str:
        self._requests += 1
        request = str(self._requests)
        parameters = sampling_parameters(settings, self._ends)
        ids = {"type": "token", "prompt_token_ids": prompt}  # vLLM's TokensInput: nothing is left to be rendered
        self._engine.add_request(request, ids, parameters, lora_request=self._adapter)
        return request

    def _step(self) -> list[tuple[str, Generated]]:
        """One token of each prompt under way; the answers that ended with it, by request."""
        finished = []
        for output in self._engine.step():
            (answer,) = output.outputs
            if answer.finish_reason not in ("stop", "length"):
                raise RuntimeError(f"vLLM ended a prompt of {len(output.prompt_token_ids)} tokens: {answer}")
            finished.append((output.request_id, to_answer(list(answer.token_ids), self._ends, self._tokenizer)))
        return finished

    def _recover(self, error: Exception, running: dict[str, int]) -> None:
        """Make vLLM ready to go on after a step that failed; raises if the prompts that are running may be to blame."""
        import torch

        if isinstance(error, torch.AcceleratorError):
            raise RetryError(f"the GPU failed ({error}); run the job again, or elsewhere if it fails again") from error
        others = [request for request, _ in self._ahead.values() if request not in self._finished_ahead]
        self._ahead = {key: value for key, value in self._ahead.items() if value[0] in self._finished_ahead}
        self._drop([*running, *others], error)
        if isinstance(error, torch.OutOfMemoryError) and len(running) + len(others) > 1:
            self._most = (len(running) + len(others)) // 2
            warn("out of memory: fewer prompts at once from now on", prompts=self._most)
        elif not others:
            raise FloatingPointError(f"{error}; try another model.dtype") if NAN in str(error) else error

    def _drop(self, requests: Sequence[str], error: Exception) -> None:
        """Take requests out of vLLM, with what it keeps of their prompts, which may be wrong; else RetryError."""
        try:
            self._engine.abort_request(requests)
            for _ in range(DRAINING_STEPS):
                self._engine.step()
            clean = self._engine.reset_prefix_cache()
        except Exception as another:
            raise RetryError(f"vLLM failed ({error}), and again on its way back ({another}): run again") from error
        if not clean:
            raise RetryError(f"vLLM failed ({error}) and holds on to the prompts that it failed on: run again")


def sampling_parameters(settings: GenerationSection, ends: frozenset[int]) -> Any:
    """The parameters of one prompt: greedy unless there is a temperature, and never text."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=settings.temperature,
        top_p=settings.top_p if settings.temperature else 1.0,
        seed=settings.seed if settings.temperature else None,
        max_tokens=settings.max_new_tokens,
        stop_token_ids=sorted(ends),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
