"""Claims about which bases vLLM knows, held to vLLM's own registry."""

import pytest

from tests.bases.base import architecture_of
from tests.bases.families import FAMILIES
from tests.bases.vllm_models import vllm_cell

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

CLASSES = sorted({architecture_of(entry) for entry in FAMILIES if not entry.refused})


@pytest.mark.parametrize("architecture", CLASSES)
def test_vllm_knows_the_bases_that_the_page_says(architecture):
    from vllm.model_executor.models.interfaces import supports_lora
    from vllm.model_executor.models.registry import ModelRegistry

    known = ModelRegistry.models.get(architecture)
    if known is None:
        assert vllm_cell(architecture) == "no"
        return
    try:
        model = known.load_model_cls()
    except ModuleNotFoundError:
        # vLLM's models that see need torchvision, which its build for CPUs lacks.
        assert vllm_cell(architecture) == "yes"
        return
    assert vllm_cell(architecture) == ("yes" if supports_lora(model) else "merged")
