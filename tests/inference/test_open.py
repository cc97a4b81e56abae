"""Claims about a base that is opened to generate."""

import pytest
import torch

from job.config.sections import AdapterModelSection
from job.errors import ConfigError
from job.inference.open import fitting_into_memory


@pytest.mark.parametrize(("quantization", "is_advised"), [(None, True), ("nf4-double", False)])
def test_4_bits_are_no_remedy_for_a_base_that_is_in_4_bits(quantization, is_advised):
    section = AdapterModelSection(quantization=quantization)
    with (
        pytest.raises(ConfigError, match=r"^model\.base: big does not fit .* a larger") as caught,
        fitting_into_memory("big", section),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert ("nf4-double" in str(caught.value)) == is_advised
