"""Text for terminals and logs: no secrets, no control characters, no forged lines.

`printable` is for whole screens, `entry` for one message. For text that is stored or drawn
otherwise, `masked` only hides secrets, and `visible` only escapes control characters. The time of
each is linear in the length of the text.
"""

import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus

HIDDEN = "***"
MIN_SECRET_CHARACTERS = 4  # a shorter value is part of too many words
MIN_CHARACTERS_ANYWHERE = 8  # a shorter secret is hidden only as a whole word

# Names of tokenizers and of limits of tokens are left out, and so are PWD and OLDPWD, which are
# folders. DB_PWD is a password.
_SECRET_NAME = re.compile(
    r"TOKEN(?!S$|S_|IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|_PASS$|[^D]_PWD$"
    r"|ACCESS_KEY|API_?KEY|PRIVATE_?KEY|CREDENTIAL|AUTHORIZATION|BEARER|JWT",
    re.IGNORECASE,
)
# A variable with the location of a secret has none.
_PATH_NAME = re.compile(r"(_FILE|_PATH|_URI)$", re.IGNORECASE)
# Short values that are no secrets in such variables: switches, logins of stores on loopback.
_PLAIN_WORDS = frozenset(["auto", "demo", "dummy", "false", "none", "null", "true", "test"])

_SECRET_SHAPES = re.compile(
    r"\bhf_(?=[A-Za-z0-9]*[A-Z0-9])[A-Za-z0-9]{16,}"  # Hugging Face
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # OpenAI and others
    r"|\bAIza[\w-]{35}|\bxox[a-z]-[A-Za-z0-9-]{10,}"  # Google, Slack
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*"  # a JSON web token
    r"|\b[sr]k_(?:live|test)_\w{16,}"  # Stripe
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-AgE[\w-]{16,}"  # registries of packages
    r"|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}"  # Google's OAuth
    r"|(?<=AccountKey=)[A-Za-z0-9+/=]{20,}"  # a connection string of Azure
    r"|-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# Signatures in URLs. All of `X-Amz-…` is hidden: without its signature such a URL is of no use.
_SIGNED_QUERY = re.compile(
    r"([?&#](?:x-(?:amz|goog|oss|cos)-[\w-]*|awsaccesskeyid|googleaccessid|key-pair-id|policy"
    r"|(?:[\w-]*[_-])?(?:sig|signature|token|key|secret|password|credential))=)[^&#\s\"'<>]+",
    re.IGNORECASE,
)
_URL = re.compile(r"://([^\s\"'<>`]+)")
# A header of HTTP, as it is sent or in a mapping.
_HEADER = re.compile(
    r"\b((?i:authorization)[\"']?\s?[:=]\s?[\"']?(?:Basic |Bearer |Token )|Bearer "
    r"|(?i:x-amz-security-token|x-aws-ec2-metadata-token|(?:x-)?api-key)[\"']?\s?[:=]\s?b?[\"']?)"
    r"[\w.~+/=-]{8,}"
)

_LINE_SEPARATORS = "\u2028\u2029"
_BIDI_CONTROLS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROLS = re.compile(
    f"[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f{_LINE_SEPARATORS}{_BIDI_CONTROLS}\ud800-\udfff]"
)
_FLUSH_LEFT = re.compile(r"\n(?=\S)")


def printable(text: str) -> str:
    """Return the text without secrets and control characters, with its line breaks."""
    return visible(masked(text))


def entry(text: str) -> str:
    """Return one `printable` log entry or error, with every line but the first indented.

    Thus a line break in a foreign name cannot start a forged entry.
    """
    return _FLUSH_LEFT.sub("\n  ", printable(text))


def visible(text: str, one_line: bool = False) -> str:
    r"""Return the text with control characters as escapes (`\x1b`, `\u202e`).

    Control characters are those of Unicode's category Cc but the line break, the line and paragraph
    separators, the controls of writing direction, and halves of surrogate pairs, which no encoding
    can write. With `one_line`, line breaks are escaped too.
    """
    if text.isascii() and text.isprintable():
        return text
    escaped = _CONTROLS.sub(_escape, text)
    return escaped.replace("\n", "\\n") if one_line else escaped


def number_of(count: int, one: str, more: str) -> str:
    """Return a count with its noun: `number_of(1, "file", "files")` is `1 file`."""
    return f"{count:,} {one if count == 1 else more}"


def masked(text: str) -> str:
    """Return the text without secrets.

    Secrets are the values of variables of the environment with a secret's name, and what looks like
    a secret. Values are found as they are, in JSON, in Python's repr, percent-encoded and in
    base64. A number of fewer than 8 digits is not hidden, as it could be any other number.
    """
    values = tuple(value for name, value in os.environ.items() if value and _is_secret(name, value))
    if values:
        text = _pattern(values).sub(HIDDEN, text)
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """Return the text without what looks like a secret, whatever the environment has.

    These are keys of known services, logins and signatures in URLs, and authorization headers.
    """
    text = _SECRET_SHAPES.sub(HIDDEN, text)
    if "://" in text:
        text = _URL.sub(_without_login, text)
    if "=" in text:
        text = _SIGNED_QUERY.sub(rf"\g<1>{HIDDEN}", text)
    return _HEADER.sub(rf"\g<1>{HIDDEN}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _is_secret(name: str, value: str) -> bool:
    if (
        not _SECRET_NAME.search(name)
        or _PATH_NAME.search(name)
        or len(value) < MIN_SECRET_CHARACTERS
    ):
        return False
    if len(value) >= MIN_CHARACTERS_ANYWHERE:
        return True
    return not value.isdecimal() and value.lower() not in _PLAIN_WORDS


@lru_cache(maxsize=8)
def _pattern(values: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern of every form of the values.

    The longest come first, as one may be the start of another.
    """
    forms = {form for value in values for form in _forms(value)}
    longest_first = sorted(forms, key=len, reverse=True)
    return re.compile("|".join(map(_whole, longest_first)))


def _whole(form: str) -> str:
    pattern = re.escape(form)
    return pattern if len(form) >= MIN_CHARACTERS_ANYWHERE else rf"(?<!\w){pattern}(?!\w)"


def _forms(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield json.dumps(value)[1:-1]
    yield repr(value)[1:-1]
    raw = value.encode("utf-8", "surrogateescape")
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield encoded
        yield re.sub("%..", lambda code: code[0].lower(), encoded)
    if len(value) >= MIN_CHARACTERS_ANYWHERE:
        yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[str]:
    """Yield the base64 characters that depend on the value alone, for each of its three alignments.

    The value may follow other bytes, as in `user:token`.
    """
    for before in range(3):
        first = -(-before * 8 // 6)
        last = (before + len(raw)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(bytes(before) + raw).decode()[first:last]


def _without_login(found: re.Match[str]) -> str:
    """Hide the user and password of a URL, even if a password has an unescaped `@` or `/`."""
    login, at, rest = found[1].rpartition("@")
    _user, colon, password = login.partition("/")[0].partition(":")
    # The @ of `host/name@revision` and of `host:9000/name@1` does not end a login.
    is_path = "/" in login and (not colon or password.isdecimal())
    if not at or is_path:
        return found[0]
    return f"://{HIDDEN}@{rest}"
