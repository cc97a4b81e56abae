"""Claims about the text around a conversation, and prompt.json."""

import pytest

from job.config.sections import PromptSection
from job.errors import ConfigError, DamagedError
from job.prompt.template import make_prompt, read_prompt, write_prompt
from tests.tiny import CHAT_TEMPLATE


def test_prompt_json_outlives_a_change_of_the_chat_template(tokenizer, tmp_path):
    tokenizer.chat_template = CHAT_TEMPLATE
    prompt = make_prompt(PromptSection(style="chat", system="Sum it up. ünïcode"), tokenizer)
    write_prompt(tmp_path, prompt)
    tokenizer.chat_template = "something else"
    assert read_prompt(tmp_path) == prompt


def test_base_without_chat_template_cannot_chat(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        make_prompt(PromptSection(style="chat"), tokenizer)


def test_chat_template_without_the_users_message_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['role'] }}"
    with pytest.raises(ConfigError, match="does not render a user's message"):
        make_prompt(PromptSection(style="chat"), tokenizer)


def test_adapter_without_prompt_json_is_not_recaps(tmp_path):
    with pytest.raises(DamagedError, match=r"prompt\.json is missing: this is no adapter"):
        read_prompt(tmp_path)
