"""Claims about packed rows: each attends within itself, as it does alone, in a base's training."""

from typing import Any

import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from job.errors import ConfigError
from job.training import packed_attention
from job.training.packed_attention import NAME, are_rows_apart, choose_attention
from tests.training.row_kernel import rows_by_sdpa

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
HALF = {"num_key_value_heads": 2, "head_dim": 8}


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HALF))


def mistral() -> Any:
    """Return a model whose tokens see three before them."""
    return MistralForCausalLM(MistralConfig(**SIZES, **HALF, sliding_window=4))


def gemma() -> Any:
    """Return a model with a cap on its attention, which the kernel does not have."""
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, **HALF, attn_logit_softcapping=20.0))


def made(make: Any) -> Any:
    torch.manual_seed(3)
    model = make()
    add_fused_lm_head(model, outputs=("log_probs",))
    return model


ROWS = [{"input_ids": list(range(2, 2 + n)), "labels": list(range(2, 2 + n))} for n in (9, 4, 14)]


def loss_and_gradients(model: Any, rows: list[Any], joins: bool) -> tuple[float, list[Any]]:
    """Return the loss of rows and its gradients, of all joined into one or of one after another."""
    collate = DataCollatorForLanguageModeling(0, padding_free=joins)
    model.zero_grad()
    loss = 0.0
    for batch in [rows] if joins else [[row] for row in rows]:
        inputs = collate(batch)
        if not joins:
            del inputs["attention_mask"]
        output = model(**inputs, use_cache=False, fused_lm_head=True)
        output.log_probs.sum().backward()
        loss += output.log_probs.sum().item()
    return loss, [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize("make", [llama, mistral])
@pytest.mark.parametrize("recomputes", [False, True])
def test_loss_and_gradients_of_packed_rows_are_those_of_each_alone(make, recomputes):
    model = made(make)
    if recomputes:
        model.gradient_checkpointing_enable()
        model.train()
    wanted, gradients = loss_and_gradients(model, ROWS, joins=False)
    choose_attention(model, model, torch.float32, rows_by_sdpa)
    assert model.config._attn_implementation == NAME
    found, others = loss_and_gradients(model, ROWS, joins=True)
    assert found == pytest.approx(wanted, rel=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-4)


def test_generation_and_padded_rows_attend_as_before():
    model = made(mistral)
    ids = torch.randint(2, 40, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    asked = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    wanted = model.generate(**asked)
    plain = model(input_ids=ids).logits
    choose_attention(model, model, torch.float32, rows_by_sdpa)
    assert torch.equal(model.generate(**asked), wanted)
    torch.testing.assert_close(model(input_ids=ids).logits, plain)


def test_a_kernel_without_a_switch_for_shared_keys_is_taken():
    def of_torch_2_11(*states: Any, scale: float | None, window_size: tuple[int, int]) -> Any:
        return rows_by_sdpa(*states, scale=scale, window_size=window_size, enable_gqa=True)

    model = made(llama)
    choose_attention(model, model, torch.float32, of_torch_2_11)
    assert model.config._attn_implementation == NAME


@pytest.mark.parametrize(("make", "name"), [(llama, NAME), (mistral, NAME), (gemma, "sdpa")])
def test_rows_are_apart_in_16_bits(make, name, as_accelerate_prepares):
    base = made(make).to(torch.bfloat16)
    model = as_accelerate_prepares(base, "bf16")
    assert model(input_ids=torch.tensor([[1]])).logits.dtype == torch.float32
    choose_attention(model, base, torch.bfloat16, rows_by_sdpa)
    assert base.config._attn_implementation == name


def with_dropout() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HALF, attention_dropout=0.1))


def gpt2() -> Any:
    """Return a model with dropout that its config calls otherwise, and has by default."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4))


@pytest.mark.parametrize("make", [with_dropout, gpt2])
@pytest.mark.parametrize("packages", [[], ["eager"]])
def test_attention_with_dropout_keeps_sdpa(make, packages):
    model = made(make).train()
    before = torch.get_rng_state()
    choose_attention(model, model, torch.float32, rows_by_sdpa, packages)
    assert model.config._attn_implementation == "sdpa"
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    loss, _ = loss_and_gradients(model, ROWS, joins=True)
    assert loss < 0


def test_an_installed_package_is_tried_before_torchs_kernel():
    model = made(llama)
    choose_attention(model, model, torch.float32, rows_by_sdpa, ["flash_attention_3", "eager"])
    assert model.config._attn_implementation == "eager", "the first is not installed"


def all_together(query: Any, key: Any, value: Any, ends: Any, *others: Any, **named: Any) -> Any:
    """Attend as if all rows were one."""
    return rows_by_sdpa(query, key, value, ends[[0, -1]], *others, **named)


@pytest.mark.parametrize(("make", "kernel"), [(gemma, rows_by_sdpa), (llama, all_together)])
def test_a_kernel_that_computes_otherwise_is_not_taken(make, kernel, monkeypatch):
    told = []
    monkeypatch.setattr(packed_attention, "warn", told.append)
    model = made(make)
    choose_attention(model, model, torch.float32, kernel)
    assert model.config._attn_implementation == "sdpa"
    assert "dense mask" in told[0]


def test_a_base_whose_packed_rows_see_each_other_is_refused():
    sizes = {name: SIZES[name] for name in SIZES if name != "intermediate_size"}
    model = FalconForCausalLM(FalconConfig(**sizes, alibi=True, attn_implementation="eager"))
    if are_rows_apart(model, model, torch.float32):
        pytest.skip("this version of transformers keeps them apart")
    with pytest.raises(ConfigError, match="packing: false"):
        choose_attention(model, model, torch.float32, rows_by_sdpa)
