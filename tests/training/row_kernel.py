"""A stand-in for torch's kernel for rows of any length, which needs a GPU."""

from typing import Any

import torch


def rows_by_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, *_: Any,
    scale: float | None, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """Attend row by row: what torch's kernel computes on a GPU."""
    outputs = []
    for start, end in zip(ends.tolist(), ends.tolist()[1:], strict=False):
        parts = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
        near = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        if window_size[0] >= 0:
            near = near.triu(-window_size[0])
        output = torch.nn.functional.scaled_dot_product_attention(
            *parts, attn_mask=near, scale=scale, enable_gqa=enable_gqa
        )
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)
