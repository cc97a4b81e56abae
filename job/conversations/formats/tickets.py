"""Tickets and conversations of help desks, as the APIs of Zendesk and Intercom write them.

Notes between colleagues are left out because the customer never saw them. HTML becomes the text
that a reader sees. Each key that is not used becomes metadata.
"""

import re
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any

from job.config.data_sections import ReadingSection
from job.conversations.draft import (
    Draft,
    RecordError,
    draft,
    kind,
    metadata_of,
    names,
    role_of,
    shown,
)
from job.conversations.record import Turn
from job.conversations.references import references_of, summary_keys

COMMENTS, PARTS = "comments", "conversation_parts"
ZENDESK_ROLES = {"end-user": "customer", "agent": "agent", "admin": "agent"}
INTERCOM_ROLES = {
    "user": "customer", "lead": "customer", "contact": "customer",
    "admin": "agent", "bot": "agent", "team": "agent",
}  # fmt: skip
OTHERS = "others"
UNSAID_PARTS = ("note", "assignment")  # the type of a part that no customer sees has one of these

TAG = re.compile(r"/?([a-zA-Z][a-zA-Z0-9]*)(?:[^>\"']|\"[^\"]*\"|'[^']*')*+>")
BLOCKS = re.compile(
    "address|article|blockquote|br|d[dlt]|div|fieldset|figure|footer|form|h[1-6]|header|hr|li|main|"
    "nav|[ou]l|p|pre|section|table|tr"
)
UNSEEN = frozenset(("script", "style", "head", "title", "template"))
SPACE = re.compile(r"[ \t\r\n\f\xa0]+")


def parse_zendesk(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """Return one ticket with its `comments`. Raise RecordError if it is not one.

    The author of a comment is known by `author_id`: the `requester_id` is the customer, the others
    have their role in `users`. Of those who have none there, people who were only copied may be of
    either side, and all others are agents. An author of neither side is labelled by the id, if
    `data.roles` has it or keeps all labels.
    """
    comments = _objects(record.get(COMMENTS), COMMENTS)
    roles = _zendesk_roles(record)
    turns: list[Turn] = []
    for number, comment in enumerate(comments, 1):
        if comment.get("public") is False:
            continue
        label = _zendesk_label(comment.get("author_id"), roles, reading, number)
        turns += _turn(label, _comment_text(comment, number), reading)
    keys = summary_keys(record, reading)
    used = {COMMENTS, "users", "description", *keys, "summaries", id_key}
    return draft(turns, references_of(record, keys), metadata_of(record, used))


def parse_intercom(record: Mapping[str, Any], reading: ReadingSection, id_key: str | None) -> Draft:
    """Return one conversation: its `source`, then its `conversation_parts`.

    Raise RecordError if the record is not one.
    """
    parts = record.get(PARTS)
    if isinstance(parts, Mapping):
        parts = parts.get(PARTS)
    source = record.get("source")
    messages = [*([source] if isinstance(source, Mapping) else []), *_objects(parts, PARTS)]
    turns: list[Turn] = []
    for number, message in enumerate(messages):
        if any(word in str(message.get("part_type", "")) for word in UNSAID_PARTS):
            continue
        body = message.get("body")
        if body is None:  # closed, snoozed, rated and the like
            continue
        if not isinstance(body, str):
            raise RecordError(f"part {number}: body is {kind(body)}, wanted text")
        author = message.get("author")
        label = author.get("type") if isinstance(author, Mapping) else None
        if not isinstance(label, str):
            raise RecordError(f"part {number} has no author.type; found {names(message)}")
        turns += _turn(INTERCOM_ROLES.get(label, label), text_of_html(body), reading)
    keys = summary_keys(record, reading)
    used = {PARTS, "source", *keys, "summaries", id_key}
    return draft(turns, references_of(record, keys), metadata_of(record, used))


def is_zendesk(record: Mapping[str, Any]) -> bool:
    """Return True for a record with comments as Zendesk writes them."""
    comments = record.get(COMMENTS)
    if not isinstance(comments, list):
        return False
    return "requester_id" in record or any(
        isinstance(comment, Mapping) and "author_id" in comment for comment in comments
    )


def text_of_html(html: str) -> str:
    """Return the text of an HTML fragment: a line for each block, entities resolved.

    Nothing is loaded and nothing is run. Not by Python's HTMLParser: 300 kB of `<a <a <a …`, which
    anybody can write into a chat, keeps it busy for minutes. This takes one pass.
    """
    if "<" not in html and "&" not in html:
        return html
    before, *pieces = _without_comments(html).split("<")
    text = [SPACE.sub(" ", before)]
    hidden = 0  # open elements whose text is invisible
    for piece in pieces:
        tag = TAG.match(piece)
        said = piece[tag.end() :] if tag else f"<{piece}"
        name = tag[1].lower() if tag else ""
        if name in UNSEEN:
            hidden = max(0, hidden + (-1 if piece.startswith("/") else 1))
        if BLOCKS.fullmatch(name):
            text.append("\n")
        if not hidden:
            text.append(SPACE.sub(" ", said))
    lines = (SPACE.sub(" ", unescape(line)).strip(" ") for line in "".join(text).split("\n"))
    return "\n".join(line for line in lines if line)


def _objects(value: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise RecordError(f"{where} is {kind(value)}, wanted a list")
    for number, item in enumerate(value, 1):
        if not isinstance(item, Mapping):
            raise RecordError(f"{where}: item {number} is {kind(item)}, wanted an object")
    return value


def _zendesk_roles(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the roles by the ids of authors that the ticket mentions; all others' under OTHERS."""
    roles: dict[str, str] = {}
    requester = record.get("requester_id")
    if requester is None and isinstance(record.get("requester"), Mapping):
        requester = record["requester"].get("id")
    if requester is not None:
        for key in ("collaborator_ids", "email_cc_ids"):
            copied = record.get(key)
            if isinstance(copied, list):
                roles.update({str(id): "" for id in copied})
        roles[OTHERS] = "agent"
    for user in _objects(record.get("users") or [], "users"):
        roles[str(user.get("id"))] = ZENDESK_ROLES.get(str(user.get("role")), "")
    return roles | ({str(requester): "customer"} if requester is not None else {})


def _zendesk_label(
    author: Any, roles: Mapping[str, str], reading: ReadingSection, number: int
) -> str:
    role = roles.get(str(author), roles.get(OTHERS))
    if author is not None and role:
        return role
    if author is not None and (reading.roles == "as_written" or str(author) in reading.roles):
        return str(author)
    raise RecordError(
        f"nobody can tell who wrote comment {number} (author_id {shown(author)}): the ticket needs "
        "its requester_id, and users with id and role for who is only copied; or name authors by "
        'their ids (data.roles: {"7": customer}), or keep the ids as labels '
        "(data.roles: as_written)"
    )


def _comment_text(comment: Mapping[str, Any], number: int) -> str:
    for key in ("plain_body", "body", "html_body"):
        text = comment.get(key)
        if isinstance(text, str):
            return text_of_html(text) if key == "html_body" else text
        if text is not None:
            raise RecordError(f"comment {number}: {key} is {kind(text)}, wanted text")
    raise RecordError(f"comment {number} has no body; found {names(comment)}")


def _turn(label: str, text: str, reading: ReadingSection) -> Iterator[Turn]:
    role = role_of(label, reading)
    if role is not None:
        yield Turn(role, text)


def _without_comments(html: str) -> str:
    """Remove `<!-- … -->` and `<!doctype …>`; one that is not closed stays text."""
    kept = []
    end = 0
    while (start := html.find("<!", end)) >= 0:
        closing = "-->" if html.startswith("<!--", start) else ">"
        found = html.find(closing, start)
        if found < 0:
            break
        kept.append(html[end:start])
        end = found + len(closing)
    return "".join([*kept, html[end:]])
