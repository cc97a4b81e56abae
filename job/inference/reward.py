"""Score summaries by a reward model: a higher score is a summary that people would rather have.

Rows are batched by length and padded on the right, where no token of a causal model sees padding.
The rows beside a row still decide how kernels add its numbers: in 16 bits, a score may differ in
its third digit. With `max_rows` 1 it does not. Batches are halved where memory runs out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, StorageSection
from job.conversations.record import Answer, Conversation
from job.inference.budget import TokenBudget, memory_of
from job.inference.open import FetchedModel, fitting_into_memory, model_on_disk
from job.inference.transformers_engine import compute_or_shrink, longest_first
from job.model import Model
from job.model.attach import REWARD_MODEL, attach_adapter, is_adapted
from job.model.fetch import Adapter, fetch_adapter, fetch_base_of
from job.model.kinds import ROW_TOKENS_KEY
from job.model.load import compute_dtype, context_tokens, load_base
from job.model.reward import add_head, scores_at_end
from job.prompt.encode import EncodedAnswers, Encoder, NothingToSummarizeError, TooLongError
from job.prompt.vocabulary import NO_LIMIT

MAX_ROWS = 64  # of a batch
SCORING_BYTES = 2 << 30  # beside the weights, where another model takes the rest of a GPU


@dataclass
class RewardModel:
    """A reward model in memory, on a base of its own or on one that another adapter uses, too."""

    digest: str | None  # of the adapter, None before it is published
    model: Model  # with the adapters around the base
    encoder: Encoder
    is_alone: bool = True  # no other adapter is on the base
    max_rows: int = MAX_ROWS  # of a batch; 1 for scores that no other row changes
    _budget: TokenBudget = field(init=False)

    def __post_init__(self) -> None:
        self._budget = TokenBudget(memory_of(self.model.device))
        if self.is_alone:
            self.model.disable_adapter_layers()

    def score(
        self,
        prompts: Sequence[list[int]],
        completions: Sequence[list[int]],
        on_done: Callable[[int], None] | None = None,
    ) -> list[float]:
        """Return the score of each completion of its prompt, both as ids, in order.

        A completion ends with the tokens that end a summary (`Encoder.end_ids`). `on_done` is
        called with the number of rows of each batch. Raise whatever torch raises if a single row
        does not fit, RetryError if the GPU itself fails.
        """
        rows = [prompt + answer for prompt, answer in zip(prompts, completions, strict=True)]
        order = longest_first([len(row) for row in rows])
        scores: dict[int, float] = {}
        with self._active():
            while len(scores) < len(rows):
                left = order[len(scores) :]
                fitting = self._budget.limit(None) // len(rows[left[0]])
                batch = left[: max(1, min(fitting, self.max_rows))]
                ids = [rows[row] for row in batch]
                padded = len(ids) * len(ids[0])
                compute = partial(self._compute, ids)
                found = compute_or_shrink(self._budget, len(ids), (padded, padded), compute)
                if found is None:
                    continue
                scores.update(zip(batch, found, strict=True))
                if on_done:
                    on_done(len(batch))
        return [scores[row] for row in range(len(rows))]

    def score_texts(
        self,
        conversations: Sequence[Conversation],
        summaries: Sequence[str],
        on_done: Callable[[int], None] | None = None,
    ) -> list[float | None]:
        """Return the score of each summary of its conversation, which is cleaned already.

        The prompt is that of the reward model's training: turns are dropped from the middle until
        prompt and summary fit. None stands for a pair that does not fit, or has no text.
        """
        judged = [
            conversation._replace(answers=(Answer(summary, True),) if summary.strip() else ())
            for conversation, summary in zip(conversations, summaries, strict=True)
        ]
        found = self.score_answers(judged, on_done)
        return [None if scores is None else scores[0] for scores in found]

    def score_answers(
        self,
        conversations: Sequence[Conversation],
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[float] | None]:
        """Return the scores of all judged answers of each conversation, which is cleaned already.

        All answers of a conversation have one prompt, as in training. None stands for one without
        answers or without text, or whose answers do not fit.
        """
        prompts, completions, rows = [], [], []
        for row, conversation in enumerate(conversations):
            encoded = self.encode(conversation)
            if encoded is None:
                continue
            for answer in encoded.answers:
                prompts.append(encoded.prompt_ids)
                completions.append(answer)
                rows.append(row)
        found: list[list[float] | None] = [None] * len(conversations)
        for row, score in zip(rows, self.score(prompts, completions, on_done), strict=True):
            found[row] = [*(found[row] or []), score]
        return found

    def encode(self, conversation: Conversation) -> EncodedAnswers | None:
        """Return a conversation with its judged answers as ids; None where nothing is scored."""
        if not conversation.answers:
            return None
        try:
            (found,) = self.encoder.encode_answers([conversation])
        except NothingToSummarizeError:
            return None
        return None if isinstance(found, TooLongError) else found

    def bytes_on_gpu(self) -> int:
        """Return the bytes of a GPU that the weights have and scoring needs; 0 without a GPU."""
        if self.model.device.type == "cpu":
            return 0
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return SCORING_BYTES + sum(int(tensor.nbytes) for tensor in tensors)

    @contextmanager
    def _active(self) -> Iterator[None]:
        """Compute with this adapter during the block, and as before after it."""
        before = self.model.active_adapter
        self.model.set_adapter(REWARD_MODEL, inference_mode=True)
        if self.is_alone:
            self.model.enable_adapter_layers()
        try:
            yield
        finally:
            if self.is_alone:
                self.model.disable_adapter_layers()
            self.model.set_adapter(before, inference_mode=True)

    def _compute(self, rows: list[list[int]]) -> list[float]:
        import torch

        width = len(rows[0])  # the longest comes first
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self.model.device
        with torch.no_grad():
            base = self.model.get_base_model()
            scores: list[float] = scores_at_end(base, ids.to(device), mask.to(device)).tolist()
        return scores


@dataclass(frozen=True)
class FetchedRewardModel:
    """A verified reward model on disk, with its base, and how to load both."""

    on_disk: FetchedModel
    section: AdapterModelSection
    max_tokens: int  # of a row

    def load(self) -> RewardModel:
        """Load it into memory. Raise ConfigError if it does not fit."""
        base = self.on_disk.base
        with fitting_into_memory(base.uri, self.section):
            model = load_base(base, self.section).eval()
            return self.put_on(model)

    def put_on(self, model: Model) -> RewardModel:
        """Put it on its base in memory, which may have another adapter, and stays as it was.

        The base is loaded as the section says. Raise DamagedError if it does not fit it.
        """
        dtype = compute_dtype(self.section.dtype)
        return reward_model_of(model, self.on_disk, self.max_tokens, dtype)


def fetch_reward_model(
    adapter: Adapter, section: AdapterModelSection, storage: StorageSection, cache: Path
) -> FetchedRewardModel:
    """Bring a reward model and its base to disk.

    Raise ConfigError if the base is another one, DamagedError if the adapter is not what its
    manifest says.
    """
    folder = fetch_adapter(adapter, cache)
    base = fetch_base_of(adapter, section, storage, cache)
    on_disk = model_on_disk(base, folder, adapter.digest, section)
    limit = adapter.manifest.extra.get(ROW_TOKENS_KEY) or context_tokens(base.path)
    return FetchedRewardModel(on_disk, section, limit or NO_LIMIT)


def load_reward_model(
    adapter: Adapter, section: AdapterModelSection, storage: StorageSection, cache: Path
) -> RewardModel:
    """Load a reward model and its base, and return it. Raise what fetching and loading raise."""
    return fetch_reward_model(adapter, section, storage, cache).load()


def reward_model_of(
    model: Model, on_disk: FetchedModel, max_tokens: int, dtype: Any
) -> RewardModel:
    """Put a reward model in a folder on its base in memory, and return it.

    Its rows have at most `max_tokens`. Raise DamagedError if it does not fit the base.
    """
    assert on_disk.adapter is not None
    has_other = is_adapted(model)
    add_head(model.get_base_model() if has_other else model)
    adapted = attach_adapter(model, on_disk.adapter, dtype, REWARD_MODEL)
    encoder = Encoder(on_disk.prompt, on_disk.tokenizer, max_tokens)
    return RewardModel(on_disk.adapter_digest, adapted, encoder, is_alone=not has_other)
