"""E-mail addresses, links and handles of a text."""

import regex

_EMAIL = regex.compile(r"[\p{L}\p{Nd}._%+\-]+@[\p{L}\p{Nd}\-]+(?:\.[\p{L}\p{Nd}\-]+)+")
_LINK = regex.compile(r"(?:https?://|www\.)[^\s<>\"'“”()\[\]]+", regex.IGNORECASE)
_DOMAIN = regex.compile(
    r"(?<![@\w.])[a-z0-9\-]+(?:\.[a-z0-9\-]+)*"
    r"\.(?:com|net|org|info|io|co|uk|de|fr|es|it|nl|eu|us|ca|au|in|br|jp|cn|app|shop|store|me|ly|gl)"
    r"(?:/[^\s<>\"'()\[\]]*)?(?![\p{L}\p{Nd}@])",
    regex.IGNORECASE,
)
_HANDLE = regex.compile(r"(?<![\p{L}\p{Nd}._@])@([\p{L}\p{Nd}_]{2,})")
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
    """Return True if the conversation, in lower case, has the contact or a longer one of it.

    A handle may lack its @, a link its scheme.
    """
    plain = regex.sub(r"^(https?://)?(www\.)?|^@", "", contact.casefold())
    return plain in conversation
