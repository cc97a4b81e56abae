"""One batch of prompts → the tokens that follow each: a forward pass over the prompts, then one token a step.

Rows that have ended leave the batch, and their part of the cache with them. A static batch computes every row until the
longest answer ends: with answers of 40 tokens on average and 128 at the most that is twice the work (measured on two
CPU cores). Knows nothing of text, nor of how many rows fit.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from job.config.sections import GenerationSection
from job.model import Model

Choose = Callable[[Any], Any]  # logits (rows, vocabulary) → token ids (rows,)
ENDED_SHARE = 1 / 4  # rows leave when so many have ended: copying the rest of the cache costs about one step


def decode(
    model: Model, prompts: Sequence[list[int]], ends: Collection[int], max_new_tokens: int, choose: Choose
) -> list[list[int]]:
    """New tokens of each prompt, in order; the last one is in `ends` unless there were `max_new_tokens` before.

    Raises FloatingPointError when the model answers with no numbers, and what torch raises.
    """
    import torch
    from torch.distributed.fsdp import FSDPModule

    # What a sharded model gathers serves its training again, which tensors made in inference mode cannot.
    without_gradients = torch.no_grad if isinstance(model, FSDPModule) else torch.inference_mode
    answers: list[list[int]] = [[] for _ in prompts]
    rows, ended = list(range(len(prompts))), [False] * len(prompts)  # of the batch: whose each is, and whether it ended
    cache = None
    with without_gradients():
        ids, mask = _left_padded(prompts, model.device)  # (rows, tokens)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        for step in range(max_new_tokens):
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            cache, logits = output.past_key_values, output.logits[:, -1]  # (rows, vocabulary)
            if step == 0 and bool(logits.isnan().any()):
                raise FloatingPointError(f"the model answers with NaN in {logits.dtype}; try another model.dtype")
            tokens = choose(logits)  # (rows,)
            for place, token in enumerate(tokens.tolist()):
                if not ended[place]:
                    answers[rows[place]].append(token)
                    ended[place] = token in ends
            if all(ended):
                break
            if sum(ended) >= ENDED_SHARE * len(ended):
                kept = [place for place, end in enumerate(ended) if not end]
                rows, ended = [rows[place] for place in kept], [False] * len(kept)
                index = torch.tensor(kept, device=model.device)
                cache.batch_select_indices(index)
                mask, positions, tokens = mask[index], positions[index], tokens[index]
            ids, positions = tokens[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return answers


def greedy(logits: Any) -> Any:
    """The most likely token of each row."""
    return logits.argmax(-1)


def sampling(settings: GenerationSection, device: Any) -> Choose:
    """Tokens drawn by temperature from the nucleus of `top_p`; the same seed draws the same from the same batches."""
    import torch

    generator = torch.Generator(device=device).manual_seed(settings.seed)

    def choose(logits: Any) -> Any:
        likely, order = (logits.float() / settings.temperature).softmax(-1).sort(-1, descending=True)
        # A token stays when those before it do not fill the nucleus; the first always does.
        likely = likely.masked_fill(likely.cumsum(-1) - likely >= settings.top_p, 0.0)
        drawn = torch.multinomial(likely, 1, generator=generator)  # (rows, 1)
        return order.gather(-1, drawn)[:, 0]

    return choose


def _left_padded(prompts: Sequence[list[int]], device: Any) -> tuple[Any, Any]:
    """Ids and attention mask, both (rows, tokens). What stands in the padding is masked, so any token will do."""
    import torch

    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)
