"""A tiny Llama with random weights, and its tokenizer of bytes, loaded like real ones."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def model(base_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base_folder).eval()


@pytest.fixture(scope="session")
def tokenizer(base_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_folder)


@pytest.fixture(autouse=True)
def quick(one_thread: None) -> None:
    """Every test here runs on one thread."""
