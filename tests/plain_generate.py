"""The answers of transformers' own `generate`, which recap's batches must give, too."""

from collections.abc import Sequence
from typing import Any


def one_by_one(
    model: Any, prompts: Sequence[list[int]], new_tokens: int, **named: Any
) -> list[list[int]]:
    """Return the likeliest answer to each prompt alone, with its end token."""
    import torch

    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            **named,
        )
        found.append(output[0, len(prompt) :].tolist())
    return found
