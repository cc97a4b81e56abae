"""WebVTT and SRT: cues with times → the lines of a transcript, each voice named.

Text of cues in, `SpeakerLine`s out. Notes, styles, regions, cue ids and settings are left out; text
between two cues belongs to the cue above it, so that none is lost.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from job.conversations.speaker_lines import IsKnown, SpeakerLine, read_line

WEBVTT = re.compile(r"\ufeff?\s*WEBVTT(?:[ \t]|$)")
MOMENT = r"(?:\d{1,4}:)?\d{1,2}:\d{2}[.,]\d{1,3}"
TIMING = re.compile(rf"\s*{MOMENT}[ \t]*-->[ \t]*{MOMENT}(?:[ \t]|$)")
NO_CUE = ("NOTE", "STYLE", "REGION")
LOOKED_AT = 20  # lines, of which the first two that are not blank are a cue's number and its times
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t]+(?P<name>[^<>]*)>")
TAG = re.compile(r"</?(?:v|c|i|b|u|s|font|ruby|rt|lang)(?:[.\s][^<>]*)?>|<\d[\d:.]*>|\{\\an?\d\}")
CHANGE = re.compile(r"\s*(?:>>+|-(?!-))[ \t]*")  # another speaker begins, in captions for the deaf
CUE = "[cue]"  # the stamp of a line without a voice in a text that has voices


class _Line(NamedTuple):
    number: int
    text: str


def caption_lines(lines: Sequence[str], is_known: IsKnown) -> list[SpeakerLine] | None:
    """Return the lines of WebVTT or SRT; None if the lines are neither.

    A line without a voice among lines with voices has the stamp CUE, so that it counts as unsure.
    """
    if not is_captions(lines):
        return None
    cues = list(_cues([_Line(number, line) for number, line in enumerate(lines, 1)]))
    if any(VOICE.search(line.text) for cue in cues for line in cue):
        return [line for cue in cues for line in _voice_lines(cue)]
    return [line for cue in cues for line in _plain_lines(cue, is_known)]


def is_captions(lines: Sequence[str]) -> bool:
    """Return True if the lines begin like WebVTT or SRT: a header, or the times of a cue."""
    if lines and WEBVTT.match(lines[0]):
        return True
    written = [line for line in lines[:LOOKED_AT] if line.strip()][:2]
    return any(TIMING.match(line) for line in written)


def first_caption(lines: Sequence[str]) -> int | None:
    """Return the index of the WebVTT header or of the first cue; None if there is neither."""
    for index, line in enumerate(lines):
        if WEBVTT.match(line):
            return index
        if TIMING.match(line):
            has_number = index > 0 and lines[index - 1].strip().isdigit()
            return index - has_number
    return None


def _cues(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Yield the lines of text of each cue."""
    cue: list[_Line] = []
    for block in _blocks(lines):
        is_aside = WEBVTT.match(block[0].text) or block[0].text.split(maxsplit=1)[0] in NO_CUE
        timings = [index for index, line in enumerate(block) if TIMING.match(line.text)]
        if is_aside and not timings:  # notes have no times
            continue
        begin = 0
        for index in timings:
            has_id = index > begin and (index == 1 or block[index - 1].text.strip().isdigit())
            cue += [] if is_aside else block[begin : index - has_id]
            if cue:
                yield cue
            cue = []
            begin = index + 1
        cue += block[begin:]
    if cue:
        yield cue


def _blocks(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    """Yield the lines between two blank ones."""
    block: list[_Line] = []
    for line in lines:
        if line.text.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _voice_lines(cue: Sequence[_Line]) -> Iterator[SpeakerLine]:
    """Yield a line for each voice tag of a cue, with the text up to the next.

    Text before the first tag has no speaker.
    """
    text = " ".join(line.text.strip() for line in cue)
    number = cue[0].number
    before, *voices = VOICE.split(text)
    if _plain(before):
        yield SpeakerLine(number, _plain(before), stamp=CUE, text=_plain(before))
    for name, said in zip(voices[::2], voices[1::2], strict=True):
        yield SpeakerLine(number, _plain(said), "voice", _plain(name), _plain(said))


def _plain_lines(cue: Sequence[_Line], is_known: IsKnown) -> Iterator[SpeakerLine]:
    """Yield the lines of a cue without voice tags, read as those of any transcript."""
    texts = [_plain(line.text) for line in cue]
    has_dashes = len(texts) > 1 and all(text.startswith("-") for text in texts)
    for line, text in zip(cue, texts, strict=True):
        change = CHANGE.match(text) if has_dashes or text.startswith(">>") else None
        read = read_line(line.number, text[change.end() :] if change else text, is_known)
        is_unnamed = change is not None and read.form in ("none", "alone")
        yield read._replace(form="change", raw=text) if is_unnamed else read


def _plain(text: str) -> str:
    """Return the text without tags, its character references resolved."""
    return html.unescape(TAG.sub("", text)).strip()
