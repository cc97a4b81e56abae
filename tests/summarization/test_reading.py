"""Claims about the way conversations are read: an evaluation and a night do it alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config.candidates_section import NightGenerationSection
from job.config.commands import EvaluateConfig, SummarizeConfig
from job.config.redaction import RedactionSection
from job.conversations.record import Conversation, Reject, Source, Turn
from job.conversations.redaction import make_redactor
from job.evaluation.run import run_evaluation
from job.evaluation.systems import TUNED
from job.inference.engine import Generated
from job.inference.reader import Reader
from job.inference.summaries import summarize_conversations
from job.preflight.summarizing import plan_summarizing
from job.prompt.encode import Encoder
from job.summarization.summarize import summarize
from job.summarization.summarizer import Digests, Summarizer
from tests.adapters import publish_adapter
from tests.champions import promote
from tests.stand_in import PROMPT, StandInTokenizer
from tests.summarization.conftest import conversation, read_lines, write_lines
from tests.summarization.nights import manifest_of, results, task_of

ROOM = 240  # tokens of a prompt
MAIL = "joe@shop.com"
SETTINGS = NightGenerationSection(max_new_tokens=20)


class Reading:
    """An engine that answers by what a prompt says, and fails on poison."""

    context_tokens, prompts_ahead = 512, 0

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def generate(self, prompts: Any, _settings: Any, on_done: Any = None) -> list[Generated]:
        assert all(len(prompt) <= ROOM for prompt in prompts)
        texts = [bytes(prompt).decode() for prompt in prompts]
        if any("poison" in text for text in texts):
            raise RuntimeError("CUDA error")
        self.prompts += texts
        if on_done:
            on_done(len(prompts))
        return [Generated(answer_of(text), 3, "stop") for text in texts]


def answer_of(text: str) -> str:
    if "nothing" in text:
        return " "
    made_up = " eve@x.org" if "EMAIL_1" in text else ""
    return f" {len(text)} tokens{made_up} "


def talk(id: str, *said: str) -> Conversation:
    turns = tuple(Turn(("customer", "agent")[n % 2], text) for n, text in enumerate(said))
    return Conversation(id, turns, Source("f", 1))


# A night asks this after a failure.
GREETED = PROMPT.before + "customer: Hello\nagent: Hello" + PROMPT.after

LONG = ["one two three four five six"] * 20
TALKS = [
    talk("short", "Hi", "Hello"),
    talk("long", *LONG),
    talk("mail", f"I am {MAIL}", "thanks"),
    talk("long with mail", *LONG, f"I am {MAIL}"),
    talk("part fails", *LONG, "poison"),
    talk("fails", "poison"),
    talk("silent", "nothing"),
    talk("parts are silent", *["nothing to say at all"] * 20),
    talk("no text", " "),
    talk("too large", "1 " * 500_001),
]


@pytest.mark.parametrize("redaction", [None, RedactionSection()], ids=["as it is", "redacted"])
@pytest.mark.parametrize("long_conversations", ["keep_ends", "hierarchical"])
def test_an_evaluation_summarizes_what_a_night_does_as_it_does(long_conversations, redaction):
    encoder = Encoder(PROMPT, StandInTokenizer(), ROOM)
    redactor = make_redactor(redaction)
    by_night, by_evaluation = Reading(), Reading()
    summarizer = Summarizer(by_night, encoder, (), Digests(None, "b"), "test")
    keys = {"long_conversations": long_conversations, "redactor": redactor}
    outcomes = list(results(TALKS, task_of(summarizer, SETTINGS, **keys)))
    reader = Reader(encoder, long_conversations, redactor)
    found = summarize_conversations(TALKS, by_evaluation, reader, SETTINGS)

    of_night = ["" if isinstance(each, Reject) else each.summary for each in outcomes]
    assert found.texts == of_night
    assert set(by_evaluation.prompts) == set(by_night.prompts) - {GREETED}
    kept = {each.id for each, text in zip(TALKS, found.texts, strict=True) if text}
    assert {"short", "long", "mail", "long with mail"} <= kept
    assert not kept & {"part fails", "fails", "silent", "no text"}
    assert (MAIL in "".join(by_evaluation.prompts)) is (redaction is None)
    if redaction is not None:
        assert found.texts[2].endswith("[EMAIL_2]"), "a value that the model made up"
        assert found.read is not None
        assert found.read[2].turns[0].text == "I am [EMAIL_1]"


@pytest.fixture
def adapter(base_folder: Path, places: Path, tmp_path: Path) -> str:
    publish_adapter(base_folder, tmp_path / "made", str(tmp_path / "adapter"))
    return str(tmp_path / "adapter")


def promote_as_judged(tmp_path: Path, adapter: str, **keys: Any) -> None:
    """Evaluate the adapter on the night's input, and make it the champion as it was judged."""
    content = {
        "run": "judge",
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / "judged"),
        "adapter": adapter,
        "model": {"dtype": "float32"},
        "generation": {"max_new_tokens": 12},
        "evaluation": {"bootstrap_samples": 100, "base_without_adapter": False},
    }
    run_evaluation(EvaluateConfig.model_validate(content | keys))
    evaluation = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    serving = evaluation["systems"][TUNED]["serving"]
    promote(f"{tmp_path}/champion.json", adapter, serving=serving)


HOW = {"redaction": {"kinds": ["email"]}, "long_conversations": "hierarchical"}
RECORDS = [
    conversation("mail", f"I am {MAIL}", "thanks", summary="Joe says who he is."),
    conversation("long", *["my parcel is late"] * 90, f"{MAIL} again", summary="A late parcel."),
]


def night(tmp_path: Path, **keys: Any) -> SummarizeConfig:
    """Return a night that follows the champion, and sets nothing but `keys`."""
    content = {
        "run": "night",
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / "out"),
        "adapter": str(tmp_path / "champion.json"),
        "limits": {"max_reject_fraction": 1},
    }
    return SummarizeConfig.model_validate(content | keys)


def test_a_night_writes_what_its_evaluation_scored(adapter, tmp_path):
    write_lines(tmp_path / "in.jsonl", RECORDS)
    promote_as_judged(tmp_path, adapter, **HOW)
    summarize(night(tmp_path))

    facts = manifest_of(tmp_path / "out")
    assert facts["departures"] == {}
    assert facts["identity"]["redaction"]["kinds"] == ["email"]
    mail, long = read_lines(tmp_path / "out" / "parts" / "part-00000.jsonl")
    assert (mail["redactions"], long["redactions"]) == (1, 1)
    assert long["parts"] > 1
    scored = {row["id"]: row["summary"] for row in read_lines(tmp_path / "judged/summaries.jsonl")}
    assert {row["id"]: row["summary"] for row in (mail, long)} == scored

    # A night that says otherwise, where redaction hides nothing from anybody.
    summarize(night(tmp_path, redaction=None, output=str(tmp_path / "other")))
    assert list(manifest_of(tmp_path / "other")["departures"]) == [
        "redaction none here, email when it was judged"
    ]


def test_a_night_quotes_nothing_that_its_adapter_wants_redacted(adapter, tmp_path):
    write_lines(tmp_path / "in.jsonl", RECORDS)
    promote_as_judged(tmp_path, adapter, **HOW)
    turns = [{"role": f"Mail {MAIL}", "text": "hi"}]
    write_lines(tmp_path / "in.jsonl", [RECORDS[0], {"id": "quoted", "turns": turns}])
    planned = plan_summarizing(night(tmp_path)).text()
    assert "1 reject" in planned
    assert "role 'Mail [EMAIL_1]'" in planned
    assert MAIL not in planned
    summarize(night(tmp_path))
    (reject,) = read_lines(tmp_path / "out" / "rejects" / "part-00000.jsonl")
    assert "role 'Mail [EMAIL_1]'" in reject["detail"]

    (tmp_path / "champion.json").unlink()
    assert MAIL not in plan_summarizing(night(tmp_path)).text(), "nobody knows what it wants"
