"""Cleaning: named steps that take text out of turns before a model sees them.

Each step is a pure function of text. A turn in which nothing is left is dropped. Ids, references
and metadata stay as they are.

The steps `links`, `mentions`, `signatures` and `whitespace` are the classic recipe for tweets, with
three exceptions that keep what a customer says: an address like name@shop.com is no mention; carets
of a face (^_^, ^^) or a number (2^10) are no signature; and `<LINK>`, which stands for a link in
preprocessed copies, goes with the links.
"""

import html
import re
from collections.abc import Callable, Iterable, Sequence
from html.entities import html5

from job.config.data_sections import CleaningStep, ReadingSection
from job.conversations.record import Conversation, Reject, Turn
from job.telemetry import warn

LINK = re.compile(r"https?\S+|<LINK>")
MENTION = re.compile(r"(?<!\w)@\S+")
SIGNATURE = re.compile(r"(?<![\^\d])(?<!\^.)\^[^\W\d_][^\s^]*+(?!\^)")
ENTITY = re.compile(r"&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{1,31});")
TWEETS: tuple[CleaningStep, ...] = (
    "links",
    "mentions",
    "signatures",
    "html_entities",
    "whitespace",
)


def links(text: str) -> str:
    """Remove `http…` up to the next space, and the placeholder `<LINK>`."""
    return LINK.sub("", text)


def mentions(text: str) -> str:
    """Remove `@name` up to the next space, unless the @ is inside a word."""
    return MENTION.sub("", text)


def signatures(text: str) -> str:
    """Remove an agent's `^JI` up to the next space."""
    return SIGNATURE.sub("", text)


def html_entities(text: str) -> str:
    """Replace `&amp;` and the like, once, by their characters; what is no entity stays."""
    return ENTITY.sub(_character, text) if "&" in text else text


def whitespace(text: str) -> str:
    """Make each run of spaces and line breaks one space, and strip the text."""
    return " ".join(text.split())


STEPS: dict[CleaningStep, Callable[[str], str]] = {
    "links": links,
    "mentions": mentions,
    "signatures": signatures,
    "html_entities": html_entities,
    "whitespace": whitespace,
}


def resolve_steps(
    reading: ReadingSection, conversations: Sequence[Conversation] = ()
) -> tuple[CleaningStep, ...]:
    """Return the steps that `cleaning` of the config stands for.

    `auto` is the tweets' steps if most of `conversations` are TweetSumm's (DialogStudio's ids begin
    with its name), else `whitespace`. Decide once a run, not once a conversation, and use the same
    steps to train and to summarize.
    """
    if reading.cleaning == "tweets":
        return TWEETS
    if reading.cleaning != "auto":
        return tuple(reading.cleaning)
    tweets = sum(conversation.id.startswith("TweetSumm") for conversation in conversations)
    return TWEETS if 2 * tweets > len(conversations) else ("whitespace",)


def clean(conversation: Conversation, steps: Iterable[CleaningStep]) -> Conversation:
    """Return the conversation after `steps`, in their order, without turns that were left empty."""
    functions = [STEPS[step] for step in steps]
    turns = []
    for turn in conversation.turns:
        text = turn.text
        for function in functions:
            text = function(text)
        if text.strip():
            turns.append(turn if text == turn.text else Turn(turn.role, text))
    kept = tuple(turns)
    return conversation if kept == conversation.turns else conversation._replace(turns=kept)


def clean_or_reject(
    conversation: Conversation, steps: Iterable[CleaningStep]
) -> Conversation | Reject:
    """Return the conversation after `steps`, or a Reject (nothing_to_summarize) without turns."""
    cleaned = clean(conversation, steps)
    if cleaned.turns:
        return cleaned
    detail = f"no turn has any text after cleaning ({', '.join(steps)})"
    return Reject(conversation.source, "nothing_to_summarize", detail, conversation.id)


def clean_all(
    conversations: Sequence[Conversation], steps: Sequence[CleaningStep]
) -> list[Conversation]:
    """Return the conversations after `steps`.

    Those without turns are left out, and a warning is logged.
    """
    cleaned = [clean(conversation, steps) for conversation in conversations]
    kept = [conversation for conversation in cleaned if conversation.turns]
    if len(kept) < len(cleaned):
        warn(
            "conversations without text after cleaning are left out",
            left_out=len(cleaned) - len(kept),
        )
    return kept


def _character(match: re.Match[str]) -> str:
    known = match[1].startswith("#") or f"{match[1]};" in html5
    return html.unescape(match[0]) if known else match[0]
