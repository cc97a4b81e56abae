"""Claims about the quirks of base-model families, each with the smallest model that has it."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BartConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    MixtralForCausalLM,
    RobertaConfig,
    XLMConfig,
)

from job.model.families import (
    all_configs,
    generation_config,
    keep_adapter_in_float32,
    prepare_for_training,
    sees_later_tokens,
)
from job.model.modules import linear_modules


def test_end_tokens_without_generation_config_are_those_of_the_config(tmp_path):
    GPT2Config(eos_token_id=[5, 6]).save_pretrained(tmp_path)
    assert generation_config(tmp_path, trust_remote_code=False).eos_token_id == [5, 6]


@pytest.mark.parametrize(
    ("config", "sees"),
    [
        (RobertaConfig(), True),
        (RobertaConfig(is_decoder=True), False),
        (XLMConfig(), True),
        (XLMConfig(causal=True), False),
        (Gemma3TextConfig(use_bidirectional_attention=True), True),
        (Gemma3TextConfig(), False),
        (LlamaConfig(is_causal=False), True),
        (GPTNeoXConfig(), False),  # it has `is_decoder: false`, too
        (BartConfig(), False),
    ],
)
def test_a_config_says_whether_tokens_see_later_ones(config, sees):
    assert sees_later_tokens(config) == sees


def test_a_mixture_that_is_trained_computes_no_loss_of_its_routers():
    config = MixtralConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        output_router_logits=True,
    )
    model = MixtralForCausalLM(config)
    ids = torch.arange(8)[None]
    assert model(input_ids=ids, labels=ids).aux_loss is not None
    prepare_for_training(model)
    assert model(input_ids=ids, labels=ids).aux_loss is None


def test_a_multimodal_model_has_two_configs():
    inner = SimpleNamespace()
    outer = SimpleNamespace(get_text_config=lambda: inner)
    assert all_configs(SimpleNamespace(config=outer)) == [outer, inner]
    inner.get_text_config = lambda: inner
    assert all_configs(SimpleNamespace(config=inner)) == [inner]


def test_gpt2_has_modules_to_adapt():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, n_positions=8))
    assert "transformer.h.0.attn.c_attn" in linear_modules(model)


def test_an_adapter_in_bfloat16_becomes_float32_and_its_base_stays():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).bfloat16()
    model[0].requires_grad_(False)
    keep_adapter_in_float32(model)
    assert [layer.weight.dtype for layer in model] == [torch.bfloat16, torch.float32]
