"""A base that is broken, incomplete or another one is told by its file, with a remedy, and never as a bug."""

import json
import shutil
from pathlib import Path

import pytest

from job.config.sections import AdapterModelSection, ModelSection, StorageSection
from job.config.training_sections import LoraSection
from job.errors import ConfigError, DataError, MissingError, RecapError
from job.model.adapter import lora_config, save_adapter
from job.model.fetch import Adapter, Base, fetch_base, name_base_of
from job.model.load import attach_adapter, load_base, load_tokenizer
from job.preflight.checks import base_is_there
from job.storage.folders import Manifest
from job.storage.local import LocalStore

NOTHING = StorageSection()
WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(base_folder: Path, tmp_path: Path) -> Path:
    """A base of the test's own, to break."""
    return Path(shutil.copytree(base_folder, tmp_path / "base"))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def said_by(question) -> RecapError:
    with pytest.raises(RecapError) as caught:
        question()
    return caught.value


def test_a_config_that_is_no_json_is_65_by_plan_and_by_run(copy):
    (copy / "config.json").write_text("{bad")
    for question in (
        lambda: base_is_there(str(copy), None, NOTHING),
        lambda: fetch_base(str(copy), None, NOTHING, copy),
    ):
        error = said_by(question)
        assert type(error) is DataError
        assert str(error) == (
            f"model.base: {copy}/config.json is no JSON (Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)); copy or fetch it again"
        )


@pytest.mark.parametrize("size", [0, 5, 100, -4])
def test_weights_that_are_cut_short_are_65_by_plan_and_by_run(copy, size):
    whole = (copy / WEIGHTS).stat().st_size
    cut(copy / WEIGHTS, size % whole if size < 0 else size)
    messages = {
        str(said_by(lambda: base_is_there(str(copy), None, NOTHING))),
        str(said_by(lambda: fetch_base(str(copy), None, NOTHING, copy))),
    }
    wanted = (
        f"has {whole - 4:,} bytes, its header says {whole:,}"
        if size < 0
        else f"is no safetensors file, or cut short within its header ({size} bytes)"
    )
    assert messages == {f"model.base: {copy}/{WEIGHTS} {wanted}; copy or fetch it again"}


def test_a_shard_that_the_index_names_and_nobody_has_is_66(copy):
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": WEIGHTS, "b": "second"}})
    )
    error = said_by(lambda: base_is_there(str(copy), None, NOTHING))
    assert type(error) is MissingError
    assert str(error) == (
        f"model.base: {copy} lacks second, which model.safetensors.index.json names; copy or fetch it again"
    )


def test_a_base_in_s3_is_looked_into_as_one_here(copy, s3):
    client = s3.client()
    cut(copy / WEIGHTS, 1000)
    for file in copy.iterdir():
        client.upload_file(str(file), s3.bucket, f"base/{file.name}")
    error = said_by(lambda: base_is_there(f"{s3.uri}/base", None, NOTHING))
    assert str(error).startswith(
        f"model.base: {s3.uri}/base/{WEIGHTS} is no safetensors file, or cut short within"
    )


def test_a_base_without_tokenizer_is_66_unless_an_adapter_brings_one(copy):
    from job.config.sections import PromptSection

    for file in copy.glob("tokenizer*"):
        file.unlink()
    wanted = (
        f"model.base: {copy} has no tokenizer (tokenizer.json or tokenizer.model); "
        "put the tokenizer's files there with tokenizer.save_pretrained(...)"
    )
    for question in (
        lambda: base_is_there(str(copy), None, NOTHING, PromptSection()),
        lambda: load_tokenizer(copy),
    ):
        error = said_by(question)
        assert (type(error), str(error)) == (MissingError, wanted)
    assert "1 weight file" in base_is_there(str(copy), None, NOTHING)


@pytest.mark.parametrize("broken", ["{bad", "{}", '{"model": {"type": "Nothing"}}'])
def test_a_broken_tokenizer_is_65_with_its_files(copy, broken):
    (copy / "tokenizer.json").write_text(broken)
    error = said_by(lambda: load_tokenizer(copy))
    assert type(error) is DataError
    assert str(error).startswith(f"{copy}: its tokenizer cannot be loaded (")
    assert str(error).endswith(
        "copy or fetch its files again (tokenizer.json, tokenizer_config.json)"
    )


def test_chat_style_on_a_base_without_template_is_64_at_plan_time(copy):
    from job.config.sections import PromptSection

    chat = PromptSection(style="chat")
    error = said_by(lambda: base_is_there(str(copy), None, NOTHING, chat))
    assert type(error) is ConfigError
    assert str(error) == (
        f"prompt.style is chat, but the tokenizer of model.base {copy} has no chat template: "
        "use an instruct model, or prompt.style: instruction"
    )
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert "1 weight file" in base_is_there(str(copy), None, NOTHING, chat)


def test_a_revision_of_what_has_none_is_64(copy):
    for uri, kind in ((str(copy), "a folder here"), ("s3://bucket/base", "an s3:// prefix")):
        for question in (
            lambda uri=uri: base_is_there(uri, "main", NOTHING),
            lambda uri=uri: fetch_base(uri, "main", NOTHING, copy),
        ):
            error = said_by(question)
            assert type(error) is ConfigError
            assert str(error).startswith(
                f"model.revision: {uri} is {kind}, and only a Hub id has revisions; remove it"
            )


def test_a_revision_other_than_the_adapters_is_64():
    recorded = {"uri": "org/base", "revision": "a" * 40, "digest": "d"}
    adapter = Adapter("runs/adapter", LocalStore("runs/adapter"), Manifest({}, {"base": recorded}))
    assert name_base_of(adapter, AdapterModelSection(revision="a" * 40)) == (
        "org/base",
        "a" * 40,
    )
    with pytest.raises(
        ConfigError,
        match=r"^model\.revision: runs/adapter is an adapter for org/base at revision aaa",
    ):
        name_base_of(adapter, AdapterModelSection(revision="b" * 40))


def test_targets_that_the_base_lacks_are_64_with_those_it_has(base_folder):
    base = Base(str(base_folder), None, "d", base_folder)
    model = load_base(base, AdapterModelSection())
    for names in (["x"], ["q_proj", "x"], ["mlp", "x"]):
        with pytest.raises(ConfigError) as caught:
            lora_config(LoraSection(target_modules=names), base, model)
        wrong = "mlp" if names[0] == "mlp" else "x"
        assert str(caught.value) == (
            f"lora.target_modules: the base has no linear module '{wrong}'; it has down_proj, gate_proj, k_proj, "
            "lm_head, o_proj, q_proj, up_proj, v_proj; name some of those, or all-linear"
        )
    assert lora_config(
        LoraSection(target_modules=["q_proj", "self_attn.v_proj"]), base, model
    ).target_modules == {
        "q_proj",
        "self_attn.v_proj",
    }


LAYER = "model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight, model.layers.2.mlp.gate_proj.weight"


@pytest.mark.parametrize(
    ("change", "quantization", "unfit", "first"),
    [
        ({"num_hidden_layers": 3}, None, 9, LAYER),
        ({"num_hidden_layers": 3}, "nf4-double", 9, LAYER),
        # With quantization a tensor keeps the shape that it has on disk, whatever the config says.
        ({"vocab_size": 300}, None, 2, "lm_head.weight, model.embed_tokens.weight"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_65(copy, change, unfit, first, quantization):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError) as caught:
        load_base(Base(str(copy), None, "d", copy), AdapterModelSection(quantization=quantization))
    assert str(caught.value) == (
        f"model.base: the weights of {copy} do not fit its config.json: {unfit} tensors are not there, or of another "
        f"shape ({first}); copy or fetch the base again"
    )


@pytest.mark.parametrize("quantization", [None, "nf4-double"])
def test_tied_weights_need_not_stand_twice(tmp_path, quantization):
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=32, tie_word_embeddings=True, **small)).save_pretrained(
        tmp_path
    )
    model = load_base(
        Base("tied", None, "d", tmp_path), AdapterModelSection(quantization=quantization)
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_code_of_the_base_runs_for_an_adapter_only_when_allowed(copy):
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
def test_every_variant_learns_on_a_4_bit_base_and_comes_back_from_its_folder(
    base_folder, tmp_path, variant
):
    import torch
    from peft import get_peft_model

    base = Base(str(base_folder), None, "d", base_folder)
    section = ModelSection(base=base.uri)
    model = get_peft_model(
        loaded := load_base(base, section), lora_config(LoraSection(variant=variant), base, loaded)
    )
    ids = torch.arange(40, 60).unsqueeze(0)  # (1, tokens)
    optimizer = torch.optim.AdamW(
        (each for each in model.parameters() if each.requires_grad), lr=0.01
    )
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    save_adapter(model, load_tokenizer(base_folder), base, tmp_path)
    again = attach_adapter(load_base(base, section), tmp_path)
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, again(input_ids=ids).logits)
    scale = next(module for module in again.modules() if hasattr(module, "lora_A")).scaling[
        "default"
    ]
    assert scale == (32 / 16**0.5 if variant == "rslora" else 32 / 16)
