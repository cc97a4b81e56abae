"""Claims about what a training step leaves out: it changes neither the loss nor its gradients."""

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)
from trl.trainer.utils import _ChunkedLogProbFunction, add_fused_lm_head

from job.prompt.encode import IGNORED
from job.training.shortcuts import is_mask_needless, leave_out_mask, project_learned_tokens_only

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def llama(attention: str = "sdpa") -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(**SIZES, initializer_range=0.3, attn_implementation=attention)
    model = LlamaForCausalLM(config)
    add_fused_lm_head(model, outputs=("log_probs",))
    return model


def padded_batch() -> dict[str, torch.Tensor]:
    """Return two rows, of which one ends in padding and each has a few learned tokens."""
    ids = torch.arange(2, 26).reshape(2, 12)
    labels = ids.clone()
    labels[:, :5] = IGNORED
    mask = torch.ones_like(ids)
    ids[1, 8:], labels[1, 8:], mask[1, 8:] = 0, IGNORED, 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def loss_and_gradients(model: Any, batch: dict[str, torch.Tensor]) -> tuple[Any, list[Any]]:
    model.zero_grad()
    output = model(**batch, fused_lm_head=True)
    output.loss.backward()
    return output, [weight.grad.clone() for weight in model.parameters()]


@pytest.fixture
def projecting_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL as it is: on a CPU its head computes logits of all tokens."""
    monkeypatch.setattr("trl.trainer.utils._use_triton", lambda device: False)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_loss_and_its_gradients_are_those_of_trl(projecting_all, attention):
    model, batch = llama(attention), padded_batch()
    wanted, gradients = loss_and_gradients(model, batch)
    project_learned_tokens_only()
    assert is_mask_needless(model, model)
    leave_out_mask(model)
    found, others = loss_and_gradients(model, batch)
    for name in ("loss", "log_probs", "label_mask"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), msg=name)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6)


def test_logits_are_computed_of_learned_tokens_alone(projecting_all, monkeypatch):
    model, batch = llama(), padded_batch()
    seen = []

    def count(grad_function: Any, hidden: Any, *others: Any) -> Any:
        seen.append(hidden.shape[0])
        return real(grad_function, hidden, *others)

    real = _ChunkedLogProbFunction.forward
    project_learned_tokens_only()
    monkeypatch.setattr(_ChunkedLogProbFunction, "forward", staticmethod(count))
    model(**batch, fused_lm_head=True)
    assert seen == [7 + 3]


def test_a_batch_without_a_learned_token_has_a_loss_of_zero(projecting_all):
    model, batch = llama(), padded_batch()
    batch["labels"][:] = IGNORED
    project_learned_tokens_only()
    output, gradients = loss_and_gradients(model, batch)
    assert output.loss == 0
    assert not any(gradient.any() for gradient in gradients)


def test_the_body_sees_no_mask_for_the_loss_and_keeps_it_elsewhere():
    model, batch = llama(), padded_batch()
    masks = []
    model.model.register_forward_pre_hook(
        lambda module, args, named: masks.append(named.get("attention_mask")), with_kwargs=True
    )
    leave_out_mask(model)
    model(**batch, fused_lm_head=True)
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert masks[0] is None
    assert masks[1] is batch["attention_mask"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_a_model_whose_tokens_see_the_padding_keeps_its_mask(dtype, spread):
    torch.manual_seed(3)
    config = BertConfig(**SIZES, is_decoder=False, initializer_range=spread)
    encoder = BertLMHeadModel(config).to(dtype)
    assert not is_mask_needless(encoder, encoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_causal_model_needs_no_mask_in_any_dtype(dtype, attention):
    model = llama(attention).to(dtype)
    assert is_mask_needless(model, model)


def test_experts_balanced_by_a_loss_keep_the_mask_that_it_counts_by():
    config = MixtralConfig(
        **SIZES, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1
    )
    model = MixtralForCausalLM(config)
    assert is_mask_needless(model, model)
    config.output_router_logits = True
    assert not is_mask_needless(model, model)


def test_asking_changes_neither_mode_nor_random_state():
    model = llama().train()
    before = torch.get_rng_state()
    is_mask_needless(model, model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
