"""Claims about the quantization that a base was published with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from job.config.sections import AdapterModelSection
from job.errors import ConfigError, DataError
from job.model.families import forbid_repacking
from job.model.fetch import Base
from job.model.files import INDEX, check_index, check_weights, files_in_folder
from job.model.load import load_base
from job.model.quantization import choose_quantization, four_bit_share, quantization_of
from job.model.skeleton import make_skeleton
from tests.quantized import BLOCK, make_awq, make_bitsandbytes, make_fp8, make_gptq, make_mxfp4


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "bnb-4bit",
        ),
        ({"quantization_config": {"load_in_8bit": True}}, "bnb-8bit"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"group_size": 64, "bits": 4}}, "mlx"),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
    ],
)
def test_a_quantization_has_the_name_that_the_config_gives_it(config, name):
    assert quantization_of(config) == name


@pytest.mark.parametrize("own", ["fp8", {}, {"quant_method": 8}])
def test_a_quantization_without_name_is_65(own):
    with pytest.raises(DataError, match="quantization_config"):
        quantization_of({"quantization_config": own})


def load(folder: Path, **section) -> Any:
    return load_base(Base(str(folder), None, "d", folder), AdapterModelSection(**section))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(40, 60).unsqueeze(0)).logits


def plain_transformers(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
    forbid_repacking(model)
    return model


@pytest.mark.parametrize("section", [{}, {"quantization": "nf4-double"}])
@pytest.mark.parametrize("settings", [{"load_in_4bit": True}, {"load_in_8bit": True}])
def test_a_base_of_bitsandbytes_keeps_its_quantization(base_folder, tmp_path, settings, section):
    folder = make_bitsandbytes(base_folder, tmp_path / "base", **settings)
    model = load(folder, **section)
    assert torch.equal(logits(model), logits(plain_transformers(folder)))
    assert four_bit_share(model).four_bit == (81_920 if "load_in_4bit" in settings else 0)


def test_an_fp8_base_is_read_with_its_scales(base_folder, tmp_path):
    folder = make_fp8(base_folder, tmp_path / "base")
    model = load(folder)
    assert torch.equal(logits(model), logits(plain_transformers(folder)))
    difference = logits(model) - logits(plain_transformers(base_folder))
    assert difference.abs().mean() < 0.3, "FP8 rounds; without scales it would be 2"


def test_fp8_blocks_that_do_not_divide_a_weight_are_64(base_folder, tmp_path):
    folder = make_fp8(base_folder, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["weight_block_size"] = [BLOCK, 48]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"blocks of 48 that do not divide the \d+ of model\.lay"):
        load(folder)


def test_an_mxfp4_base_is_computed_in_the_dtype_of_the_config(base_folder, tmp_path):
    folder = make_mxfp4(base_folder, tmp_path / "base")
    model = load(folder)
    assert torch.equal(logits(model), logits(plain_transformers(folder).float()))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("make", [make_fp8, make_mxfp4])
def test_what_cannot_be_trained_on_is_quantized_to_nf4(base_folder, tmp_path, make):
    folder = make(base_folder, tmp_path / "base")
    share = four_bit_share(load(folder, quantization="nf4"))
    assert share.of_linear > 0.97
    skeleton = make_skeleton(folder, AdapterModelSection(quantization="nf4"))
    assert four_bit_share(skeleton) == share


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (make_gptq, r"\(gptq\), and reading it needs optimum and gptqmodel, not installed"),
        (make_awq, r"\(awq\), and reading it needs gptqmodel, not installed here"),
    ],
)
def test_without_its_package_a_quantization_is_64(base_folder, tmp_path, make, why):
    folder = make(base_folder, tmp_path / "base")
    for ask in (load, lambda folder: make_skeleton(folder, AdapterModelSection())):
        with pytest.raises(ConfigError, match=rf"already quantized {why}.* use the base that"):
            ask(folder)


@pytest.mark.parametrize("own", ["gptq", "awq"])
def test_weights_that_nothing_reads_in_16_bits_are_not_merged(monkeypatch, own):
    monkeypatch.setattr("job.model.quantization.find_spec", lambda name: name)  # all is installed
    config = {"quantization_config": {"quant_method": own}}
    assert choose_quantization(config, "org/base", None).in_memory == own
    with pytest.raises(ConfigError, match=rf"\({own}\).* set adapter_weights: separate"):
        choose_quantization(config, "org/base", None, is_merging=True)


def test_quantized_weights_that_transformers_does_not_find_are_64(base_folder, tmp_path):
    folder = make_fp8(base_folder, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"\(fp8\) in a way that transformers does not read: 1 t"):
        load(folder)


def test_a_quantized_base_is_not_sharded(base_folder, tmp_path):
    folder = make_bitsandbytes(base_folder, tmp_path / "base", load_in_4bit=True)
    base = Base(str(folder), None, "d", folder)
    with pytest.raises(ConfigError, match=r"^training\.distribution: fsdp cannot shard .*bnb-4bit"):
        load_base(base, AdapterModelSection(), sharded=True)


def test_a_quantization_that_nothing_here_reads_is_64():
    for name in ("modelopt", "mlx"):
        config = {"quantization_config": {"quant_method": name}}
        with pytest.raises(ConfigError, match=rf"already quantized \({name}\), which recap cannot"):
            choose_quantization(config, "org/base", None)


@pytest.mark.parametrize("make", [make_fp8, make_gptq])
def test_quantized_weights_under_a_plain_config_are_never_read(base_folder, tmp_path, make):
    folder = make(base_folder, tmp_path / "base")
    shutil.copy(base_folder / "config.json", folder)
    with pytest.raises(DataError, match=r"model\.base: .*(of a quantization|do not fit)"):
        load(folder)


@pytest.mark.parametrize("make", [make_fp8, make_gptq, make_mxfp4])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_plan_finds_a_quantization_by_names_alone(base_folder, tmp_path, make, is_indexed):
    folder = make(base_folder, tmp_path / "base")
    described(folder, is_indexed)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"of a quantization that its config\.json does not"):
        described(folder, is_indexed)


@pytest.mark.parametrize("settings", [{"load_in_4bit": True}, {"load_in_8bit": True}])
def test_a_plan_finds_plain_weights_under_a_quantized_config(base_folder, tmp_path, settings):
    folder = make_bitsandbytes(base_folder, tmp_path / "base", **settings)
    described(folder)
    shutil.copy(base_folder / "model.safetensors", folder)
    with pytest.raises(ConfigError, match=r"are plain: remove quantization_config from its config"):
        described(folder)


def described(folder: Path, is_indexed: bool = False) -> list[str]:
    """Check the weights as a plan does, by their headers or by the index alone, as on the Hub."""
    if not is_indexed:
        return check_weights(files_in_folder(folder, str(folder)))
    tensors = load_file(folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "model-1-of-1.safetensors")}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "model-1-of-1.safetensors").touch()
    (folder / "model.safetensors").rename(tmp := folder / "unread")
    try:
        return check_index(files_in_folder(folder, str(folder)))
    finally:
        tmp.rename(folder / "model.safetensors")


def test_tensors_that_the_model_does_not_use_are_a_warning(copy, caplog):
    path = copy / "model.safetensors"
    save_file(load_file(path) | {"vision.weight": torch.ones(2)}, path, {"format": "pt"})
    load(copy)
    assert "vision.weight" in caplog.text
