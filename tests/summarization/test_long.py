"""Claims about conversations longer than the model's context, with a made-up engine."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from job.config.candidates_section import NightGenerationSection
from job.config.sections import PromptSection
from job.conversations.record import Conversation, Reject, Source, Turn
from job.inference.engine import Generated
from job.inference.levels import MAX_LEVELS
from job.model.load import load_tokenizer
from job.prompt.encode import Encoder, TooLongError
from job.prompt.template import make_prompt
from job.summarization.records import Summary
from job.summarization.summarizer import Digests, Summarizer
from tests.summarization.nights import results, task_of

ROOM = 240

THOUGHT = "only a thought, until the limit"


class Engine:
    """Answers by a function of the prompt's text; counts the prompts of each call."""

    context_tokens = 512
    prompts_ahead = 0

    def __init__(self, tokenizer: Any, answer: Callable[[str], str]) -> None:
        self.tokenizer, self.answer, self.calls = tokenizer, answer, []
        self.prompts: list[str] = []

    def generate(
        self, prompts: Sequence[list[int]], settings: Any, on_done: Any = None
    ) -> list[Generated]:
        self.calls.append(len(prompts))
        assert all(len(prompt) <= ROOM for prompt in prompts)
        texts = [self.tokenizer.decode(prompt) for prompt in prompts]
        self.prompts += texts
        found = []
        for text in texts:
            answer = self.answer(text)
            if answer == THOUGHT:
                found.append(Generated("", 3, "length", is_only_thought=True))
            else:
                found.append(Generated(answer, 3, "length" if "cut" in answer else "stop"))
        if on_done:
            on_done(len(prompts))
        return found


@pytest.fixture(scope="module")
def tokenizer(base_folder):
    return load_tokenizer(base_folder)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    prompt = make_prompt(PromptSection(system="Sum up."), tokenizer)
    return Encoder(prompt, tokenizer, ROOM)


@pytest.fixture
def run(tokenizer, encoder):
    """Outcomes of conversations under `keys` of the task, with the engine that answered."""

    def go(conversations, answer=lambda _text: "fine", **keys):
        engine = Engine(tokenizer, answer)
        digests = Digests(None, "b")
        summarizer = Summarizer(engine, encoder, ("whitespace",), digests, "test")
        reported: list[int] = []
        keys = {"long_conversations": "hierarchical", **keys}
        task = task_of(summarizer, NightGenerationSection(max_new_tokens=20), **keys)
        found = list(results(conversations, task, reported.append))
        assert sum(reported) == len(conversations)
        return found, engine

    return go


def talk(id: str, turns: int, words: str = "one two three four") -> Conversation:
    said = tuple(Turn(("customer", "agent")[n % 2], f"<{n}> {words}") for n in range(turns))
    return Conversation(id, said, Source("f", 1))


def test_every_turn_is_in_one_part_and_no_part_has_room_for_one_more(tokenizer, encoder):
    parts = encoder.encode_parts(talk("c", 60), 99)
    texts = [tokenizer.decode(part.ids) for part in parts]
    found = [int(number) for text in texts for number in re.findall(r"<(\d+)>", text)]
    assert found == list(range(60))
    assert sum(part.turns for part in parts) == 60
    longest_turn = 60
    assert all(ROOM - longest_turn < len(part.ids) <= ROOM for part in parts[:-1])


def test_a_turn_longer_than_a_prompt_continues_in_the_next_prompt(tokenizer, encoder):
    words = [f"w{n}" for n in range(300)]
    one = Conversation(
        "c", (Turn("customer", " ".join(words)), Turn("agent", "x" * 700)), Source("f", 1)
    )
    parts = encoder.encode_parts(one, 99)
    text = " ".join(tokenizer.decode(part.ids) for part in parts)
    assert [word for word in text.split() if word[0] == "w" and word[1:].isdigit()] == words
    assert text.count("x") == 700
    assert sum(part.turns for part in parts) == 2


def test_a_text_that_never_fits_is_found_without_being_tokenized(encoder):
    huge = Conversation("c", (Turn("customer", "x" * 50_000_000),), Source("f", 1))
    with pytest.raises(TooLongError, match="50000010 characters, which never fit into 240 tokens"):
        encoder.encode(huge)
    with pytest.raises(TooLongError, match="more than 9 parts of 240 tokens"):
        encoder.encode_parts(huge, 9)
    middle = Conversation(
        "c", (Turn("customer", "a"), huge.turns[0], Turn("agent", "b")), Source("f", 1)
    )
    assert encoder.encode(middle).dropped_turns == 1


def test_each_level_of_all_conversations_goes_to_the_engine_in_one_call(run):
    (short, long, longer), engine = run([talk("a", 2), talk("b", 20), talk("c", 30)])
    assert (short.parts, short.levels) == (1, 1)
    assert (long.levels, longer.levels) == (2, 2)
    assert 1 < long.parts < longer.parts
    assert engine.calls == [1 + long.parts + longer.parts, 2]
    assert "part 1: fine" in engine.prompts[-1]
    assert long.output_tokens == 3 * (long.parts + 1)
    assert long.input_tokens > ROOM
    assert (long.dropped_turns, long.summary) == (0, "fine")


def test_summaries_too_long_for_one_prompt_are_summarized_by_parts_again(run):
    (found,), engine = run([talk("a", 150)], lambda text: "s" * (60 if "<" in text else 20))
    assert isinstance(found, Summary)
    assert found.levels > 2
    assert len(engine.calls) == found.levels
    assert engine.calls == sorted(engine.calls, reverse=True)


def test_summaries_that_do_not_get_shorter_end_in_a_reject(run):
    (found,), engine = run([talk("a", 60)], lambda _text: "s" * 180)
    assert isinstance(found, Reject)
    assert found.reason == "too_long"
    assert "lower generation.max_new_tokens" in found.detail
    assert len(engine.calls) <= MAX_LEVELS


def test_parts_without_an_answer_count_their_turns_as_dropped(run):
    (found,), _ = run([talk("a", 20)], lambda text: "" if "<0>" in text else "fine")
    assert isinstance(found, Summary)
    assert 0 < found.dropped_turns < 20
    (nothing,), _ = run([talk("a", 20)], lambda _text: " ")
    assert (nothing.reason, nothing.detail[:32]) == (
        "empty_summary",
        "the model answered each of 3 par",
    )


def test_a_part_that_breaks_the_engine_rejects_its_conversation_alone(run):
    def answer(text):
        if "poison" in text:
            raise RuntimeError("CUDA error")
        return "fine"

    ill = Conversation("ill", (*talk("x", 20).turns, Turn("agent", "poison")), Source("f", 2))
    found, _ = run([talk("a", 20), ill, talk("b", 2)], answer)
    assert [type(one) for one in found] == [Summary, Reject, Summary]
    assert found[1].reason == "generation_failed"
    assert found[1].detail == "part 3 of 3, level 1: RuntimeError: CUDA error"


def test_a_conversation_whose_parts_all_fail_is_no_mistake_in_the_config(run):
    def fail_but_on_a_greeting(text):
        if "Hello" not in text:
            raise RuntimeError("CUDA error")
        return "fine"

    (found,), _ = run([talk("a", 20)], fail_but_on_a_greeting)
    assert found.reason == "generation_failed"


@pytest.mark.parametrize("policy", ["keep", "reject"])
def test_a_summary_cut_at_the_limit_is_kept_or_rejected_as_configured(run, policy):
    (found,), _ = run([talk("a", 2)], lambda _text: "it was cut", cut_summaries=policy)
    if policy == "keep":
        assert (found.summary, found.finish_reason) == ("it was cut", "length")
    else:
        assert found.reason == "cut_at_limit"
        assert found.detail == "cut at generation.max_new_tokens (20), and cut_summaries is reject"


def test_a_thought_without_an_answer_is_a_reject_with_the_remedy(run):
    def answer(text):
        return THOUGHT if "one" in text else "fine"

    talks = [talk("a", 2, "one"), talk("b", 2, "two"), talk("c", 30, "one")]
    (first, second, third), _ = run(talks, answer)
    assert (first.reason, third.reason) == ("empty_summary", "empty_summary")
    assert second.summary == "fine"
    remedy = "still thinking after 3 tokens; raise generation.max_new_tokens"
    assert remedy in first.detail
    assert remedy in third.detail
    assert third.detail.startswith("part 1 of ")


def test_the_other_policies_drop_turns_or_reject(run):
    for policy, kind in (("keep_ends", Summary), ("reject", Reject)):
        (found,), _ = run([talk("a", 40)], long_conversations=policy)
        assert isinstance(found, kind)
        if isinstance(found, Summary):
            assert (found.parts, found.levels, found.dropped_turns > 0) == (1, 1, True)
        else:
            assert (found.reason, found.detail[-38:]) == (
                "too_long",
                " of 40 turns do not fit into 240 tokens"[-38:],
            )


def test_the_model_reads_placeholders_and_the_summary_is_scanned_again(run):
    from job.config.redaction import RedactionSection
    from job.conversations.redaction import make_redactor

    said = (Turn("customer", "I am joe@shop.com &amp; @joe"), Turn("agent", "joe@shop.com, thanks"))
    redactor = make_redactor(RedactionSection())
    (found,), engine = run(
        [Conversation("a", said, Source("f", 1))],
        lambda _text: "[EMAIL_1], or eve@x.org, asks",
        redactor=redactor,
    )
    assert "joe" not in engine.prompts[0]
    assert engine.prompts[0].count("[EMAIL_1]") == 2
    assert (found.summary, found.redactions, found.leaks) == ("[EMAIL_1], or [EMAIL_2], asks", 3, 1)
