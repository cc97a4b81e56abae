"""A start for the demo's base that can copy, so that minutes of training on two cores are enough.

The first two layers of a Llama with random weights are set so that a token finds where it occurred
before and what followed it there: an induction head (Olsson et al. 2022). To begin with such
structure instead of waiting for it to form is mimetic initialization (Trockman and Kolter 2023).
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

FAST_PAIRS = 8  # rotary pairs that turn fast enough to separate a neighbour from the token itself
SLOW_PAIRS = 22  # rotary pairs that hardly turn within a conversation: content alone decides
# Of an embedding's square norm: what all tokens share, for attention by position alone.
CONSTANT_SHARE = 0.3
POSITION_GAIN = 40.0  # score of the previous token
CONTENT_GAIN = 20.0  # score of a matching token
REST = 0.2  # the factor of the random weights elsewhere in the scores
COPIED_SIZE = 10.0  # of what the second layer writes, in norms of an embedding


def start_with_induction(model: LlamaForCausalLM) -> None:
    """Set embeddings and attention of the first two layers, in place.

    The first layer attends to the previous token, the second to a matching one, and copies. The
    embeddings start in one half of the hidden space. The first layer writes the previous token's
    embedding into the other half, so that the second can compare the two without disturbing either.
    """
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight  # (vocabulary, hidden)
        hidden = embedding.shape[1]
        axes = torch.nn.init.orthogonal_(torch.empty(hidden, hidden))
        constant = axes[0]
        here = axes[1 : hidden // 2]  # (axes, hidden)
        before = axes[hidden // 2 + 1 :]  # (axes, hidden)
        size = float(embedding.norm(dim=1).mean())
        content = torch.nn.functional.normalize(embedding @ here.T @ here, dim=1)
        embedding.copy_(
            size * ((1 - CONSTANT_SHARE) ** 0.5 * content + CONSTANT_SHARE**0.5 * constant)
        )
        for layer in model.model.layers:  # everything else starts silent
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.zero_()
        first, second = (layer.self_attn for layer in model.model.layers[:2])
        embedded = hidden**0.5 / size  # what the RMS norm multiplies an embedding with
        _attend_to_previous(first, constant, model.config)
        _write(first, before.T @ here / embedded)
        _attend_to_match(second, here, before, model.config)
        _write(second, here.T @ here / embedded * COPIED_SIZE)


def _attend_to_previous(
    attention: torch.nn.Module, constant: torch.Tensor, config: LlamaConfig
) -> None:
    """Set the scores to depend on the distance alone, highest at distance one."""
    half = config.head_dim // 2
    # In radians per token.
    angle = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    chosen = (torch.arange(half) < FAST_PAIRS).float()
    query = torch.cat([chosen, torch.zeros(half)])
    key = torch.cat([chosen * angle.cos(), chosen * angle.sin()])
    square = config.hidden_size * CONSTANT_SHARE  # of the constant part after the layer's RMS norm
    gain = (POSITION_GAIN * config.head_dim**0.5 / FAST_PAIRS / square) ** 0.5
    for projection, side in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight.mul_(REST).add_(
            torch.outer(side.repeat(config.num_attention_heads), constant) * gain
        )


def _attend_to_match(
    attention: torch.nn.Module, here: torch.Tensor, before: torch.Tensor, config: LlamaConfig
) -> None:
    """Set the scores to be high where the token that the first layer copied equals this one."""
    half, heads = config.head_dim // 2, config.num_attention_heads
    slow = (torch.arange(config.head_dim) % half >= half - SLOW_PAIRS).float().repeat(heads)
    # Of each half after the RMS norm.
    square = config.hidden_size * (1 - CONSTANT_SHARE) / (2 - CONSTANT_SHARE)
    gain = (CONTENT_GAIN * config.head_dim**0.5 / (2 * SLOW_PAIRS) / square) ** 0.5
    # (heads * head_dim, half - 1)
    compare = torch.randn(config.hidden_size, len(here)) * slow[:, None] * gain
    attention.q_proj.weight.mul_(REST).add_(compare @ here)
    attention.k_proj.weight.mul_(REST).add_(compare @ before)


def _write(attention: torch.nn.Module, turned: torch.Tensor) -> None:
    """Set values and output so that the heads together write the attended token's vector.

    `turned` is the map from a token's vector to what is written.
    """
    value = torch.nn.init.orthogonal_(torch.empty(turned.shape))
    attention.v_proj.weight.copy_(value)
    attention.o_proj.weight.copy_(turned @ value.T)
