"""The tokenizer of the tests here."""

import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny import make_byte_tokenizer


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A token is a byte, beside five control tokens."""
    return make_byte_tokenizer()
