"""Claims about the text around a conversation, and prompt.json."""

import json

import pytest

from job.config.sections import PromptSection
from job.errors import ConfigError, DamagedError
from job.prompt.template import make_prompt, prompt_text, read_prompt, write_prompt
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


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"agent": 1}},
        {"labels": ["agent"]},
        {"cleaning": ["everything"]},
        {"control_tokens": "yes"},
        {"end": "</s>"},
        {"before": None},
        {"code": "import os"},
    ],
)
def test_prompt_json_with_other_values_is_damaged(tokenizer, tmp_path, change):
    prompt = json.loads(prompt_text(make_prompt(PromptSection(), tokenizer)))
    (tmp_path / "prompt.json").write_text(json.dumps(prompt | change))
    with pytest.raises(DamagedError, match=rf"prompt\.json is unreadable \({next(iter(change))}"):
        read_prompt(tmp_path)


def test_adapter_without_prompt_json_is_not_recaps(tmp_path):
    with pytest.raises(DamagedError, match=r"prompt\.json is missing: this is no adapter"):
        read_prompt(tmp_path)
