"""Claims about summaries of conversations that are all in memory."""

from collections.abc import Sequence
from typing import Any

from job.config.sections import GenerationSection, PromptSection
from job.conversations.record import Conversation, Source, Turn
from job.inference.engine import Generated, to_answer
from job.inference.reader import Reader
from job.inference.summaries import summarize_conversations
from job.prompt.encode import Encoder
from job.prompt.template import make_prompt
from job.telemetry import LOGGER
from tests.tiny import make_byte_tokenizer

ANSWERS = ["<think>Hm…</think>A refund.", "<think>The customer wants", "A refund."]


def test_thoughts_are_neither_summaries_nor_scored_as_such(caplog):
    tokenizer = make_byte_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])

    class Thinking:
        context_tokens = 1000
        prompts_ahead = 0

        def generate(self, prompts: Sequence[list[int]], *_: Any) -> list[Generated]:
            ids = tokenizer(ANSWERS, add_special_tokens=False)["input_ids"]
            return [to_answer(answer, [tokenizer.eos_token_id], tokenizer) for answer in ids]

    conversations = [Conversation(str(n), (Turn("agent", "Hi"),), Source("f", n)) for n in range(3)]
    encoder = Encoder(make_prompt(PromptSection(), tokenizer), tokenizer, 900)
    LOGGER.propagate = True
    found = summarize_conversations(
        conversations, Thinking(), Reader(encoder), GenerationSection()
    ).texts
    assert found == ["A refund.", "", "A refund."]
    (warning,) = caplog.records
    assert "they count as empty ones" in warning.message
    assert (warning.fields["summaries"], warning.fields["of"]) == (1, 3)
    assert "raise generation.max_new_tokens" in warning.fields["first"]
