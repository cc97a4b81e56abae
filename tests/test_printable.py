"""Claims about text that leaves recap: no secret in any form, no control character, no forged line.

A forged line is a text from outside that looks like one of recap's own lines.
"""

import base64
import itertools
import json
import os
import random
import time
import unicodedata
from urllib.parse import quote, quote_plus

import pytest

from job.printable import entry, masked, printable, visible, without_secrets

KEY = "wJalr/XUtn+FEMI=K7MDENG"
SHAPES = {
    "AWS": "AKIA" + "Q7" * 8,
    "AWS session": "ASIA" + "Q7" * 8,
    "Hugging Face": "hf_" + "aB3" * 11,
    "GitHub": "ghp_" + "aB3" * 12,
    "GitHub, fine-grained": "github_pat_" + "aB3" * 12,
    "GitLab": "glpat-" + "aB3" * 8,
    "OpenAI": "sk-proj-" + "aB3" * 12,
    "Slack": "xoxb-" + "123-aB" * 4,
    "Google": "AIza" + "aB345" * 7,
    "web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
    "PEM": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----",
    "Stripe": "sk_live_" + "aB3" * 8,
    "npm": "npm_" + "aB3" * 12,
    "PyPI": "pypi-AgE" + "aB3" * 12,
    "Google, access": "ya29." + "aB3" * 12,
    "Google, client": "GOCSPX-" + "aB3" * 9,
    "PGP": "-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQdG\n-----END PGP PRIVATE KEY BLOCK-----",
    "PEM without an end": "-----BEGIN PRIVATE KEY-----\nMIIEow",
}


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        repr(KEY),
        json.dumps(KEY),
        quote(KEY, safe=""),
        "wJalr%2fXUtn%2bFEMI%3dK7MDENG",
        quote_plus(KEY),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        *(base64.b64encode(f"{user}:{KEY}".encode()).decode() for user in ("", "u", "me", "you")),
    ],
)
def test_every_form_of_a_secret_is_hidden(monkeypatch, form):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    shown = masked(f"before {form} after")
    for start in range(len(form) - 7):
        if form[start : start + 8].lower() in KEY.lower():
            assert form[start : start + 8] not in shown
    # The ends of base64 depend on the bytes around the secret too, and may stay.
    assert len(shown) < len("before *** after") + 8
    assert shown.startswith("before ")
    assert shown.endswith(" after")


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "DB_PASSWORD", "PGPASSWD", "SSH_PASSPHRASE", "MYSQL_PWD", "SMTP_PASS", "JWT"),
        *("PRIVATE_KEY", "privatekey", "HTTP_AUTHORIZATION", "OPENAI_API_KEY", "MY_CREDENTIALS"),
    ],
)
@pytest.mark.parametrize("value", ["hunter2", "pw!x", "correct horse battery"])
def test_a_variable_with_the_name_of_a_secret_is_hidden(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert masked(f"got '{value}', {value}.") == "got '***', ***."


def test_short_secrets_are_hidden_as_whole_words_alone(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "cart")
    assert masked("cart, carton, go-cart: discarted") == "***, carton, go-***: discarted"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "/srv/data"),
        ("OLDPWD", "/srv/data"),
        ("HF_TOKEN_PATH", "/srv/data"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/srv/data"),
        ("TOKENIZERS_PARALLELISM", "disabled"),
        ("MAX_TOKENS", "/srv/data"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "true"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("DB_PASSWORD", ""),
        ("DB_PASSWORD", "2048"),
    ],
)
def test_text_without_secrets_is_shown(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    text = f"{value} is in /srv/data, disabled, true, 1, 2048 test"
    assert masked(text) == text


@pytest.mark.parametrize("name", SHAPES)
def test_a_secret_without_a_variable_is_known_by_its_shape(name):
    assert masked(f"x {SHAPES[name]}") == "x ***"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://me:pw@host/x, https://a@b/c", "https://***@host/x, https://***@b/c"),
        ("https://ghp_short@host/x", "https://***@host/x"),
        ("https://:pw@host", "https://***@host"),
        ("see https://me:pa/ss@host/x", "see https://***@host/x"),
        ("redis://me:p@ss@host:1", "redis://***@host:1"),
        ('"https://me:pw@host"', '"https://***@host"'),
        ("s3://key:secret@bucket/prefix", "s3://***@bucket/prefix"),
        (
            "https://h/a?X-Amz-Signature=ab&x-amz-date=1&v=2",
            "https://h/a?X-Amz-Signature=***&x-amz-date=***&v=2",
        ),
        ("https://h/a?se=1&sig=a%2Fb", "https://h/a?se=1&sig=***"),
        (
            "https://h/a?Expires=1&Signature=ab~&Key-Pair-Id=K",
            "https://h/a?Expires=1&Signature=***&Key-Pair-Id=***",
        ),
        ("https://h/a#access_token=ab", "https://h/a#access_token=***"),
        ("https://h/a?token=ab 'rest'", "https://h/a?token=*** 'rest'"),
        ("{'Authorization': 'Bearer abcdefgh.ij'}", "{'Authorization': 'Bearer ***'}"),
        ("Authorization: Basic bWU6cHc=", "Authorization: Basic ***"),
        ("X-Amz-Security-Token: FwoGZXIvYXdz", "X-Amz-Security-Token: ***"),
        ("{'X-aws-ec2-metadata-token': b'AQAAAB=='}", "{'X-aws-ec2-metadata-token': b'***'}"),
        ("x-api-key: aB3aB3aB3", "x-api-key: ***"),
        ("AccountName=a;AccountKey=aB3aB3aB3aB3aB3aB3aB3==", "AccountName=a;AccountKey=***"),
    ],
)
def test_logins_and_signatures_are_hidden_in_urls(text, wanted):
    assert masked(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/name@main/folder",
        "hf://datasets/org/name@refs%2Fpr%2F1",
        "http://localhost:9000/bucket/name@v1",
        "mail me@example.com about https://host/x",
        "s3://bucket/a:b@c.jsonl",
        "https://h/a?page=2&sort=key",
        "task-with-a-very-long-hyphenated-name",
        "the authorization: check it, Basic information",
    ],
)
def test_uris_and_paths_are_shown_whole(text):
    assert masked(text) == text


# Bidirectional classes of the characters that change the order in which text is shown.
REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def test_every_control_character_is_shown_as_an_escape():
    for code in itertools.chain(range(0x3000), range(0xD7F0, 0xE010), range(0xFFF0, 0x10010)):
        character = chr(code)
        is_unsafe = unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")
        is_unsafe |= unicodedata.bidirectional(character) in REORDERING
        is_unsafe |= character in "\u061c\u200e\u200f"
        if character != "\n":
            assert (visible(character) != character) == is_unsafe, hex(code)
            visible(character).encode()
    assert visible("a\nb\x85") == "a\nb\\x85"
    assert visible("a\nb", one_line=True) == "a\\nb"


def test_only_the_first_line_of_an_entry_is_flush_left():
    shown = entry('error: a\nerror: forged\r\n{"level": "info"}\n\n  ours\x0berror: forged')
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == ["error: a", ""]


def test_hiding_takes_time_in_proportion_to_the_text(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", KEY)
    pieces = [
        *("eyJ-", "eyJabcdefghij.", "://", "://a:", "://a:b@", "?x-", "?sig", "a-"),
        *("-----BEGIN ", "hf_", "sk-", "-----BEGIN PRIVATE KEY-----", "-----END ", "PRIVATE KEY"),
        *("Authorization: ", "Bearer ", "?a_", "\x1b"),
    ]
    generator = random.Random(7)
    texts = [piece * (100_000 // len(piece)) for piece in pieces]
    for _ in range(10):
        words = generator.choices([*pieces, "=", "&", " ", "@", "/", "."], k=20_000)
        texts.append("".join(words))

    started = time.process_time()
    for text in texts:
        printable(text)
    # It takes two seconds. With a quadratic pattern, some of these texts take minutes each.
    assert time.process_time() - started < 30


def test_a_change_of_the_environment_is_seen_at_once(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "first-token")
    assert masked("first-token second-token") == "*** second-token"
    monkeypatch.setitem(os.environ, "HF_TOKEN", "second-token")
    assert masked("first-token second-token") == "first-token ***"


def test_shapes_alone_need_no_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", KEY)
    assert without_secrets(f"{KEY} https://a:b@c") == f"{KEY} https://***@c"
