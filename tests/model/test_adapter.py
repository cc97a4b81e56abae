"""Claims about the modules that get an adapter, each with the smallest model of its kind.

The models are on torch's meta device: they have modules and no weights.
"""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from job.config.training_sections import LoraSection
from job.errors import ConfigError
from job.model.adapter import lora_config

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = {
    "kv_lora_rank": 4,
    "q_lora_rank": 4,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
    "n_group": 1,
    "topk_group": 1,
}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}

# By model type: its sizes, and the ends of the names of its modules that get an adapter.
MIXTURES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "qwen3_moe": ({**SIZES, **EXPERTS, "num_experts": 4}, ATTENTION),
    "mixtral": ({**SIZES, **EXPERTS, "num_local_experts": 4}, ATTENTION),
    # Its first layer is dense, and peft takes the names of that layer for those of the experts.
    "deepseek_v3": (
        {**SIZES, **EXPERTS, **LATENT, "n_routed_experts": 4, "first_k_dense_replace": 1},
        {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
    ),
    "gpt_oss": ({**SIZES, **EXPERTS, "num_local_experts": 4}, ATTENTION),
    # Their routers are linear modules. Step sizes (dt_proj) get no adapter either.
    "llama4_text": (
        {**SIZES, "intermediate_size_mlp": 32, "num_local_experts": 4},
        {*ATTENTION, "gate_proj", "up_proj", "down_proj"},
    ),
    "jamba": (
        {
            **SIZES,
            "num_experts": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "use_mamba_kernels": False,
        },
        {*ATTENTION, "gate_proj", "up_proj", "down_proj"} | {"in_proj", "x_proj", "out_proj"},
    ),
}


def make(kind: str, **sizes: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**sizes))


def adapted(model: Any, targets: Any = "all-linear") -> list[str]:
    """Attach an adapter with dropout, and return the names of its modules."""
    config = lora_config(LoraSection(target_modules=targets, dropout=0.05), model)
    tuned = get_peft_model(model, config)
    assert not tuned.peft_config["default"].target_parameters
    return list(tuned.base_model.targeted_module_names)


def ends(names: list[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("llama", SIZES),
        ("llama", {**SIZES, "num_hidden_layers": 4}),  # peft writes whole names or short ones
        ("gpt2", {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 4}),
    ],
)
def test_of_a_dense_base_all_linear_is_what_peft_calls_so(kind, sizes):
    ours = get_peft_model(make(kind, **sizes), lora_config(LoraSection(), make(kind, **sizes)))
    theirs = get_peft_model(make(kind, **sizes), LoraConfig(target_modules="all-linear"))
    of_ours, of_theirs = ours.peft_config["default"], theirs.peft_config["default"]
    assert sorted(of_ours.target_modules) == sorted(of_theirs.target_modules)
    assert of_ours.target_parameters is None


@pytest.mark.parametrize("kind", MIXTURES)
def test_experts_and_routers_get_no_adapter(kind):
    sizes, wanted = MIXTURES[kind]
    assert ends(adapted(make(kind, **sizes))) == wanted


def test_names_of_experts_are_refused_with_the_key():
    model = make("qwen3_moe", **MIXTURES["qwen3_moe"][0])
    for name in ("gate_proj", "down_proj", "gate_up_proj", "experts"):
        with pytest.raises(ConfigError, match=f"^lora.target_modules: '{name}' cannot have an ad"):
            lora_config(LoraSection(target_modules=["q_proj", name]), model)
    with pytest.raises(ConfigError, match=r"'gate' .*it has k_proj, o_proj, q_proj, v_proj; name"):
        lora_config(LoraSection(target_modules=["gate"]), model)


def test_modules_that_peft_refuses_in_a_state_space_layer_get_no_adapter():
    model = make(
        "falcon_h1",
        **SIZES,
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=4,
    )
    with pytest.raises(ConfigError, match=r"^lora.target_modules: 'out_proj' .*state-space"):
        lora_config(LoraSection(target_modules=["q_proj", "out_proj"]), model)
    found = ends(adapted(model))
    assert {*ATTENTION, "in_proj"} <= found
    assert "out_proj" not in found


class Halves(torch.nn.Linear):
    """Multiplies each half of the features by the same weight."""

    def __init__(self, half: int, out_features: int) -> None:
        super().__init__(half, out_features, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.unflatten(-1, (2, -1))).flatten(-2)


class Same(torch.nn.Linear):
    """Computes what Linear does, under another name."""


def test_a_linear_layer_of_another_kind_gets_no_adapter(monkeypatch):
    for kind in (Halves, Same):
        monkeypatch.setattr(kind, "__module__", "transformers.models.x.modeling_x")
    model = make("llama", **SIZES)
    with torch.device("meta"):
        model.model.layers[0].self_attn.o_proj = Halves(8, 8)
        model.model.layers[1].self_attn.o_proj = Same(16, 16)
    names = adapted(model)
    assert "model.layers.0.self_attn.o_proj" not in names
    assert "model.layers.1.self_attn.o_proj" in names


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_only_the_language_model_of_a_multimodal_base_gets_an_adapter(targets):
    config = CONFIG_MAPPING["gemma3"](
        text_config=SIZES,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        },
    )
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    names = adapted(model, targets)
    assert names
    assert all(name.startswith("model.language_model.") for name in names)


def test_a_target_that_the_base_lacks_is_refused():
    model = make("llama", **SIZES)
    for name in ("query_key_value", "lm_head", "mlp"):
        with pytest.raises(ConfigError, match=f"^lora.target_modules: .*'{name}'.*it has down_pro"):
            lora_config(LoraSection(target_modules=["q_proj", name]), model)
    assert lora_config(LoraSection(target_modules=["q_proj"]), model).target_modules == {"q_proj"}
