import textwrap
from collections.abc import Callable

import pytest

from job.config.document import ConfigText

SMALLEST_TRAINING = """\
run: small
model: {base: org/base}
data: {train: train.jsonl}
output: runs
"""


@pytest.fixture
def config_text() -> Callable[..., ConfigText]:
    """Make the text of a config `c.yaml`: without arguments, the smallest one of a training."""

    def make(text: str = SMALLEST_TRAINING, more: str = "") -> ConfigText:
        return ConfigText("c.yaml", textwrap.dedent(text) + textwrap.dedent(more))

    return make
