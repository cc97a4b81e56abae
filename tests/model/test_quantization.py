"""Claims about the quantization that a base was published with."""

import pytest

from job.errors import DataError
from job.model.quantization import quantization_of


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
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
    ],
)
def test_a_quantization_has_the_name_that_the_config_gives_it(config, name):
    assert quantization_of(config) == name


@pytest.mark.parametrize("own", ["fp8", {}, {"quant_method": 8}])
def test_a_quantization_without_name_is_65(own):
    with pytest.raises(DataError, match="quantization_config"):
        quantization_of({"quantization_config": own})
