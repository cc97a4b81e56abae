"""Claims about chat templates: the prompt ends where the answer proper begins, whatever they do."""

from pathlib import Path

import pytest
import trl
from transformers import PreTrainedTokenizerFast

from job.config.sections import PromptSection
from job.errors import ConfigError, ExitCode
from job.model.chat import TEXT, _render, closing_tokens, render_chat
from job.model.thoughts import THOUGHTS
from job.prompt.template import make_prompt
from tests.tiny import CHAT_TEMPLATE, make_byte_tokenizer

PUBLISHED = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
CHAT = PromptSection(style="chat", system="Sum it up.")

NO_SYSTEM = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}<|assistant|>"
)
SILENT = (
    "{% for m in messages if m['role'] != 'system' %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}<|assistant|>"
)
ONLY_PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_byte_tokenizer()


def after(template: str, tokenizer: PreTrainedTokenizerFast) -> str:
    tokenizer.chat_template = template
    return make_prompt(CHAT, tokenizer).after


def opens_a_thought(text: str) -> bool:
    """True if the last mark of a thought in a text is one that opens it."""
    last = {mark: text.rfind(mark) for pair in THOUGHTS.items() for mark in pair}
    mark = max(last, key=lambda each: last[each])
    return last[mark] >= 0 and mark in THOUGHTS


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_prompt_of_published_templates_ends_where_their_answers_begin(tokenizer, path):
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    system = "Sum up the conversation.\n"
    chat = _render(system, tokenizer)
    assert system.strip() in chat.before, "the instruction comes before the conversation"
    assert not opens_a_thought(chat.after)
    assert not chat.after.endswith("assistant"), "the header of an answer is whole"

    # The template's own rendering of an answer, asked as plainly as can be.
    parts = [{"type": "text", "text": "Hi"}], [{"type": "text", "text": "Hello"}]
    texts = parts if f"{TEXT}" not in _plainly(tokenizer, TEXT) else ("Hi", "Hello")
    turns = _plainly(tokenizer, *texts)
    shown = turns.partition("Hello")[0].rpartition("Hi")[2].rstrip(" ")
    prompt = chat.after.rstrip(" ")
    for begin, end in THOUGHTS.items():
        # Some templates leave an empty thought out of an answer, or out of the prompt.
        for empty in (f"{begin}{end}", f"{begin}\n\n{end}\n\n"):
            shown, prompt = shown.replace(empty, ""), prompt.replace(empty, "")
    assert prompt.replace("/nothink", "").strip() == shown.strip()


def _plainly(tokenizer: PreTrainedTokenizerFast, *contents: object) -> str:
    messages = [
        {"role": role, "content": content}
        for role, content in zip(["user", "assistant"], contents, strict=False)
    ]
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False)
    return rendered


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT])
def test_without_system_role_the_instruction_is_in_the_users_turn(tokenizer, template):
    tokenizer.chat_template = template
    prompt = make_prompt(CHAT, tokenizer)
    assert prompt.before == "<|user|>Sum it up.\n\n"
    assert prompt.after == "</s><|assistant|>"


@pytest.mark.parametrize("system", ["Sum it up.\n", "  Sum it up.\n\n"])
def test_an_instruction_that_the_template_trims_stays_a_system_message(tokenizer, system):
    tokenizer.chat_template = CHAT_TEMPLATE.replace("m['content']", "m['content'] | trim")
    prompt = make_prompt(PromptSection(style="chat", system=system), tokenizer)
    assert prompt.before == "<|system|>Sum it up.</s><|user|>"


def test_a_template_that_reads_only_parts_gets_parts(tokenizer):
    tokenizer.chat_template = ONLY_PARTS
    prompt = make_prompt(CHAT, tokenizer)
    assert prompt.before == "<|system|>Sum it up.</s><|user|>"
    assert prompt.after == "</s><|assistant|>"


@pytest.mark.parametrize(
    "thinks",
    [
        "enable_thinking is not defined or enable_thinking",
        "thinking is not defined or thinking",
        "reasoning is not defined or reasoning",
        "not skip_reasoning",
        "thinking_budget != 0",
        "reasoning_effort != 'low'",
        "reasoning_strength != 'low'",
    ],
)
def test_a_template_that_thinks_is_asked_not_to(tokenizer, thinks):
    thinking = f"{{% if {thinks} %}}<think>{{% endif %}}"
    assert after(CHAT_TEMPLATE + thinking, tokenizer) == "</s><|assistant|>"


def test_a_template_that_refuses_a_switch_is_rendered_without_it(tokenizer):
    picky = (
        "{% if reasoning_effort is defined and reasoning_effort not in ['none', 'high'] %}"
        "{{ raise_exception('unknown effort') }}{% endif %}"
    )
    assert after(picky + CHAT_TEMPLATE, tokenizer) == "</s><|assistant|>"


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<think>\n", "<think>\n\n</think>\n\n"),
        ("<think>", "<think></think>"),
        ("[THINK]", "[THINK][/THINK]"),
        ("<|channel>thought\n", "<|channel>thought\n\n<channel|>\n\n"),
        ("<think>\nOkay, ", "<think>\nOkay, \n</think>\n\n"),
        ("<THINK>\n", "<THINK>\n\n</THINK>\n\n"),
        ('<think effort="high">\n', '<think effort="high">\n\n</think>\n\n'),
        ("<ponder>\n", "<ponder>\n\n</ponder>\n\n"),
        ("[THINK]Hm", "[THINK]Hm[/THINK]"),
        # These open no thought.
        ("<assistant>\n", "<assistant>\n"),
        ("<start_of_turn>model\n", "<start_of_turn>model\n"),
        ("<ponder>a</ponder><answer>", "<ponder>a</ponder><answer>"),
    ],
)
def test_a_thought_that_the_template_opens_anyhow_is_closed(tokenizer, opened, closed):
    template = CHAT_TEMPLATE.replace("<|assistant|>", f"<|assistant|>{opened}")
    assert after(template, tokenizer) == f"</s><|assistant|>{closed}"


def test_an_empty_thought_stays_where_the_template_writes_it(tokenizer):
    # Kimi K2: in front of an answer that is there only; Hunyuan: of one to come only.
    there = "<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}<think></think>{% endif %}"
    kimi = CHAT_TEMPLATE.replace("<|{{ m['role'] }}|>", there)
    assert after(kimi, tokenizer) == "</s><|assistant|><think></think>"
    closed = "<|assistant|><think>\n\n</think>\n"
    assert after(CHAT_TEMPLATE.replace("<|assistant|>", closed), tokenizer) == f"</s>{closed}"


def test_the_header_of_an_answer_belongs_to_the_prompt(tokenizer):
    channel = CHAT_TEMPLATE.replace(
        "{{ m['content'] }}",
        "{% if m['role'] == 'assistant' %}<|channel|>final<|message|>{% endif %}{{ m['content'] }}",
    )
    assert after(channel, tokenizer) == "</s><|assistant|><|channel|>final<|message|>"
    # The space belongs to the first word of the answer.
    spaced = CHAT_TEMPLATE.replace("{{ m['content'] }}", " {{ m['content'] }}")
    assert after(spaced, tokenizer) == "</s><|assistant|>"


def test_an_answer_ends_as_the_template_ends_it(tokenizer):
    tokenizer.chat_template = CHAT_TEMPLATE.replace("</s>", "<|user|>")
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    assert make_prompt(CHAT, tokenizer, ends={user}).end == ("<|user|>",)
    assert make_prompt(CHAT, tokenizer, ends={7}).end == (), "generation would not stop there"
    ends = {tokenizer.eos_token_id}
    assert closing_tokens("<|user|></s>", tokenizer, ends) == ["<|user|>", "</s>"]
    assert closing_tokens("\n</s>", tokenizer, ends) == [], "text belongs to no end"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('only tools') }}", "only tools"),
        ("{{ messages[0]['content']['text'] + 1 }}", "UndefinedError"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ 'x' * 10 ** 11 }}", "memory|MemoryError"),
    ],
)
def test_a_template_that_fails_is_a_mistake_of_the_config(tokenizer, template, reason):
    tokenizer.chat_template = template
    wanted = rf"prompt.style is chat, but the chat template .*({reason}).*prompt.style: instruction"
    with pytest.raises(ConfigError, match=f"(?s){wanted}") as caught:
        render_chat("Sum it up.", tokenizer)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_named_templates_need_a_default(tokenizer):
    tokenizer.chat_template = {"rag": CHAT_TEMPLATE, "tools": CHAT_TEMPLATE}
    with pytest.raises(
        ConfigError, match=r"prompt.style is chat.*\(rag, tools\) and none is named"
    ):
        render_chat("Sum it up.", tokenizer)
    assert after({"rag": "{{ 1 }}", "default": CHAT_TEMPLATE}, tokenizer) == "</s><|assistant|>"
