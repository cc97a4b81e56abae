"""Log-probabilities and gradients of pairs: in one row each, and in sequences of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import add_fused_lm_head

from job.training.shared_prompts import shared_log_probabilities, shared_tensors

Pair = dict[str, list[int]]


@dataclass
class Computed:
    """The log-probabilities of both answers of each pair, and the gradients of a sum of them."""

    values: torch.Tensor  # (pairs, 2)
    gradients: dict[str, torch.Tensor]


def in_one_row(model: Any, pairs: Sequence[Pair], dtype: torch.dtype = torch.float32) -> Computed:
    """Compute the pairs as one batch of rows that share their prompts."""
    if not getattr(model, "has_fused_head", False):
        add_fused_lm_head(model, outputs=("log_probs",))
        model.has_fused_head = True
    return _with_gradients(model, shared_log_probabilities(model, shared_tensors(pairs, 0), dtype))


def apart(model: Any, pairs: Sequence[Pair]) -> Computed:
    """Compute each answer after its prompt, by the model's own logits and without padding."""
    values = []
    for pair in pairs:
        for name in ("chosen_ids", "rejected_ids"):
            prompt, answer = pair["prompt_ids"], pair[name]
            logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
            of_answer = logits[len(prompt) - 1 : -1].float().log_softmax(dim=-1)
            values.append(of_answer.gather(1, torch.tensor(answer).long()[:, None]).sum())
    return _with_gradients(model, torch.stack(values).view(-1, 2))


def _with_gradients(model: Any, values: torch.Tensor) -> Computed:
    model.zero_grad()
    weights = 1 + torch.arange(values.numel()).view_as(values) / 7
    (values * weights).sum().backward()
    gradients = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return Computed(values.detach(), gradients)


def check_same(found: Computed, wanted: Computed, tolerance: float = 1e-5) -> None:
    """Assert that values and gradients agree, each gradient as a fraction of its largest number."""
    torch.testing.assert_close(found.values, wanted.values, rtol=tolerance, atol=tolerance)
    largest = max(float(each.abs().max()) for each in wanted.gradients.values())
    assert largest > 0
    for name, gradient in wanted.gradients.items():
        scale = max(float(gradient.abs().max()), 1e-3 * largest)
        error = float((found.gradients[name] - gradient).abs().max())
        assert error <= 3 * tolerance * scale, (name, error / scale)
