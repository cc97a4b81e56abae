"""E-mail addresses, links and handles of a text."""

import regex

_EMAIL = regex.compile(r"[\p{L}\p{Nd}._%+\-]+@[\p{L}\p{Nd}\-]+(?:\.[\p{L}\p{Nd}\-]+)+")
_LINK = regex.compile(r"(?:https?://|www\.)[^\s<>\"'“”()\[\]]+", regex.IGNORECASE)
_DOMAIN = regex.compile(
    r"(?<![@\w.])[a-z0-9\-]+(?:\.[a-z0-9\-]+)*"
    r"\.(?:com|net|org|info|io|co|uk|de|fr|es|it|nl|eu|us|ca|au|in|br|jp|cn|app|shop|store|me|ly|gl"
    r"|ai|xyz|dev|tech|online|site|cloud|gov|edu|biz|ch|se|dk|fi|pl|pt|ie|nz|za|mx|ru|kr|gg)"
    r"(?:/[^\s<>\"'()\[\]]*)?(?![\p{L}\p{Nd}@])",
    regex.IGNORECASE,
)
_HANDLE = regex.compile(r"(?<![\p{L}\p{Nd}._@])@([\p{L}\p{Nd}_]{2,})")
_LETTER = r"[\p{L}\p{Nd}_\-]"
MIN_LETTERS_WITHOUT_AT = 5  # "come to me" has no handle @me, "asks spotifycares" has one
_ENDS = ".,;:!?…»”’'\")]}/"


def contacts_in(text: str) -> list[str]:
    """Return the addresses, links and handles of the text, once each, as they are written."""
    found: dict[str, None] = {}
    rest = text
    for pattern in (_EMAIL, _LINK, _DOMAIN, _HANDLE):
        for match in pattern.finditer(rest):
            found[match[0].rstrip(_ENDS)] = None
        rest = pattern.sub(" ", rest)
    return list(found)


def is_contact_known(contact: str, conversation: str) -> bool:
    """Return True if the conversation, in lower case, has the whole contact or a longer link.

    A link may lack its scheme, and a handle of some letters its @.
    """
    contact = contact.casefold()
    if contact.startswith("@"):
        is_clear = len(contact) > MIN_LETTERS_WITHOUT_AT or not contact[1:].isalpha()
        before = rf"(?<!{_LETTER}|\.)@{'?' if is_clear else ''}"
        plain = contact[1:]
    elif _EMAIL.fullmatch(contact):
        before, plain = r"(?<![\p{L}\p{Nd}._%+\-])", contact
    else:
        before, plain = rf"(?<!{_LETTER})", regex.sub(r"^(https?://)?(www\.)?", "", contact)
    whole = rf"{before}{regex.escape(plain)}(?!{_LETTER}|[.@]{_LETTER})"
    return regex.search(whole, conversation) is not None
