"""Claims about 4-bit weights where transformers leaves 16 bits: experts, and linear subclasses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from bitsandbytes.nn.parametrize import Bnb4bitParametrization
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GptOssConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from job.config.sections import ModelSection
from job.config.training_sections import LoraSection
from job.model.adapter import target_modules
from job.model.families import forbid_repacking
from job.model.fetch import Base
from job.model.four_bit import make_plain_linears
from job.model.load import load_base
from job.model.modules import experts
from job.model.quantization import four_bit_share
from job.model.skeleton import make_skeleton
from tests.quantized import make_bitsandbytes

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
EXPERTS = {"num_experts_per_tok": 2, "num_key_value_heads": 2, "head_dim": 16}
CONFIGS = {
    "qwen3_moe": Qwen3MoeConfig(**SIZES, **EXPERTS, num_experts=4, moe_intermediate_size=32),
    "gpt_oss": GptOssConfig(**SIZES, **EXPERTS, num_local_experts=4, intermediate_size=32),
    # It has a gate with a single output.
    "qwen2_moe": Qwen2MoeConfig(
        **SIZES,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        num_key_value_heads=2,
    ),
    # A linear class of its own, and no other.
    "falcon": FalconConfig(**SIZES),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def folder(request, tmp_path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(request.param).save_pretrained(tmp_path)
    return tmp_path


def load(folder: Path) -> Any:
    section = ModelSection(base=str(folder))
    return load_base(Base(section.base, None, "d", folder), section)


def test_experts_in_4_bits_give_the_results_and_gradients_of_their_values(folder):
    packed = load(folder).eval()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, module in packed.named_modules():
        if isinstance(module, Linear4bit):
            weight = plain.get_submodule(name).weight
            weight.data = dequantize_4bit(module.weight.data, module.weight.quant_state)
        for parameter, parametrized in getattr(module, "parametrizations", {}).items():
            assert isinstance(parametrized[0], Bnb4bitParametrization)
            plain.get_parameter(f"{name}.{parameter}").data = getattr(module, parameter)

    assert four_bit_share(packed).of_linear > 0.95
    for result, wanted in zip(outputs(packed), outputs(plain), strict=True):
        assert torch.equal(result, wanted)


@pytest.mark.parametrize("sharded", [True, False])
def test_most_weights_not_in_4_bits_are_a_warning(tmp_path, caplog, sharded):
    AutoModelForCausalLM.from_config(CONFIGS["qwen3_moe"]).save_pretrained(tmp_path)
    section = ModelSection(base=str(tmp_path))
    load_base(Base(section.base, None, "d", tmp_path), section, sharded=sharded)
    assert ("most weights of the base are not in 4 bits" in caplog.text) == sharded


def test_a_mixture_saved_in_4_bits_is_read_as_transformers_saved_it(tmp_path):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS["qwen2_moe"]).save_pretrained(tmp_path / "plain")
    make_bitsandbytes(tmp_path / "plain", tmp_path / "base", load_in_4bit=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    forbid_repacking(plain)
    for result, wanted in zip(outputs(load(tmp_path / "base")), outputs(plain), strict=True):
        assert torch.equal(result, wanted)


def outputs(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits, and the gradient of one of their sums."""
    ids = torch.arange(40, 60).unsqueeze(0)  # (1, tokens)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits
    logits.log_softmax(-1)[..., 7].sum().backward()
    return logits.detach(), embedded.grad


def test_a_skeleton_has_its_experts_in_4_bits_too(folder):
    skeleton = make_skeleton(folder, ModelSection(base=str(folder)))
    loaded = load(folder)
    assert four_bit_share(skeleton) == four_bit_share(loaded)
    names = [name for name, _ in loaded.named_modules()]
    assert [name for name, _ in skeleton.named_modules()] == names
    plain = AutoModelForCausalLM.from_pretrained(folder)
    for model in (skeleton, loaded):
        assert set(experts(model)) == set(experts(plain))
        assert target_modules(LoraSection(), model) == target_modules(LoraSection(), plain)


def test_attention_of_torch_and_routers_keep_their_class():
    class Router(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(inputs).topk(1)

    model = nn.ModuleList([nn.MultiheadAttention(4, 1), Router(4, 4)])
    before = [type(module) for module in model.modules()]
    make_plain_linears(model)
    assert [type(module) for module in model.modules()] == before
