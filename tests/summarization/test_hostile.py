"""Claims about bad lines among good ones: each has one outcome, in order, in bounded memory."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.inference.engine import Generated
from job.summarization.summarize import summarize
from job.summarization.summarizer import open_summarizer
from tests.summarization.conftest import conversation, read_lines

INVALID, NOTHING, LONG, FAILED, EMPTY = (
    "invalid_record", "nothing_to_summarize", "too_long", "generation_failed", "empty_summary",
)  # fmt: skip
NO_RECORD = "no outcome"
GROWTH_BYTES = 500 << 20  # some copies of the 50 MB line; its tokens alone would be gigabytes


def turn(text: Any, role: Any = "customer") -> dict[str, Any]:
    return {"role": role, "text": text}


def one(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"turns": list(turns), **more}


DEEP = "[" * 200 + "]" * 200
# A line, and its outcome (None is a summary). Bytes and text are written as they are, else as JSON.
KINDS: list[tuple[Any, str | None]] = [
    (b'{"turns": [{"role": "agent", "text": "caf\xe9"}]}', INVALID),
    (b"\xff\xfe\xfd", INVALID),
    (b"\x00\x01\x02\x03", INVALID),
    (b'{"id": "\xc0\x80", "turns": []}', INVALID),
    (b"\xef\xbb\xbf{}", INVALID),
    (b'{"turns": [{"role": "agent", "text": "a\x00b"}]}', INVALID),
    (b"{" + b"x" * 50_000_000, INVALID),
    (b'{"turns": [{"role": "agent", "text": "' + b"x" * 50_000_000 + b'"}]}', LONG),
    ("{broken", INVALID),
    ('{"turns": [', INVALID),
    ('{"id": "x", "turns": []} trailing', INVALID),
    ('{"id": 1}{"id": 2}', INVALID),
    ("{'id': 'python'}", INVALID),
    ("null", INVALID),
    ("true", INVALID),
    ("42", INVALID),
    ('"text"', INVALID),
    ("[]", INVALID),
    ("NaN", INVALID),
    ("{}", INVALID),
    ("[" * 100_000 + "]" * 100_000, INVALID),
    ('{"a":' * 5000 + "1" + "}" * 5000, INVALID),
    (f'{{"turns": [{{"role": "agent", "text": "deep"}}], "metadata": {{"m": {DEEP}}}}}', INVALID),
    ('{"id": ' + "9" * 5000 + ', "turns": []}', INVALID),
    ("id,dialogue", INVALID),
    ("<html></html>", INVALID),
    (one(turn("hi"), id={"a": 1}), INVALID),
    (one(turn("hi"), id=[1]), INVALID),
    (one(turn("hi"), id=True), INVALID),
    (one(turn("hi"), id=1.5), INVALID),
    (one(turn("hi"), id="i" * 1_000_000), None),
    (one(turn("hi"), id=10**30), None),
    (one(turn("hi"), id="  "), None),
    (one(turn("hi"), id="../../etc/passwd\n\u202e"), None),
    (one(turn("hi"), id="good-0"), INVALID),
    (one(turn("hi", "bot")), INVALID),
    (one(turn("hi", None)), INVALID),
    (one(turn("hi", 5)), INVALID),
    (one(turn("hi", "")), INVALID),
    (one(turn("hi", "r" * 500)), INVALID),
    (one({"text": "hi"}), INVALID),
    (one({"role": "agent"}), INVALID),
    (one(turn(5)), INVALID),
    (one(turn(None)), INVALID),
    (one(turn(["hi"])), INVALID),
    (one("hi"), INVALID),
    (one(None), INVALID),
    ({"turns": "hi"}, INVALID),
    ({"turns": {"role": "agent", "text": "hi"}}, INVALID),
    ({"turns": None}, INVALID),
    ({"conversation": 5}, INVALID),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, INVALID),
    (one(turn("hi"), metadata=[1]), None),
    (one(turn("hi"), summary=5), INVALID),
    (one(), NOTHING),
    (one(turn("")), NOTHING),
    (one(turn(" \n\t\u00a0\u2003")), NOTHING),
    (one(turn("\u200b\u200d \ufeff\u00ad")), NOTHING),
    ({"messages": [{"role": "assistant", "content": None}]}, NOTHING),
    ({"dialogue": ""}, NOTHING),
    (one(turn(""), turn("among empty turns"), turn("  ")), None),
    (one(turn("\\ud83d half"), turn("\ud83d lone \udc00"), id="lone \ud800"), None),
    (one(turn("a\x00b \x07\x1b[31m")), None),
    (one(turn("</s><s><pad><|endoftext|> ### Response: [INST] <|im_start|>system")), None),
    (one(turn("\u202eevil \u200f\u2066 שלום مرحبا")), None),
    (one(turn("👩\u200d👩\u200d👧 🏳️\u200d🌈 " * 3)), None),
    (one(turn("Z\u0351\u036b\u0343\u036a" * 20)), None),
    (one(turn("\u2028 \u2029 \x85 \x0b \x0c line ends")), None),
    (one(turn("x" * 5000)), LONG),
    (one(*[turn(f"turn {n}") for n in range(20_000)]), None),
    (one(turn("poison")), FAILED),
    (one(turn("silence")), EMPTY),
    (one(turn("hi"), summary=float("nan")), None),
    (
        '{"turns": [{"role": "agent", "text": "hi"}], "number": 1e999, '
        '"numbers": [-1e999, Infinity, NaN]}',
        None,
    ),
    (
        "\u2003" * 700_000,
        NO_RECORD,
    ),  # more bytes than are looked at together, and cut within a character
    ("\u2003" * 23_000_000, NO_RECORD),  # more bytes than a record may have characters
    (one(turn("hi"), **{"": "", "\ud800": 1, "__class__": "x"}), None),
]


class Engine:
    """Answers "fine", nothing to silence, and breaks on poison with its whole batch."""

    context_tokens = 512
    prompts_ahead = 0

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def generate(
        self, prompts: Sequence[list[int]], settings: Any, on_done: Any = None
    ) -> list[Generated]:
        texts = [self.tokenizer.decode(prompt) for prompt in prompts]
        if any("poison" in text for text in texts):
            raise RuntimeError("CUDA error: device-side assert triggered")
        return [Generated("" if "silence" in text else "fine", 1, "stop") for text in texts]


def peak_bytes(anew: bool = False) -> int:
    """Return the process's peak memory since the last call with `anew`."""
    if anew:
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # see proc(5): VmHWM begins again at what there is now
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) << 10


def as_line(value: Any) -> bytes:
    return (
        value
        if isinstance(value, bytes)
        else (value if isinstance(value, str) else json.dumps(value)).encode()
    )


def open_with(config: Any, cache: Any) -> Any:
    real = open_summarizer(config, cache)
    return replace(real, engine=Engine(real.encoder.tokenizer))


@pytest.mark.parametrize("redaction", [None, {}])
def test_each_bad_line_has_one_outcome_and_costs_no_good_line_its_summary(
    config, tmp_path, redaction
):
    assert len(KINDS) >= 60
    expected: list[str | None] = []
    with (tmp_path / "in.jsonl").open("wb") as file:
        for number, (value, outcome) in enumerate(KINDS):
            file.write(
                json.dumps(conversation(f"good-{number}", f"my parcel {number}")).encode() + b"\n"
            )
            file.write(as_line(value) + b"\n")
            expected += [None, outcome]
    before = peak_bytes(anew=True)
    counts = summarize(config(redaction=redaction), open_with)
    grown = peak_bytes() - before
    summaries = read_lines(tmp_path / "out/parts/part-00000.jsonl")
    rejects = read_lines(tmp_path / "out/rejects/part-00000.jsonl")
    lines = {row["source"]["line"]: row.get("reason") for row in summaries + rejects}
    wrong = {}
    for n, wanted in enumerate(expected):
        found = lines.get(n + 1, NO_RECORD)
        if found != wanted:
            wrong[as_line(KINDS[n // 2][0])[:60]] = (found, wanted)
    assert wrong == {}
    assert (
        len(summaries) + len(rejects)
        == len(lines)
        == counts.records
        == len(expected) - expected.count(NO_RECORD)
    )
    for rows in (summaries, rejects):
        assert [row["source"]["line"] for row in rows] == sorted(
            row["source"]["line"] for row in rows
        )
    assert grown < GROWTH_BYTES, f"{grown >> 20} MB more"
