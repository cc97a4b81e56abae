"""Decode one batch: a forward pass over the prompts, then one token of each row a step.

Rows that have ended leave the batch, and their part of the cache with them. A static batch computes
every row until the longest answer ends: with answers of 40 tokens on average and 128 at most, that
is twice the work (measured on two CPU cores).
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from job.config.sections import GenerationSection
from job.model import Model

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
    from torch.distributed.fsdp import FSDPModule

    # A sharded model reuses its gathered parameters in training. Tensors made in inference mode
    # could not be used there.
    without_gradients = torch.no_grad if isinstance(model, FSDPModule) else torch.inference_mode

    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # the prompt of each row of the batch
    ended = [False] * len(prompts)  # for each row of the batch
    cache = None

    with without_gradients():
        ids, mask = _left_padded(prompts, model.device)  # (rows, tokens)
        # Positions count from a row's first real token, whatever its padding.
        positions = (mask.cumsum(-1) - 1).clamp(min=0)

        for step in range(max_new_tokens):
            logits, cache = _forward(model, ids, mask, positions, cache)  # (rows, vocabulary)
            # Weights that overflow in float16 cause NaN in every step alike: the first shows it.
            if step == 0:
                _check_numbers(logits)

            tokens = choose(logits)  # (rows,)
            for row, token in enumerate(tokens.tolist()):
                if not ended[row]:
                    answers[rows[row]].append(token)
                    ended[row] = token in ends
            if all(ended):
                break

            if sum(ended) >= ENDED_SHARE * len(ended):
                kept = [row for row, has_ended in enumerate(ended) if not has_ended]
                rows = [rows[row] for row in kept]
                ended = [False] * len(kept)
                index = torch.tensor(kept, device=model.device)
                cache.batch_select_indices(index)
                mask = mask[index]
                positions = positions[index]
                tokens = tokens[index]

            # The cache holds everything before: only the new token of each row goes in.
            ids = tokens[:, None]
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
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


def _forward(model: Model, ids: Any, mask: Any, positions: Any, cache: Any) -> tuple[Any, Any]:
    """Return the logits after the last token, (rows, vocabulary), and the extended cache."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1], output.past_key_values


def _left_padded(prompts: Sequence[list[int]], device: Any) -> tuple[Any, Any]:
    """Return ids and attention mask, both (rows, tokens).

    Padded on the left, so that each row's last column is its last token, whose logits come next.
    Padding is masked, so any id will do.
    """
    import torch

    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)


def _check_numbers(logits: Any) -> None:
    """Raise FloatingPointError for NaN, which would become arbitrary tokens."""
    if bool(logits.isnan().any()):
        raise FloatingPointError(
            f"the model answers with NaN in {logits.dtype}; try another model.dtype",
        )
