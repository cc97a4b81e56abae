"""Decode one batch: forward passes over the prompts, then one token of each row a step.

Rows that have ended leave the batch, and their part of the cache with them. A static batch computes
every row until the longest answer ends: with answers of 40 tokens on average and 128 at most, that
is twice the work (measured on two CPU cores).
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from job.config.sections import GenerationSection
from job.inference.batch import Batch, generating
from job.inference.cache import UnknownLayoutError
from job.model import Model
from job.telemetry import warn_once

Choose = Callable[[Any], Any]  # logits (rows, vocabulary) → token ids (rows,)

# Rows leave the batch when at least this share has ended: copying the rest of the cache costs about
# as much as one step.
ENDED_SHARE = 1 / 4


def decode(
    model: Model,
    prompts: Sequence[list[int]],
    ends: Collection[int],
    max_new_tokens: int,
    choose: Choose,
) -> list[list[int]]:
    """Return the new tokens of each prompt, in order.

    The last token is one of `ends`, unless `max_new_tokens` were generated without any. Raise
    FloatingPointError if the model's logits are NaN, and whatever torch raises.
    """
    import torch

    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # the prompt of each row of the batch
    ended = [False] * len(prompts)  # for each row of the batch
    rows_can_leave = True

    with generating(model):
        batch = Batch(model, prompts)
        # Weights that overflow in float16 cause NaN in every step alike: the first shows it.
        _check_numbers(batch.logits)

        for step in range(max_new_tokens):
            tokens = choose(batch.logits)  # (rows,)
            for row, token in enumerate(tokens.tolist()):
                if not ended[row]:
                    answers[rows[row]].append(token)
                    ended[row] = token in ends
            if all(ended) or step == max_new_tokens - 1:
                break

            if rows_can_leave and sum(ended) >= ENDED_SHARE * len(ended):
                kept = [row for row, has_ended in enumerate(ended) if not has_ended]
                rows_can_leave = _drop_all_but(kept, batch)
                if rows_can_leave:
                    rows = [rows[row] for row in kept]
                    ended = [False] * len(kept)
                    tokens = tokens[torch.tensor(kept, device=tokens.device)]
            batch.extend(tokens)
    return answers


def greedy(logits: Any) -> Any:
    """Return the most likely token of each row."""
    return logits.argmax(-1)


def sampling(settings: GenerationSection, device: Any) -> Choose:
    """Return a function that draws tokens by temperature from the nucleus of `top_p`.

    The same seed draws the same tokens from the same batches.
    """
    import torch

    generator = torch.Generator(device=device).manual_seed(settings.seed)

    def choose(logits: Any) -> Any:
        # In float32: the cumulative sum over a large vocabulary is too coarse in 16 bits.
        scaled = logits.float() / settings.temperature
        likely, order = scaled.softmax(-1).sort(-1, descending=True)

        # A token stays if those before it do not fill the nucleus; the first always does.
        likely = likely.masked_fill(likely.cumsum(-1) - likely >= settings.top_p, 0.0)
        drawn = torch.multinomial(likely, 1, generator=generator)  # (rows, 1)
        return order.gather(-1, drawn)[:, 0]

    return choose


def _drop_all_but(kept: list[int], batch: Batch) -> bool:
    """Drop all rows but `kept`; return False if the batch must stay as it is until its end."""
    try:
        batch.keep(kept)
    except UnknownLayoutError as error:
        warn_once(
            "answers that end early stay in their batch until the longest ends: the model's cache "
            "cannot be taken apart",
            cache=str(error),
        )
        return False
    return True


def _check_numbers(logits: Any) -> None:
    """Raise FloatingPointError for NaN, which would become arbitrary tokens."""
    if bool(logits.isnan().any()):
        raise FloatingPointError(
            f"the model answers with NaN in {logits.dtype}; try another model.dtype",
        )
