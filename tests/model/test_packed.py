"""Claims about 4-bit weights that processes share: packed once, as bitsandbytes packs them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from job.config.sections import ModelSection
from job.model import packed
from job.model.families import forbid_repacking
from job.model.fetch import Base
from job.model.load import bitsandbytes_settings, load_base
from job.model.packed import packing_of


def load(folder: Path, shared: Path | None, **section: Any) -> Any:
    base = Base(str(folder), None, "d", folder)
    return load_base(base, ModelSection(base=base.uri, **section), sharded=True, shared=shared)


def tensors_of(model: Any) -> dict[str, Tensor]:
    """Return the bytes of all weights, and of what unpacks those in 4 bits."""
    found = {name: weight.detach() for name, weight in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            assert module.quant_state is module.weight.quant_state, name
            for part, tensor in module.quant_state.as_dict(packed=True).items():
                found[f"{name}.{part}"] = tensor
    return {name: tensor.contiguous().view(torch.uint8) for name, tensor in found.items()}


def check_equal(found: Any, wanted: Any) -> None:
    ours, theirs = tensors_of(found), tensors_of(wanted)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["nf4", "nf4-double"])
def test_what_is_shared_has_the_bytes_of_bitsandbytes(base_folder, tmp_path, quantization, dtype):
    section = {"quantization": quantization, "dtype": dtype}
    wanted = AutoModelForCausalLM.from_pretrained(
        base_folder,
        dtype=getattr(torch, dtype),
        quantization_config=bitsandbytes_settings(ModelSection(base="b", **section), sharded=True),
    )
    forbid_repacking(wanted)
    file = tmp_path / "packed.safetensors"
    first = load(base_folder, file, **section)
    check_equal(first, wanted)
    second = load(base_folder, file, **section)
    mapped = Path("/proc/self/maps").read_text().count(str(file))
    assert mapped >= 2, "both map the file"
    file.unlink()
    check_equal(second, wanted)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(second(input_ids=ids).logits, wanted(input_ids=ids).logits)


def test_the_second_process_packs_nothing(base_folder, tmp_path, monkeypatch):
    file = tmp_path / "packed.safetensors"
    first = load(base_folder, file)
    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", None)
    check_equal(load(base_folder, file), first)


def test_weights_that_gpt2_stores_transposed_are_shared_too(tmp_path):
    sizes = {"n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(vocab_size=96, **sizes)).save_pretrained(tmp_path)
    file = tmp_path / "packed"
    first, second = load(tmp_path, file), load(tmp_path, file)
    check_equal(second, first)
    assert packing_of(None, file).packed.keys() >= {"transformer.h.0.attn.c_attn.weight"}


def test_without_room_on_the_disk_each_process_packs(base_folder, tmp_path, monkeypatch, caplog):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(packed.shutil, "disk_usage", lambda _: usage)
    file = tmp_path / "packed"
    check_equal(load(base_folder, file), load(base_folder, None))
    assert not file.exists()
    assert "no room" in caplog.text


def test_a_base_without_4_bit_weights_is_not_written(base_folder, tmp_path):
    file = tmp_path / "packed"
    model = load(base_folder, file, quantization=None)
    assert next(model.parameters()).is_floating_point()
    assert not file.exists()
