"""Claims about tokens that a base has no embedding of."""

from typing import Any

import pytest

from job.config.sections import PromptSection
from job.errors import ConfigError
from job.prompt.template import make_prompt
from job.prompt.vocabulary import check_vocabulary
from tests.tiny import CHAT_TEMPLATE, make_byte_tokenizer


@pytest.fixture
def tokenizer() -> Any:
    made = make_byte_tokenizer()
    made.chat_template = CHAT_TEMPLATE
    made.add_special_tokens({"pad_token": "<pad>"})
    return made


def prompt(tokenizer: Any, style: str) -> Any:
    return make_prompt(PromptSection(style=style), tokenizer)


def test_a_pad_token_that_the_base_lacks_becomes_the_end_token(tokenizer, caplog):
    without_pad = tokenizer.pad_token_id
    check_vocabulary(tokenizer, prompt(tokenizer, "chat"), without_pad + 1)
    assert tokenizer.pad_token == "<pad>"
    check_vocabulary(tokenizer, prompt(tokenizer, "chat"), without_pad)
    assert tokenizer.pad_token == "</s>"


def test_a_chat_token_that_the_base_lacks_is_refused_with_its_name(tokenizer):
    tokenizer.add_tokens(["<|late|>"], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE + "<|late|>"
    token = tokenizer.convert_tokens_to_ids("<|late|>")
    message = rf"^prompt.style: .*token {token} \('<\|late\|>'\).*{token} tokens only; use"
    with pytest.raises(ConfigError, match=message):
        check_vocabulary(tokenizer, prompt(tokenizer, "chat"), token)


def test_an_end_token_that_the_base_lacks_is_refused(tokenizer):
    tokenizer.eos_token = "<|end|>"
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    with pytest.raises(ConfigError, match=r"^model.base: .*\('<\|end\|>'\)"):
        check_vocabulary(tokenizer, prompt(tokenizer, "instruction"), tokenizer.eos_token_id)
