"""Claims about loading: a base that does not fit its config, code of a base, adapters on it."""

import json
import sys
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
)

from job.config.sections import AdapterModelSection, ModelSection
from job.config.training_sections import LoraSection
from job.errors import ConfigError, DataError
from job.model.adapter import lora_config, save_adapter, target_modules
from job.model.attach import attach_adapter
from job.model.fetch import Adapter, Base, name_base_of
from job.model.load import load_base, load_tokenizer
from job.storage.folders import Manifest
from job.storage.local import LocalStore


def test_revision_other_than_the_recorded_one_is_64():
    recorded = {"uri": "org/base", "revision": "a" * 40, "digest": "d"}
    adapter = Adapter("runs/adapter", LocalStore("runs/adapter"), Manifest({}, {"base": recorded}))
    same = AdapterModelSection(revision="a" * 40)
    assert name_base_of(adapter, same) == ("org/base", "a" * 40)
    message = r"^model\.revision: runs/adapter is an adapter for org/base at revision aaa"
    with pytest.raises(ConfigError, match=message):
        name_base_of(adapter, AdapterModelSection(revision="b" * 40))


def test_weights_that_stay_plain_are_loaded_without_bitsandbytes(base_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "job.model.four_bit", None)
    base = Base("base", None, "digest", base_folder)
    model = load_base(base, AdapterModelSection())
    assert model.weights_in_memory.quantization == "none"
    with pytest.raises(ConfigError, match="four_bit"):
        load_base(base, AdapterModelSection(quantization="nf4"))


LAYER = (
    "model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, "
    "model.layers.2.mlp.gate_proj.weight"
)


@pytest.mark.parametrize(
    ("change", "quantization", "unfit", "first"),
    [
        ({"num_hidden_layers": 3}, None, 9, LAYER),
        ({"num_hidden_layers": 3}, "nf4-double", 9, LAYER),
        ({"vocab_size": 300}, None, 2, "lm_head.weight, model.embed_tokens.weight"),
        ({"vocab_size": 300}, "nf4-double", 2, "lm_head.weight, model.embed_tokens.weight"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_65(copy, change, unfit, first, quantization):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError) as caught:
        load_base(Base(str(copy), None, "d", copy), AdapterModelSection(quantization=quantization))
    assert str(caught.value) == (
        f"model.base: the weights of {copy} do not fit its config.json: {unfit} tensors are not "
        f"there, or of another shape ({first}); copy or fetch the base again"
    )


@pytest.mark.parametrize("layers", [1, 0, -1])
def test_weights_of_layers_that_the_config_does_not_name_are_65(copy, layers):
    config = json.loads((copy / "config.json").read_text()) | {"num_hidden_layers": layers}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"more layers than its config\.json names"):
        load_base(Base(str(copy), None, "d", copy), AdapterModelSection())


def test_further_tensors_of_a_layer_that_is_there_are_no_further_layer(copy, caplog):
    path = copy / "model.safetensors"
    further = {"model.layers.0.self_attn.k_norm.weight": torch.ones(16)}
    save_file(load_file(path) | further, path, {"format": "pt"})
    load_base(Base(str(copy), None, "d", copy), AdapterModelSection())
    assert "k_norm" in caplog.text


@pytest.mark.parametrize("quantization", [None, "nf4-double"])
def test_weights_of_another_shape_are_65_in_4_bits_too(copy, quantization):
    config = json.loads((copy / "config.json").read_text()) | {"num_key_value_heads": 2}
    (copy / "config.json").write_text(json.dumps(config))
    section = AdapterModelSection(quantization=quantization)
    with pytest.raises(DataError, match=r"4 tensors .* of another shape \(model.*k_proj"):
        load_base(Base(str(copy), None, "d", copy), section)


ATTENTION = {
    "sdpa": LlamaConfig,
    "eager": GptOssConfig,
}


@pytest.mark.parametrize(("chosen", "config"), ATTENTION.items())
def test_attention_chooses_what_the_model_has(tmp_path, chosen, config):
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    made = config(**sizes, num_attention_heads=2, num_key_value_heads=2, head_dim=16)
    AutoModelForCausalLM.from_config(made).save_pretrained(tmp_path)
    base = Base("org/base", None, "d", tmp_path)
    assert load_base(base, AdapterModelSection()).config._attn_implementation == chosen
    assert load_base(base, AdapterModelSection(attention="eager"))

    if chosen == "eager":
        why = r"^model\.attention: sdpa is not possible with org/base: its model has auto, eager"
        with pytest.raises(ConfigError, match=why):
            load_base(base, AdapterModelSection(attention="sdpa"))


def test_a_multimodal_base_is_its_language_model_with_the_wrappers_names(tmp_path):
    text = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2, "head_dim": 16, "image_size": 28, "patch_size": 14}
    config = Mistral3Config(
        text_config={"model_type": "mistral", **text},
        vision_config={"model_type": "pixtral", **tower},
        image_token_index=95,
    )
    torch.manual_seed(0)
    whole = Mistral3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    model = load_base(Base("org/base", None, "d", tmp_path), AdapterModelSection())
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, whole(input_ids=ids).logits)
    adapted = target_modules(LoraSection(), model)
    assert adapted[0] == "model.language_model.layers.0.self_attn.q_proj"
    assert model.weights_in_memory.auto_class == "AutoModelForMultimodalLM"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        torch.AcceleratorError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:25]}",
)
def test_what_ends_the_quantization_of_a_tensor_is_raised_at_once(base_folder, monkeypatch, error):
    calls = []

    def fail(*_arguments: Any, **_named: Any) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", fail)
    base = Base(str(base_folder), None, "d", base_folder)
    with pytest.raises(type(error)) as caught:
        load_base(base, AdapterModelSection(quantization="nf4"))
    assert caught.value is error
    assert len(calls) == 1


@pytest.mark.parametrize("quantization", [None, "nf4-double"])
def test_tied_weights_are_whole_without_a_copy(tmp_path, quantization):
    config = LlamaConfig(
        vocab_size=32,
        tie_word_embeddings=True,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    section = AdapterModelSection(quantization=quantization)
    model = load_base(Base("tied", None, "d", tmp_path), section)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_code_of_the_base_runs_only_when_allowed(copy):
    config = json.loads((copy / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "own.Mine", "AutoModelForCausalLM": "own.MineModel"},
    }
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class Mine(LlamaConfig):\n    model_type = 'mine'\n\n\n"
        "class MineModel(LlamaForCausalLM):\n    config_class = Mine\n"
    )
    base = Base("org/base", "a" * 40, "d", copy)
    with pytest.raises(ConfigError, match="trust_remote_code"):
        load_base(base, AdapterModelSection())
    allowed = AdapterModelSection(trust_remote_code=True, revision="a" * 40)
    assert type(load_base(base, allowed)).__name__ == "MineModel"


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_every_variant_learns_in_4_bit_and_is_loaded_as_saved(base_folder, tmp_path, variant):
    base = Base(str(base_folder), None, "d", base_folder)
    section = ModelSection(base=base.uri)
    loaded = load_base(base, section)
    model = get_peft_model(loaded, lora_config(LoraSection(variant=variant), loaded))
    ids = torch.arange(40, 60).unsqueeze(0)  # (1, tokens)
    losses = train(model, ids)
    assert losses[0] > losses[1] > losses[2]

    save_adapter(model, load_tokenizer(base_folder), base, tmp_path)
    again = attach_adapter(load_base(base, section), tmp_path)
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, again(input_ids=ids).logits)
    adapted = next(module for module in again.modules() if hasattr(module, "lora_A"))
    scale = 32 / 16**0.5 if variant == "rslora" else 32 / 16
    assert adapted.scaling["default"] == scale


def train(model: Any, ids: torch.Tensor) -> list[float]:
    """Take three steps, and return their losses."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_a_saved_adapter_names_its_base_by_id_and_has_no_card(base_folder, tmp_path):
    base = Base("hf://org/base", "a" * 40, "d", base_folder)
    loaded = load_base(base, AdapterModelSection())
    model = get_peft_model(loaded, lora_config(LoraSection(), loaded))
    save_adapter(model, load_tokenizer(base_folder), base, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "a" * 40)
    assert not (tmp_path / "README.md").exists()


def test_the_same_adapter_is_saved_as_the_same_bytes_by_any_process(base_folder, tmp_path):
    base = Base(str(base_folder), None, "d", base_folder)
    loaded = load_base(base, AdapterModelSection())
    # A set of strings has another order in each process: any order must end in the same file.
    targets = ["q_proj", "o_proj", "v_proj", "up_proj"]
    model = get_peft_model(loaded, lora_config(LoraSection(target_modules=targets), loaded))
    written = []
    for order in (targets, targets[::-1]):
        model.peft_config["default"].target_modules = order
        save_adapter(model, load_tokenizer(base_folder), base, tmp_path)
        written.append((tmp_path / "adapter_config.json").read_bytes())
    assert written[0] == written[1]
