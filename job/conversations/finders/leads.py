"""Words in front of a number that show it to be a phone or a code.

All searches look at LEAD_CHARACTERS of a text and no more.
"""

import re

LEAD_CHARACTERS = 40

PHONE_WORDS = (
    r"\btel(?:e?f[o\u00f3]n\w*|[e\u00e9]phone\w*|\.|:|\b)", r"(?<!i)phone", r"\bfone", r"\bfax",
    r"\bmobil\w*", r"\bcell?(?:ular\w*|\b)", r"\bsms", r"\bwhats ?app", r"\bcall(?:ing|ed)?",
    r"\bdial", r"\breach (?:me|us)", r"\bring\b", r"\btext me", r"\bmy number", r"\bhandy\w*",
    r"\banruf\w*", r"\brufnummer", r"\br[u\u00fc]ckruf\w*", r"\bm[o\u00f3]vil", r"\bllam\w+",
    r"\bcellulare", r"\bchiam\w+", r"\bportable", r"\bappel\w*", r"\bbel\b", r"\blig(?:ue|ar)",
    "\\b\u0442\u0435\u043b\\w*", "\\b\u0437\u0432\u043e\u043d\\w*", "\u7535\u8bdd", "\u96fb\u8a71",
    "\u624b\u673a", "\u624b\u6a5f", "\u643a\u5e2f", "\uc804\ud654", "\ud734\ub300\ud3f0",
)  # fmt: skip
CODE_WORDS = (
    r"(?<!to )order", r"(?<!in )case", "ticket", "invoice", "ref(?:erence)?", "booking",
    "confirmation", "tracking", "parcel", "shipment", "serial", "imei", "isbn", "ean", "sku",
    "part", "article", "item", r"bestell\w*", r"auftrag\w*", r"rechnung\w*", r"vorgang\w*",
    r"sendung\w*", r"artikel\w*", r"serien\w*", "commande", "facture", "dossier", "colis",
    "pedido", "factura", "env[i\u00ed]o", "fattura", "ordine", "spedizione", "bestelling",
    "factuur", r"zam[o\u00f3]wieni\w*", r"faktur\w*", "encomenda", "\u6ce8\u6587\u756a\u53f7",
    "\u8ba2\u5355\u53f7?", "\u8a02\u55ae(?:\u865f|\u7de8\u865f)?", "\uc8fc\ubb38\ubc88\ud638?",
    "\u0437\u0430\u043a\u0430\u0437\\w*", "ordre", r"sipari[s\u015f]\w*", r"objedn[a\u00e1]vk\w*",
    r"comand[a\u0103]\w*", r"rendel\u00e9s\w*", "awb", "gtin", "upc",
)  # fmt: skip
NUMBER_WORDS = (
    r"(?:no|nr|num(?:ber|mer|ero|\u00e9ro)?|n[u\u00fa]mero|numer|nummer|n[\u00b0\u00ba]|\u2116"
    r"|\u010d|id|code|#)(?!\w)\.?"
)
# Whose number may be a phone, unless it is called a number: `customer no. 0151 2345678`.
CODE_NAMES = (
    r"(?:customer|account|policy|contract|member(?:ship)?|licen[cs]e|kunden?|vertrags?|konto"
    r"|client|contrat|cliente|contrat[ot]o?|p\u00f3liza|klant|kund|asiakas|klient)"
)
PHONE_LEAD = re.compile(rf"(?:{'|'.join(PHONE_WORDS)})[^\d\n]{{0,16}}$", re.IGNORECASE)
CODE_LEAD = re.compile(
    rf"\b(?:(?:{'|'.join(CODE_WORDS)})[ _-]?(?:{NUMBER_WORDS})?"
    rf"|{CODE_NAMES}[ _-]?{NUMBER_WORDS}|n[\u00b0\u00ba] ?{CODE_NAMES})"
    r"(?: (?:is|was|ist|lautet|est|es|\u00e8|to))?[ :=#]{0,3}$",
    re.IGNORECASE,
)
HASH_LEAD = re.compile("# ?$")  # a code, but in `phone #`
# Of goods and devices, some with the same check digit as cards.
GOODS_LEAD = re.compile(
    rf"\b(?:EAN|GTIN|UPC|ISBN|IMEI|serial|tracking)[ -]?(?:{NUMBER_WORDS})?[ :=#]{{0,3}}$",
    re.IGNORECASE,
)
LETTERS = re.compile(r"-?([A-Za-z]{1,40}+)")
HEXADECIMAL = re.compile(r"[a-f]+")


def lead_of(text: str, start: int) -> str:
    """Return the text before an offset."""
    return text[max(0, start - LEAD_CHARACTERS) : start]


def is_code(outwards: str) -> bool:
    """Return True where letters touch a number as in a code: ORD-4155, 415a9f, 1Z415, 415_1.

    `outwards` is the text from the number on, read away from it. Words may touch it: call4155.
    """
    if outwards[:1] == "_":
        return True
    match = LETTERS.match(outwards)
    if match is None:
        return False
    letters = match[1]
    beyond = outwards[match.end() : match.end() + 1]
    is_word = len(letters) > 1 and not letters.isupper() and not HEXADECIMAL.fullmatch(letters)
    return not is_word or beyond.isdigit()
