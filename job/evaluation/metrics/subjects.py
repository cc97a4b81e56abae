"""Subjects of English sentences: names that are the first word, where each word has a capital.

A first word is a name where somebody says or does what only people do ("Andrew said"), if it is no
usual word for a person or a text. So *Andrew was late* is not seen, and *Delivery was late* is no
name.
"""

import regex

# First words that speak, write or act in summaries, or seem to, and are no names.
_USUAL_WORDS = (
    "someone somebody anyone anybody everyone everybody nobody everything nothing something "
    "anything one two three four five both all some many most few several none neither either "
    "others another people person man woman husband wife sister brother mother father son "
    "daughter friend family parent partner neighbour neighbor manager supervisor colleague staff "
    "staffer employee worker owner seller vendor merchant sender recipient driver courier "
    "technician engineer developer operator host crew pilot doctor specialist expert member "
    "subscriber shopper traveler traveller teams brand business airline bank store shop "
    "supermarket restaurant hotel firm provider carrier retailer supplier office department "
    "branch police bot chatbot assistant system website site page policy message letter "
    "text note notice notification reply response answer post tweet ad advert article book "
    "document receipt invoice bill statement status screen error phone device server program "
    "software tool update tracking link form code order delivery package parcel shipment refund "
    "flight train today yesterday now first second last next soon again still already always "
    "never just even please sorry thanks eventually here we you ive weve youve theyve be been am "
    "is are was were has had have got get gets rest"
)
_USUAL = frozenset(_USUAL_WORDS.split())
_ADVERB = regex.compile(r"\p{L}{4,}ly")  # not Billy

# Beginnings of regular verbs. What is done needs an object after it, because "Refund promised." has
# no subject; what is said needs none: "Andrew replied."
_SPEAKING = (
    "apologi[sz]|ask|complain|respond|repl(?=y|ie)|agre|disagre|enquir|inquir|want|wonder"
    "|tr(?=y|ie)"
)
_DOING = (
    "admit|advis|answer|assist|assur|claim|clarif(?=y|ie)|confirm|contact|demand|den(?=y|ie)"
    "|explain|express|help|inform|instruct|invit|mention|offer|promis|propos|provid|reassur"
    "|recommend|refus|reject|remind|report|request|shar|show|stat|suggest|thank|updat"
)
_ANY = f"(?:{_SPEAKING}|{_DOING})(?:ie|e|y)?"
_OBJECT = "an?|the|that|him|her|them|it|his|their|customers?|agents?"
_SAYS_OR_DOES = regex.compile(
    rf"""\s+(?:(?:also|then|just|only)\s+)?(?:
        {_ANY}s
        |(?:{_SPEAKING})(?:ie|e)?d
        |(?:(?:{_DOING})(?:ie|e)?d|sent)\s+(?:{_OBJECT})
        |says|said|tells|told|sends|gives|gave|writes|wrote|thinks|thought
        |(?:is|was)\s+(?:(?:{_ANY}|say|tell|send|giv|writ)ing|happy|glad|sorry)
        |ha[sd]\s+(?:{_ANY}d|said|told|sent|given|written)
    )\b""",
    regex.VERBOSE,
)


def is_subject(word: str, rest: str) -> bool:
    """Return True if the first word of a sentence is somebody who says or does the rest."""
    if word.casefold() in _USUAL or _ADVERB.fullmatch(word):
        return False
    return _SAYS_OR_DOES.match(rest) is not None
