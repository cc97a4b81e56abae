"""Claims about the operations of a base, against those that torch counts in a real step."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MixtralConfig
from trl.trainer.utils import add_fused_lm_head

from job.config.sections import ModelSection
from job.model.operations import Products, TokenRows, products_of
from job.model.skeleton import make_skeleton
from job.training.shortcuts import project_learned_tokens_only

ROWS = TokenRows({50: 2}, learned=20)
SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_implementation": "eager",  # torch does not count the kernel of CPUs
}


def make(config: Any) -> Any:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config)


def labelled() -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 320, (2, 50))
    labels = ids.clone()
    labels[:, :40] = -100
    return {"input_ids": ids, "labels": labels}


def count_step(model: Any) -> float:
    """Return the operations of a forward and a backward pass as a training makes them."""
    with FlopCounterMode(display=False) as counter:
        output = model(**labelled(), use_cache=False, fused_lm_head=True)
        output.log_probs.sum().backward()
    return float(counter.get_total_flops())


@pytest.mark.parametrize(("recomputes", "share"), [(False, 0.0), (True, 1.0)])
def test_a_training_step_costs_what_torch_counts(recomputes, share):
    model = make(LlamaConfig(num_hidden_layers=8, **SIZES))
    products = products_of(model)
    project_learned_tokens_only()
    add_fused_lm_head(model, outputs=("log_probs",))
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    adapter = sum(each.numel() for each in tuned.parameters() if each.requires_grad)
    if recomputes:
        tuned.gradient_checkpointing_enable()
        tuned.enable_input_require_grads()
    predicted = products.training(ROWS, adapter, share)
    assert predicted == pytest.approx(count_step(tuned.train()), rel=0.01)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(num_hidden_layers=2, **SIZES),
        MixtralConfig(
            num_hidden_layers=2, num_local_experts=4, experts_implementation="eager", **SIZES
        ),
    ],
)
def test_a_pass_costs_exactly_what_torch_counts(config):
    model = make(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=labelled()["input_ids"], use_cache=False)
    products = products_of(model)
    routers = 2 * 2 * 32 * getattr(config, "num_local_experts", 0)
    head = 2 * products.head * ROWS.tokens
    assert counter.get_total_flops() == products.forward(ROWS) + head + routers * ROWS.tokens


def test_a_window_limits_the_pairs_of_tokens():
    layers = {"num_hidden_layers": 3, "head_dim": 8, "sliding_window": 16}
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    model = make(Gemma3TextConfig(layer_types=kinds, **layers, **SIZES))
    products = products_of(model)
    assert products.attention == {16: 2 * 4 * 16, None: 4 * 16}
    rows = TokenRows({10: 3, 100: 1}, learned=0)
    assert rows.pairs(16) == 3 * 100 + 100 * 16
    assert rows.pairs(None) == 3 * 100 + 100 * 100


def test_weights_in_4_bits_count_as_those_that_they_were_made_of(tmp_path):
    config = LlamaConfig(num_hidden_layers=2, **SIZES | {"attn_implementation": "sdpa"})
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    found: list[Products] = []
    for quantization in (None, "nf4-double"):
        section = ModelSection(base=str(tmp_path), quantization=quantization, dtype="float32")
        found.append(products_of(make_skeleton(tmp_path, section)))
    assert found[0] == found[1]
    assert found[0].layers == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
