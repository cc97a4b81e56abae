"""Claims about the memory that a training step frees: on a CPU it serves the next step."""

import platform
import re
from typing import Any

import pytest

from tests.faults.trials import Trials


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
@pytest.mark.usefixtures("places")
def test_a_training_on_the_cpu_keeps_freed_memory(config: dict[str, Any], trials: Trials) -> None:
    config["training"] |= {"max_steps": 1, "sample_summaries": 0}
    config["evaluation"] = {"max_conversations": 1}
    code, log = trials.run(config, INSTRUMENTS="count_page_faults")
    assert code == 0, log
    faults = {name: int(count) for name, count in re.findall(r"page faults (\w+): (\d+)", log)}
    # Ten tensors of 12,288 pages: the kernel clears each page again, or none.
    assert faults["after"] < 1_000 < 10_000 < faults["before"]
