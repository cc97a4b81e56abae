"""Claims about bases that are published in a quantization: they go through every command."""

from functools import partial

import pytest

from job.errors import ExitCode
from tests.bases.journey import Journey
from tests.quantized import (
    make_awq,
    make_bitsandbytes,
    make_fp8,
    make_gptq,
    make_mxfp4,
)

# Libraries warn on stderr, as they do outside of tests.
pytestmark = [pytest.mark.bases, pytest.mark.filterwarnings("ignore")]

MADE = {
    "bnb-4bit": partial(make_bitsandbytes, load_in_4bit=True),
    "bnb-8bit": partial(make_bitsandbytes, load_in_8bit=True),
    "fp8": make_fp8,
    "mxfp4": make_mxfp4,
}


@pytest.fixture
def journey(request, base_folder, travel, tmp_path) -> Journey:
    return travel(request.param(base_folder, tmp_path / "base"), "instruction", {})


@pytest.mark.parametrize("journey", MADE.values(), ids=MADE, indirect=True)
def test_a_quantized_base_goes_through_every_command(journey):
    for ended in (journey.plan(), journey.train("padded"), journey.evaluate()):
        assert ended.code == ExitCode.DONE, ended.out + ended.err
    for weights in ("separate", "merged"):
        ended = journey.summarize(weights)
        assert ended.code == ExitCode.DONE, ended.err
        assert journey.summarized(weights) == journey.records


@pytest.mark.parametrize("journey", [make_gptq, make_awq], indirect=True)
def test_a_base_whose_package_is_missing_ends_in_the_plan(journey):
    ended = journey.plan()
    assert ended.code == ExitCode.CONFIG
    assert "is already quantized" in ended.err
    assert "gptqmodel" in ended.err
