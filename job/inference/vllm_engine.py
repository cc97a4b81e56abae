"""The engine on vLLM: prompts join and leave its batch at each step, so that it is never idle.

Token ids go in and come out; vLLM's own tokenizer and templates take no part. Prompts of later
calls are already running while the last ones of this call end (`expect`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.config.sections import GenerationSection
from job.errors import RecapError, RetryError, is_out_of_memory
from job.identity import sha256_of
from job.inference.engine import Generated, gpu_failed, to_answer
from job.model import Tokenizer
from job.telemetry import warn, warn_once

BATCHES_AHEAD = 4  # an answer of 128 tokens takes as long as three whole batches of answers of 40
NAN_MESSAGE = "NaNs detected in logits"  # the beginning of vLLM's RuntimeError
DRAINING_STEPS = 8  # enough for the steps that vLLM had scheduled before a failure


@dataclass
class Requests:
    """The requests of all engines over one vLLM, and how many fit into memory at once.

    `ahead` has the prompts that were announced by `expect`, as request and prompt. The key has the
    identity of the list: hashing its tokens would cost more, and the entry keeps the list alive.
    """

    count: int = 0  # their ids are numbers
    ahead: dict[tuple[int, GenerationSection], tuple[str, list[int]]] = field(default_factory=dict)
    finished_ahead: dict[str, list[int]] = field(default_factory=dict)  # new tokens, by request
    max_running: int | None = None  # limit of prompts at once; None until memory ran out


class VllmEngine:
    """An `Engine` over a vLLM engine in this process.

    `engine` is a `vllm.v1.engine.llm_engine.LLMEngine` or stands in for it. `adapter` is vLLM's
    request for the adapter, None for a base alone or a merged one. Engines of several adapters
    share the `requests`: prompts of one may run while another is asked for answers.
    """

    def __init__(
        self,
        engine: Any,
        tokenizer: Tokenizer,
        ends: frozenset[int],
        adapter: Any = None,
        requests: Requests | None = None,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._ends = ends
        self._adapter = adapter
        self._vocabulary: int = engine.model_config.get_vocab_size()
        self._requests = requests or Requests()
        self.context_tokens: int = engine.model_config.max_model_len
        self.prompts_ahead: int = BATCHES_AHEAD * engine.vllm_config.scheduler_config.max_num_seqs

    def with_adapter(self, folder: Path | None) -> "VllmEngine":
        """Return an engine over the same weights, with the adapter in a folder or the base alone.

        `folder` needs a rank that vLLM was started for.
        """
        adapter = None if folder is None else lora_request(folder)
        return VllmEngine(self._engine, self._tokenizer, self._ends, adapter)

    def beside(self, tokenizer: Tokenizer, ends: frozenset[int], folder: Path) -> "VllmEngine":
        """Return an engine of another adapter over the same weights; both are usable at once.

        vLLM was started for two adapters.
        """
        adapter = lora_request(folder)
        return VllmEngine(self._engine, tokenizer, ends, adapter, self._requests)

    def generate(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSection,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generated]:
        """Return an answer to each prompt, in order.

        Raise ValueError, before any work, for a prompt that vLLM cannot take; whatever vLLM raises
        on the prompts; and RetryError if the GPU itself fails or vLLM cannot continue.
        """
        for prompt in prompts:
            self._check_prompt(prompt, settings)

        answers: dict[int, Generated] = {}
        waiting = deque(range(len(prompts)))
        running: dict[str, int] = {}  # request → row
        reported = 0
        while len(answers) < len(prompts):
            most = self._requests.max_running
            while waiting and (most is None or len(running) < most):
                row = waiting.popleft()
                request = self._begin(prompts[row], settings)
                if request in self._requests.finished_ahead:
                    answers[row] = self._answer(self._requests.finished_ahead.pop(request))
                else:
                    running[request] = row

            if running:
                try:
                    finished = self._step()
                except RecapError:
                    raise
                except Exception as error:
                    self._recover(error, running)
                    # Recovered: all running prompts start over, in their order.
                    waiting.extendleft(sorted(running.values(), reverse=True))
                    running.clear()
                    continue

                for request, tokens in finished:
                    if request in running:
                        answers[running.pop(request)] = self._answer(tokens)
                    else:
                        self._requests.finished_ahead[request] = tokens
                if running and not self._engine.has_unfinished_requests():
                    raise RecapError(f"vLLM has lost {len(running)} prompts")

            if on_done and len(answers) > reported:
                on_done(len(answers) - reported)
                reported = len(answers)
        return [answers[row] for row in range(len(prompts))]

    def expect(self, prompts: Sequence[list[int]], settings: GenerationSection) -> None:
        """Start work on prompts of a later call.

        Invalid prompts are skipped here: the later call raises for them. After memory has run out,
        this is a no-op.
        """
        if self._requests.max_running is not None:
            return
        for prompt in prompts:
            try:
                self._check_prompt(prompt, settings)
            except ValueError:
                continue
            self._requests.ahead[id(prompt), settings] = self._add(prompt, settings), prompt

    def _check_prompt(self, prompt: Sequence[int], settings: GenerationSection) -> None:
        """Raise ValueError for a prompt that would break its whole batch.

        vLLM does not check ids when it has no tokenizer.
        """
        if not prompt or len(prompt) + settings.max_new_tokens > self.context_tokens:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and an answer of {settings.max_new_tokens} do "
                f"not fit into the {self.context_tokens} tokens that vLLM was started with"
            )
        strange = next((id for id in prompt if not 0 <= id < self._vocabulary), None)
        if strange is not None:
            raise ValueError(
                f"token {strange} is not among the {self._vocabulary} of the model's vocabulary",
            )

    def _begin(self, prompt: list[int], settings: GenerationSection) -> str:
        """Return the request of a prompt: the one that `expect` made, or a new one."""
        request, _ = self._requests.ahead.pop((id(prompt), settings), (None, None))
        return request or self._add(prompt, settings)

    def _add(self, prompt: list[int], settings: GenerationSection) -> str:
        self._requests.count += 1
        request = str(self._requests.count)
        parameters = sampling_parameters(settings, self._ends)
        # vLLM's TokensInput: rendered already, so that it needs no tokenizer.
        ids = {"type": "token", "prompt_token_ids": prompt}
        self._engine.add_request(request, ids, parameters, lora_request=self._adapter)
        return request

    def _answer(self, tokens: list[int]) -> Generated:
        return to_answer(tokens, self._ends, self._tokenizer)

    def _step(self) -> list[tuple[str, list[int]]]:
        """Generate one token of each running prompt; return those that ended, by request."""
        finished = []
        for output in self._engine.step():
            (answer,) = output.outputs
            if answer.finish_reason not in ("stop", "length"):
                count = len(output.prompt_token_ids)
                raise RuntimeError(f"vLLM ended a prompt of {count} tokens: {answer}")
            finished.append((output.request_id, list(answer.token_ids)))
        return finished

    def _recover(self, error: Exception, running: dict[str, int]) -> None:
        """Make vLLM usable again after a step that failed.

        Drops all unfinished requests, and lowers the limit of prompts at once if memory ran out,
        whatever reports it.
        Raise `error` if a prompt of `running` may be to blame, as FloatingPointError if it was NaN;
        RetryError if the GPU itself failed or vLLM cannot continue.
        """
        import torch

        no_memory = is_out_of_memory(error)
        if isinstance(error, torch.AcceleratorError) and not no_memory:
            raise gpu_failed(error) from error

        others = []
        finished_ahead = {}
        for key, (request, prompt) in self._requests.ahead.items():
            if request in self._requests.finished_ahead:
                finished_ahead[key] = (request, prompt)
            else:
                others.append(request)
        self._requests.ahead = finished_ahead
        self._drop([*running, *others], error)

        if no_memory and len(running) + len(others) > 1:
            most = (len(running) + len(others)) // 2
            self._requests.max_running = most
            warn("out of memory: fewer prompts at once from now on", prompts=most)
        elif not others:
            if NAN_MESSAGE in str(error):
                raise FloatingPointError(f"{error}; try another model.dtype")
            raise error
        else:
            # A prompt of a later call may be to blame. Those of this call run again without it.
            why = f"{type(error).__name__}: {error}"
            warn_once("vLLM failed: the prompts of this call run again by themselves", error=why)

    def _drop(self, requests: Sequence[str], error: Exception) -> None:
        """Remove requests from vLLM, and its cache of prompts, which may be wrong after a failure.

        Raise RetryError if vLLM fails again.
        """
        try:
            self._engine.abort_request(requests)
            for _ in range(DRAINING_STEPS):
                self._engine.step()
            clean = self._engine.reset_prefix_cache()
        except Exception as another:
            raise RetryError(
                f"vLLM failed ({error}), and again on its way back ({another}): run again",
            ) from error
        if not clean:
            raise RetryError(
                f"vLLM failed ({error}) and holds on to the prompts that it failed on: run again",
            )


def lora_request(folder: Path) -> Any:
    """Return vLLM's request for the adapter in a folder."""
    from vllm.lora.request import LoRARequest

    # vLLM knows adapters by their numbers alone, of which 0 is none: those of a selection differ.
    number = 1 + int(sha256_of(str(folder))[:7], 16)
    return LoRARequest(f"adapter-{number}", number, str(folder))


def sampling_parameters(settings: GenerationSection, ends: frozenset[int]) -> Any:
    """Return vLLM's parameters for one prompt: greedy without a temperature, and ids, not text."""
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
