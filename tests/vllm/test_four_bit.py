"""Claims about 4-bit weights in vLLM: they answer like 4-bit weights in transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from job.config.sections import AdapterModelSection, StorageSection
from job.errors import ConfigError
from job.inference import vllm_start
from job.inference.choose import choose
from job.inference.open import fetch_with_adapter
from job.inference.serving import ServingWish
from job.inference.vllm_start import UNTRIED
from tests.adapters import publish_adapter
from tests.vllm import four_bit
from tests.vllm.engines import MIN_SAME_SHARE
from tests.vllm.four_bit import DEMO, IN_4_BIT, SETTINGS

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random LoRA weights for the demo's base, which was trained on words."""
    folder = tmp_path_factory.mktemp("four-bit")
    publish_adapter(DEMO / "base", folder, str(folder / "published"))
    return str(folder / "published")


def same_answers(*arguments: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, four_bit.__file__, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_vllm_answers_in_4_bit_like_transformers_in_4_bit(adapter):
    found = same_answers(adapter, "without")
    assert found["in 4 bits"] >= MIN_SAME_SHARE * found["prompts"]
    assert found["in 16 bits"] < MIN_SAME_SHARE * found["prompts"]


def test_an_adapter_stays_beside_its_4_bit_base(adapter):
    found = same_answers(adapter)
    # With random weights many tokens are about as likely, and answers computed in bfloat16 soon
    # diverge: only the first two tokens are compared.
    assert found["in 4 bits"] >= 0.7 * found["prompts"]
    assert found["in 4 bits"] > 3 * found["in 16 bits"]


def test_4_bit_weights_go_to_vllm_only_if_the_config_insists(adapter, tmp_path, monkeypatch):
    model = fetch_with_adapter(adapter, IN_4_BIT, StorageSection(), tmp_path)

    def refused(section: AdapterModelSection) -> str:
        with pytest.raises(ConfigError) as caught:
            choose(model, ServingWish(section, SETTINGS, "vllm"))
        return str(caught.value)

    assert choose(model, ServingWish(IN_4_BIT, SETTINGS, "auto")) == ("transformers", UNTRIED)
    assert "nf4-double, not nf4" in refused(IN_4_BIT.model_copy(update={"quantization": "nf4"}))
    if not torch.cuda.is_available():
        assert "4-bit weights on a GPU only" in refused(IN_4_BIT)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        # The vLLM of these tests is built for CPUs: tests/inference/test_choose.py.
        monkeypatch.setattr(vllm_start, "why_not_on_device", lambda platform, has_gpu: None)
    assert choose(model, ServingWish(IN_4_BIT, SETTINGS, "vllm")) == ("vllm", "the config says so")
    assert "in bfloat16: set model.dtype" in refused(
        IN_4_BIT.model_copy(update={"dtype": "float16"})
    )
    monkeypatch.setattr(vllm_start, "PLUGIN", "no_such_plugin")
    assert "pip install 'recap[vllm]'" in refused(IN_4_BIT)
