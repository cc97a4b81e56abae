"""Claims about which models vLLM serves, which go to transformers, and merged adapters."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from job.config.sections import AdapterModelSection
from job.config.serving_section import EngineName
from job.errors import ConfigError, ExitCode
from job.inference.choose import choose
from job.inference.open import FetchedModel, load, merge
from job.inference.serving import ServingWish
from job.inference.transformers_engine import TransformersEngine
from job.inference.vllm_start import AS_MANY_AS_FIT, ENVIRONMENT, tokens_at_most
from tests.vllm.engines import MIN_SAME_SHARE, SECTION, SETTINGS, count_same

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


def wish_of(engine: EngineName, section: AdapterModelSection = SECTION, **keys: Any) -> ServingWish:
    return ServingWish(section, SETTINGS, engine, **keys)


def changed(fetched: FetchedModel, tmp_path: Path, **keys: Any) -> FetchedModel:
    """Return the model with other keys in its adapter's config."""
    assert fetched.adapter is not None
    folder = tmp_path / "adapter"
    shutil.copytree(fetched.adapter, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return replace(fetched, adapter=folder)


def test_vllm_reads_each_variable_that_recap_sets():
    from vllm import envs

    assert ENVIRONMENT.keys() <= envs.environment_variables.keys()


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="a GPU is quick with an adapter beside its base"
)
def test_auto_is_vllm_if_it_serves_the_model_and_is_not_slower(fetched):
    without = replace(fetched, adapter=None)
    assert choose(without, wish_of("auto")) == ("vllm", "it is installed and can serve the model")
    assert choose(fetched, wish_of("vllm")) == ("vllm", "the config says so")
    name, why = choose(fetched, wish_of("auto"))
    assert name == "transformers"
    assert why.startswith("vLLM is slow without a GPU where the adapter is beside its base")
    assert choose(fetched, wish_of("transformers")) == ("transformers", "the config says so")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have the kernels")
def test_deterministic_vllm_is_refused_where_it_has_no_such_kernels(fetched):
    generation = SETTINGS.model_copy(update={"deterministic": True})
    wish = ServingWish(SECTION, generation, "vllm")
    with pytest.raises(ConfigError, match="GPUs from Ampere on only: set"):
        choose(fetched, wish)
    name, why = choose(replace(fetched, adapter=None), replace(wish, engine="auto"))
    assert name == "transformers"
    assert why.startswith("vLLM is deterministic on GPUs from Ampere on only")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"use_dora": True}, "DoRA.*adapter_weights: merged"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save.*adapter_weights: merged"),
        ({"r": 1024}, "rank 1024.*adapter_weights: merged"),
        ({"bias": "all"}, "bias.*adapter_weights: merged"),
    ],
)
def test_adapter_that_vllm_cannot_serve_is_refused_with_remedy(fetched, tmp_path, keys, message):
    model = changed(fetched, tmp_path, **keys)
    name, why = choose(model, wish_of("auto"))
    assert name == "transformers"
    assert "vLLM cannot serve this adapter" in why
    with pytest.raises(ConfigError, match=message) as caught:
        choose(model, wish_of("vllm"))
    assert caught.value.exit_code == ExitCode.CONFIG
    assert choose(replace(model, adapter=None), wish_of("auto"))[0] == "vllm"


OWN = {
    "awq": {"bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"},
    "gptq": {"bits": 4, "group_size": 32, "desc_act": False, "sym": True},
    "fp8": {"activation_scheme": "dynamic"},
}


@pytest.mark.parametrize("method", OWN)
def test_a_base_with_its_own_quantization_is_served_in_16_bits_only(fetched, tmp_path, method):
    folder = tmp_path / "base"
    shutil.copytree(fetched.base.path, folder)
    path = folder / "config.json"
    own = {"quantization_config": {"quant_method": method, **OWN[method]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    model = replace(fetched, adapter=None, base=replace(fetched.base, path=folder))

    name, why = choose(model, wish_of("auto", AdapterModelSection(dtype="float32")))
    assert name == "transformers"
    assert "vLLM cannot serve this base (torch.float32 is not supported for quantization" in why
    section = AdapterModelSection(dtype="bfloat16")
    assert choose(model, wish_of("vllm", section)) == ("vllm", "the config says so")


def test_attention_that_only_transformers_has_is_refused(fetched):
    section = AdapterModelSection(attention="eager")
    assert choose(fetched, wish_of("auto", section))[0] == "transformers"
    with pytest.raises(ConfigError, match=r"engine: .*eager"):
        choose(fetched, wish_of("vllm", section))


def test_base_that_vllm_does_not_know_goes_to_transformers(fetched, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(fetched.base.path, folder)
    path = folder / "config.json"
    unknown = {"architectures": ["NobodysModel"], "model_type": "no"}
    path.write_text(json.dumps(json.loads(path.read_text()) | unknown))
    model = replace(fetched, base=replace(fetched.base, path=folder))
    name, why = choose(model, wish_of("auto"))
    assert (name, "vLLM cannot serve this base" in why) == ("transformers", True)


def test_context_of_vllm_is_what_the_config_admits():
    limited = SETTINGS.model_copy(update={"max_input_tokens": 100})
    assert tokens_at_most(limited, 512) == 124
    assert tokens_at_most(SETTINGS, 512) == AS_MANY_AS_FIT
    assert tokens_at_most(limited, 110) == 110


def test_merged_adapter_answers_the_same_and_is_merged_once(fetched, reference, prompts, tmp_path):
    model = merge(fetched, SECTION, tmp_path)
    assert (model.adapter, model.adapter_digest, model.base.digest) == (
        None,
        fetched.adapter_digest,
        fetched.base.digest,
    )
    (folder,) = tmp_path.glob("merged-*")
    made = (folder / "model.safetensors").stat().st_mtime_ns
    wanted = reference.generate(prompts, SETTINGS)
    answers = TransformersEngine(load(model, SECTION), model.tokenizer).generate(prompts, SETTINGS)
    assert count_same(answers, wanted) >= MIN_SAME_SHARE * len(prompts)
    assert merge(fetched, SECTION, tmp_path) == model
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    other = merge(fetched, AdapterModelSection(dtype="bfloat16"), tmp_path)
    assert other.base.path != model.base.path, "another dtype is another merge"
