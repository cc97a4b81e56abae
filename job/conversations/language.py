"""Guess the language of a text by the words that are most common in it.

Letters of another script than Latin name the script alone. In Latin letters, the language is the
one whose most common words make up the largest share of the text. No model and no dictionary is
needed, so a short text without such words has no language here.
"""

import regex

UNKNOWN = "unknown"
MAX_CHARACTERS = 20_000  # of a text that are looked at
MIN_SHARE = 0.1  # of all words; common words are 25% to 50% of a text in their language
MIN_KANA_SHARE = 0.05  # of the signs: Japanese mixes them with Han, Chinese has none

_WORD = regex.compile(r"[\p{L}\p{M}]+")
_LATIN = regex.compile(r"\p{Latin}")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_SCRIPTS = {
    name: regex.compile(rf"\p{{{name}}}")
    for name in (
        "Cyrillic", "Arabic", "Han", "Hangul", "Greek", "Hebrew", "Thai", "Devanagari", "Bengali",
        "Tamil", "Telugu", "Gujarati", "Gurmukhi", "Kannada", "Malayalam", "Georgian", "Armenian",
        "Ethiopic", "Khmer", "Lao", "Myanmar", "Sinhala",
    )
}  # fmt: skip

# By ISO 639-1 code. A word may be common in several languages, and counts for each.
_COMMON_WORDS = {
    "en": "the and to of is in it you that for on my i have with this not be are was we your do "
    "will can me at so but please what no from",
    "es": "el la de que y en los se un una por con no para es lo las su al más pero me mi está si "
    "hay muy gracias le tengo ya hola del",
    "fr": "le la de et les des en un une que est pour pas je vous nous dans ce qui il au sur avec "
    "mon ne plus du bonjour votre ai merci c l d j",
    "de": "der die und das ist ich nicht ein eine zu den mit auf es sie für im von dem wir habe "
    "bitte sich auch kann mein ihre wie danke noch aber",
    "it": "il di che e la un una per non è sono con mi del si ho in lo le da i al grazie mio come "
    "ma più questo della buongiorno gli ci",
    "pt": "o de que e a do da em um uma não para com os no na se por eu mais as meu é você está "
    "obrigado foi mas ao tem isso minha são",
    "nl": "de het een en van ik is niet dat in op te je u voor met zijn mijn heb dit wat nog maar "
    "ook aan er bij naar we kan graag",
    "sv": "och att det i är jag en som på inte för med har av till den om mitt min ni kan så men "
    "ett vi hej tack från har du någon",
    "da": "og at det jeg er en i ikke på som for med har af til den mit min kan så men et vi hej "
    "tak fra du mig hvad nogen efter",
    "no": "og det jeg er en i ikke på som for med har av til den mitt min kan så men et vi hei "
    "takk fra du meg hva noen etter",
    "fi": "ja on ei se että en oli olen mutta minun ole niin kun myös tämä hei kiitos mitä voi jo "
    "jos ovat vain sitten miten nyt teidän voitte minulla",
    "pl": "i w na nie się z do to jest że jak co mi mam za o po od ale czy dla już dzień dobry "
    "dziękuję proszę moje tego mnie jestem",
    "cs": "a se na je že to v s z do jsem ale i si jak mi za o pro když není děkuji dobrý den "
    "můj tak už prosím byl mám jsme",
    "ro": "și de la nu în a cu este un o pe că mai sunt am din pentru ce să vă mi bună ziua se "
    "dar mulțumesc ați",
    "hu": "a az és nem hogy van egy is ez de meg csak már még kell ha mert köszönöm volt nekem "
    "vagy én kérem jó szeretném itt",
    "tr": "ve bir bu için ne de da çok var ben ama mi değil daha gibi olarak teşekkürler "
    "merhaba siz lütfen benim yok kadar",
    "id": "yang dan di saya tidak itu ini dengan untuk ada dari ke sudah bisa apa akan kami anda "
    "terima kasih belum juga mohon",
    "vi": "và của là không tôi có được cho một bạn này với đã các ở trong người để đến thì mình "
    "rồi ơn cảm",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in _COMMON_WORDS.items():
    for _word in set(_words.split()):
        _LANGUAGES_OF.setdefault(_word, []).append(_language)


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a language in Latin letters, or the name of another script.

    Return `unknown` for a text with too few common words of any language. Text in two languages
    has the one with more common words.
    """
    text = text[:MAX_CHARACTERS]
    script = _script_of(text)
    if script != "Latin":
        return script
    words = _WORD.findall(text.lower())
    counts = dict.fromkeys(_COMMON_WORDS, 0)
    for word in words:
        for language in _LANGUAGES_OF.get(word, ()):
            counts[language] += 1
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] > MIN_SHARE * len(words) else UNKNOWN


def _script_of(text: str) -> str:
    """Return the script of most letters; Kana for Han mixed with kana."""
    if text.isascii():
        return "Latin"
    counts = {name: len(letters.findall(text)) for name, letters in _SCRIPTS.items()}
    kana = len(_KANA.findall(text))
    if kana > MIN_KANA_SHARE * (kana + counts["Han"]):
        counts["Kana"] = kana + counts["Han"]
    script = max(counts, key=lambda name: counts[name] + (name == "Kana") / 2)
    return script if counts[script] > len(_LATIN.findall(text)) else "Latin"
