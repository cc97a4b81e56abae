"""Claims about the head that the loss is computed with: TRL's fused one, or the model's own."""

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from trl.trainer.utils import add_fused_lm_head

from job.errors import ConfigError
from job.prompt.encode import IGNORED
from job.training.own_head import check_looks_back, is_fused_head_right, use_own_head

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def make(kind: Any, config: Any) -> Any:
    torch.manual_seed(3)
    model = kind(config).eval()
    for name, weight in model.named_parameters():
        if "norm" not in name.lower():
            torch.nn.init.normal_(weight, std=0.3)
    add_fused_lm_head(model, outputs=("log_probs",))
    return model


def bert() -> Any:
    """A model whose head transforms hidden states before it multiplies them."""
    return make(BertLMHeadModel, BertConfig(**SIZES, is_decoder=True, initializer_range=0.3))


def gemma() -> Any:
    """A model with a cap on its logits, which rounds them once more."""
    sizes = {**SIZES, "hidden_size": 64, "num_key_value_heads": 2, "head_dim": 8}
    return make(Gemma2ForCausalLM, Gemma2Config(**sizes, initializer_range=0.3))


def llama() -> Any:
    return make(LlamaForCausalLM, LlamaConfig(**SIZES, initializer_range=0.3))


def test_a_model_whose_tokens_see_later_ones_is_64():
    encoder = make(BertLMHeadModel, BertConfig(**SIZES, is_decoder=False))
    with pytest.raises(ConfigError, match=r"^model\.base: .*tokens see those that come after them"):
        check_looks_back(encoder, 32, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_looks_back_alone_may_be_trained(dtype):
    for make_model in (bert, llama):
        model = make_model().train()
        before = torch.get_rng_state()
        check_looks_back(model.to(dtype), 32, dtype)
        assert model.training
        assert torch.equal(torch.get_rng_state(), before)


def test_a_head_that_multiplies_alone_is_right():
    assert is_fused_head_right(llama(), 32, torch.float32)


def test_a_head_that_does_more_is_not():
    assert not is_fused_head_right(bert(), 32, torch.float32)


@pytest.mark.parametrize(("make_model", "is_right"), [(llama, True), (gemma, True), (bert, False)])
def test_a_head_in_16_bits_may_round(make_model, is_right, as_accelerate_prepares):
    model = as_accelerate_prepares(make_model().to(torch.bfloat16), "bf16")
    assert model(input_ids=torch.tensor([[1]])).logits.dtype == torch.float32
    check_looks_back(model, 32, torch.bfloat16)
    assert is_fused_head_right(model, 32, torch.bfloat16) == is_right


def test_asking_changes_neither_mode_nor_random_state():
    model = bert().train()
    before = torch.get_rng_state()
    is_fused_head_right(model, 32, torch.float32)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make_model", [bert, llama])
def test_the_own_head_gives_the_cross_entropy_of_the_models_logits(make_model):
    model = make_model()
    use_own_head(model)
    assert is_fused_head_right(model, 32, torch.float32)
    ids = torch.randint(32, (2, 9))
    labels = ids.clone()
    labels[:, :4] = IGNORED
    with torch.no_grad():
        found = model(input_ids=ids, labels=labels, fused_lm_head=True)
        logits = model(input_ids=ids).logits[:, 3:-1]
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 4:].flatten())
    assert float(found.loss) == pytest.approx(float(wanted), rel=1e-5)
    assert found.label_mask.sum() == 10
    assert not found.log_probs[~found.label_mask].any()


def test_without_the_fused_head_the_model_computes_as_before():
    model = llama()
    ids = torch.randint(32, (1, 5))
    before = model(input_ids=ids).logits
    use_own_head(model)
    assert torch.equal(model(input_ids=ids).logits, before)
