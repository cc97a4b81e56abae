"""Claims about the choice of an engine without vLLM; tests/vllm has those with it."""

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.config.commands import SummarizeConfig
from job.config.sections import (
    AdapterModelSection,
    GenerationSection,
    PromptSection,
    StorageSection,
)
from job.errors import ConfigError, ExitCode
from job.inference.choose import check_installed, choose, open_engine
from job.inference.open import fetch_without_adapter
from job.inference.serving import ServingWish
from job.inference.transformers_engine import TransformersEngine
from job.inference.vllm_start import FEW, MISSING, is_installed, why_not_on_device

pytestmark = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
CONFIG = {"run": "n", "input": "in.jsonl", "output": "out", "adapter": "a"}


@pytest.fixture
def model(base_folder, tmp_path):
    return fetch_without_adapter(
        AdapterModelSection(base=str(base_folder)), PromptSection(), StorageSection(), tmp_path
    )


def test_auto_is_transformers_and_the_log_has_the_reason(model, tmp_path, caplog):
    wish = ServingWish(AdapterModelSection(), GenerationSection())
    with caplog.at_level("INFO", "recap"):
        opened = open_engine(model, wish, tmp_path)
    assert isinstance(opened.engine, TransformersEngine)
    name = opened.serving.engine_name
    assert name.startswith("transformers 5.")
    (logged,) = [record for record in caplog.records if record.getMessage() == "engine"]
    assert logged.fields["engine"] == name
    assert logged.fields["why"].startswith("vLLM is not installed: pip install 'recap[vllm]'")


def test_vllm_that_is_not_installed_is_a_mistake_in_the_config(model, tmp_path):
    message = r"engine: vLLM is not installed: pip install 'recap\[vllm\]'"
    with pytest.raises(ConfigError, match=message) as caught:
        check_installed("vllm")
    assert caught.value.exit_code == ExitCode.CONFIG
    wish = ServingWish(AdapterModelSection(), GenerationSection(), "vllm")
    with pytest.raises(ConfigError, match="engine: vLLM is not installed"):
        open_engine(model, wish, tmp_path)
    check_installed("auto")


def test_only_vllm_shares_a_base_among_gpus(model, tmp_path):
    remedy = r"pip install 'recap\[vllm\]', or set engine: transformers with tensor_parallel: 1"
    message = f"tensor_parallel: 2 needs vLLM, and vLLM is not installed: {remedy}"
    with pytest.raises(ConfigError, match=message):
        check_installed("auto", tensor_parallel=2)
    wish = ServingWish(AdapterModelSection(), GenerationSection(), tensor_parallel=2)
    with pytest.raises(ConfigError, match=message):
        open_engine(model, wish, tmp_path)
    keys = {"engine": "transformers", "tensor_parallel": 2}
    with pytest.raises(ValueError, match="tensor_parallel: 2 is for vLLM, and engine is transf"):
        SummarizeConfig.model_validate(CONFIG | keys)


@pytest.mark.parametrize(
    ("conversations", "has_gpu", "reason"),
    [(499, True, FEW), (500, True, MISSING), (None, True, MISSING), (499, False, MISSING)],
)
def test_few_conversations_do_not_pay_for_the_start_of_vllm(
    model, monkeypatch, conversations, has_gpu, reason
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr("job.inference.choose.is_installed", lambda: True)
    wish = ServingWish(AdapterModelSection(), GenerationSection(), conversations=conversations)
    # vLLM is found missing where it would be imported.
    assert choose(model, wish) == ("transformers", reason)


def test_an_adapter_judged_with_vllm_is_served_by_it_in_a_short_night(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("job.inference.choose.is_installed", lambda: True)
    monkeypatch.setattr("job.inference.choose.why_not", lambda model, wish: None)
    section = AdapterModelSection()
    as_judged = {"engine": "vllm", "taken": frozenset({"engine"})}
    for keys, engine in ((as_judged, "vllm"), ({}, "transformers")):
        wish = ServingWish(section, GenerationSection(), conversations=1, **keys)
        assert choose(model, wish)[0] == engine


def test_a_folder_called_vllm_is_no_vllm(tmp_path, monkeypatch):
    (tmp_path / "vllm").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed()


def test_an_adapter_is_not_merged_into_four_bits():
    model = {"quantization": "nf4-double"}
    message = r"adapter_weights: merged is for weights of 16 or 32 bits"
    with pytest.raises(ValueError, match=message):
        SummarizeConfig.model_validate(CONFIG | {"adapter_weights": "merged", "model": model})


def platform(device: str) -> Any:
    """Return what recap asks of a platform of vLLM's."""
    return SimpleNamespace(
        device_name=device,
        is_unspecified=lambda: device == "",
        is_cuda_alike=lambda: device == "cuda",
    )


@pytest.mark.parametrize(
    ("device", "has_gpu", "expected"),
    [
        ("cuda", True, None),
        ("cpu", False, None),
        ("cpu", True, "built for cpu, and would leave the GPU idle"),
        ("", True, "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ("", False, "built for no device of this machine"),
    ],
)
def test_vllm_serves_on_the_gpu_that_torch_sees(device: str, has_gpu: bool, expected: str | None):
    reason = why_not_on_device(platform(device), has_gpu)
    assert reason is None if expected is None else expected in str(reason)
