"""Claims about what a plan asks of a base by its small files, wherever the base is."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
from peft import get_peft_model

from job.config.commands import SummarizeConfig, TrainConfig
from job.config.sections import ModelSection, PromptSection, StorageSection
from job.errors import ConfigError, ExitCode
from job.inference.open import fetch_without_adapter, load
from job.model.quantization import FourBitShare
from job.model.skeleton import make_skeleton
from job.preflight.checks import Plan
from job.preflight.models import LOADING, advice_against_sharding
from job.preflight.plan import plan
from job.storage.open import open_store
from job.telemetry import LOGGER
from tests.preflight.bad_configs import change_json
from tests.training.conftest import records, write_jsonl

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 8}


@pytest.fixture
def base(base_folder: Path, tmp_path: Path) -> Path:
    """A base of the test's own."""
    return Path(shutil.copytree(base_folder, tmp_path / "base"))


@pytest.fixture
def training(tmp_path: Path, places: Path) -> Any:
    def make(base: Path | str, **keys: Any) -> Plan:
        data = {"train": str(write_jsonl(tmp_path / "train.jsonl", records(12)))}
        content = {"run": "r", "data": data, "output": f"{tmp_path}/runs"}
        model = {"base": str(base)} | keys.pop("model", {})
        return plan(TrainConfig.model_validate(content | {"model": model} | keys))

    return make


@pytest.fixture
def night(base: Path, tmp_path: Path) -> SummarizeConfig:
    """A night of the base without an adapter."""
    write_jsonl(tmp_path / "in.jsonl", records(1))
    content = {"run": "n", "input": f"{tmp_path}/in.jsonl", "output": f"{tmp_path}/out.jsonl"}
    return SummarizeConfig.model_validate(content | {"model": {"base": str(base)}})


def make_mixture(base: Path) -> None:
    """Replace config and weights of a base by those of a mixture of experts."""
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    config = Qwen3MoeConfig(
        **SIZES,
        vocab_size=320,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        num_key_value_heads=2,
        eos_token_id=1,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(base)


def resize(base: Path, tokens: int) -> None:
    """Leave the base embeddings of the first tokens only."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(tokens)
    model.save_pretrained(base)


def line_of(found: Plan, name: str) -> str:
    (line,) = [each.found for each in found.checks if each.name == name]
    return line


def test_a_plan_says_what_is_trained_and_what_is_in_4_bits(training, base):
    found = training(base, lora={"r": 4, "alpha": 8})
    assert found.error is None
    assert line_of(found, "model") == (
        "llama, attention sdpa, context of 512 tokens\n"
        "4 bits: 81,920 of 123,200 parameters (66%): embeddings stay in 16 bits\n"
        "adapter: 8,704 parameters in 14 modules"
    )
    assert line_of(found, "prompt").endswith("⟨conversation⟩\\n\\n### Response:\\n")


def test_a_plan_advises_against_sharding_what_one_gpu_holds(training, base):
    sharded = {"distribution": "fsdp"}
    assert "one GPU of 80 GB holds these weights" in line_of(
        training(base, training=sharded), "model"
    )
    assert "80 GB" not in line_of(training(base), "model")
    # Llama 3.3 70B with its embeddings in 16 bits, and the same without 4 bits.
    llama = FourBitShare(68_451_041_280, 70_553_706_496, 2_101_346_304)
    (advice,) = advice_against_sharding(llama)
    assert "(about 43 GB)" in advice
    assert not advice_against_sharding(replace(llama, four_bit=0))


def test_a_plan_allocates_no_adapter(training, base, monkeypatch):
    made = []

    def remember(*arguments: Any, **named: Any) -> Any:
        made.append(get_peft_model(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(peft, "get_peft_model", remember)
    training(base)
    (model,) = made
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_base_in_s3_is_asked_the_same(training, base, s3):
    shown = line_of(training(base), "model")
    store = open_store(s3.uri, StorageSection())
    for path in base.iterdir():
        store.write(f"base/{path.name}", path.read_bytes())
    found = training(f"{s3.uri}/base")
    assert line_of(found, "model") == shown
    assert " rows, " in line_of(found, "rows")


def test_a_mixture_of_experts_trains_with_the_default_config(training, base):
    make_mixture(base)
    found = training(base)
    assert found.error is None
    assert "in 4 modules" in line_of(found, "model")


def test_a_target_that_would_break_is_found_by_the_plan_with_its_key(training, base):
    make_mixture(base)
    found = training(base, lora={"target_modules": ["q_proj", "gate_up_proj"]})
    assert found.error is not None
    assert found.error.exit_code == ExitCode.CONFIG
    assert str(found.error).startswith("lora.target_modules: 'gate_up_proj' cannot have an adapter")


def test_tokens_beyond_the_embedding_are_found_by_the_plan(training, night, base, tmp_path):
    resize(base, 200)
    found = training(base)
    assert found.error is not None
    assert "embeddings of 200 tokens only" in str(found.error)
    assert str(plan(night).error) == str(found.error)
    fetched = fetch_without_adapter(night.model, PromptSection(), night.storage, tmp_path)
    with pytest.raises(ConfigError) as ended:
        load(fetched, night.model)
    assert str(ended.value) == str(found.error)


def test_only_a_training_needs_an_embedding_of_the_end_token(training, night, base, tmp_path):
    """A base that generates writes no end token of its tokenizer, and reads none."""
    change_json(base / "tokenizer_config.json", eos_token="<end>")
    assert "ends a text with token 320 ('<end>')" in str(training(base).error)
    assert plan(night).error is None
    load(fetch_without_adapter(night.model, PromptSection(), night.storage, tmp_path), night.model)


def test_a_plan_says_that_it_takes_seconds_before_it_does(
    training, base, tmp_path, monkeypatch, caplog
):
    LOGGER.propagate = True
    caplog.set_level("INFO", LOGGER.name)
    said: list[str] = []

    def describe_base(*_: Any) -> str:
        said[:] = [record.message for record in caplog.records]
        return "a base"

    for module in ("training", "models"):
        monkeypatch.setattr(f"job.preflight.{module}.describe_base", describe_base)
    training(base)
    assert LOADING in said

    caplog.clear()
    write_jsonl(tmp_path / "in.jsonl", records(1))
    night = {"run": "n", "input": f"{tmp_path}/in.jsonl", "output": f"{tmp_path}/out.jsonl"}
    plan(SummarizeConfig.model_validate(night | {"model": {"base": str(base)}}))
    assert LOADING in said


def test_code_of_a_base_is_not_run_for_a_plan(training, base, monkeypatch):
    monkeypatch.setattr("job.preflight.models.NOT_ASKED", "not run")
    monkeypatch.setattr("job.preflight.training.describe_base", lambda *_: "a base")
    pinned = {"trust_remote_code": True, "revision": "a" * 40}
    assert line_of(training("org/base", model=pinned), "model") == "not run"


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3"])
def test_attention_that_only_a_gpu_has_is_not_refused_elsewhere(training, base, attention):
    """A plan is made on a laptop; on a machine with a GPU it asks for the attention's package."""
    found = training(base, model={"attention": attention})
    assert found.error is None
    assert f"not asked: {attention}, which needs a GPU" in line_of(found, "model")
    section = ModelSection(base=str(base), attention=attention)
    with pytest.raises(ConfigError, match=r"^model\.attention: flash_attention_. needs a package"):
        make_skeleton(base, section)


def test_a_plan_warns_of_serving_that_no_machine_can_do(training, base):
    """The training would end without scores, after all its hours."""
    found = training(base, serve={"engine": "vllm", "tensor_parallel": 3})
    assert found.error is None
    said = line_of(found, "serving")
    assert "warning: this training publishes no scores: the 4 attention heads" in said
    assert "set tensor_parallel to one of 1, 2, 4 (keys of serve)" in said
    assert "this training" not in line_of(training(base, serve={"engine": "vllm"}), "serving")
