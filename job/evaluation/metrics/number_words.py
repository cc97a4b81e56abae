"""Words for numbers, months and scales in the languages that customers write most.

English, German, French, Spanish, Portuguese, Italian and Dutch. A word that has another meaning in
one of them is left out: French "six" is a number in English too, German "elf" is no English one.
"""

from itertools import chain


def _numbered(first: int, names: str) -> dict[str, float]:
    """Return the numbers of names in their order; several names of a number are joined by /."""
    numbers: dict[str, float] = {}
    for number, alternatives in enumerate(names.split(), start=first):
        numbers |= dict.fromkeys(alternatives.split("/"), number)
    return numbers


def _tens(names: str) -> dict[str, float]:
    """Return the tens from 20 to 90."""
    return {name: value * 10 for name, value in _numbered(2, names).items()}


def _hundreds(names: str) -> dict[str, float]:
    """Return the hundreds from 100 to 900."""
    return {name: value * 100 for name, value in _numbered(1, names).items()}


_ENGLISH = _numbered(
    0,
    "zero one/once two/twice/both/half three/thrice four five six seven eight nine ten eleven "
    "twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
) | _tens("twenty thirty forty/fourty fifty sixty seventy eighty ninety")
_ENGLISH_ORDINALS = _numbered(
    1,
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth",
) | _tens("twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth")
_GERMAN_UNITS = ("ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
_GERMAN_TENS = "zwanzig dreißig/dreissig vierzig fünfzig sechzig siebzig achtzig neunzig"
_GERMAN = (
    _numbered(1, "eins/ein/eine/einen/einem/einer zwei drei vier fünf sechs sieben acht neun zehn")
    | _numbered(11, "elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn")
    | _tens(_GERMAN_TENS)
    | {
        f"{unit}und{name}": tens + number
        for name, tens in _tens(_GERMAN_TENS).items()
        for number, unit in enumerate(_GERMAN_UNITS, start=1)
    }
)
_FRENCH = _numbered(
    1,
    "un/une deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
) | _tens("vingt/vingts trente quarante cinquante soixante septante huitante/octante nonante")
_SPANISH = _numbered(
    1,
    "uno/una dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
    "dieciséis/dieciseis diecisiete dieciocho diecinueve veinte veintiuno/veintiún/veintiuna "
    "veintidós/veintidos veintitrés/veintitres veinticuatro veinticinco veintiséis/veintiseis "
    "veintisiete veintiocho veintinueve",
) | _tens("veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_SPANISH |= _hundreds(
    "ciento doscientos/doscientas trescientos/trescientas cuatrocientos/cuatrocientas "
    "quinientos/quinientas seiscientos/seiscientas setecientos/setecientas ochocientos/ochocientas "
    "novecientos/novecientas"
)
_PORTUGUESE = _numbered(
    1,
    "um/uma dois/duas três quatro cinco seis sete oito nove dez onze doze treze catorze/quatorze "
    "quinze dezesseis/dezasseis dezessete/dezassete dezoito dezenove/dezanove",
) | _tens("vinte trinta quarenta cinquenta sessenta setenta oitenta noventa")
_PORTUGUESE |= _hundreds(
    "cem duzentos/duzentas trezentos/trezentas quatrocentos/quatrocentas quinhentos/quinhentas "
    "seiscentos/seiscentas setecentos/setecentas oitocentos/oitocentas novecentos/novecentas"
)
_ITALIAN = _numbered(
    1,
    "uno/una due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici "
    "quindici sedici diciassette diciotto diciannove",
) | _tens("venti trenta quaranta cinquanta sessanta settanta ottanta novanta")
_ITALIAN |= {
    (name[:-1] if unit in ("uno", "otto") else name) + unit: tens + number
    for name, tens in _tens(
        "venti trenta quaranta cinquanta sessanta settanta ottanta novanta"
    ).items()
    for unit, number in _numbered(1, "uno due tre/tré quattro cinque sei sette otto nove").items()
}
_DUTCH = _numbered(
    1,
    "een/één twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien "
    "zestien zeventien achttien negentien",
) | _tens("twintig dertig veertig vijftig zestig zeventig tachtig negentig")
_DUTCH |= {
    f"{unit}{joint}{name}": tens + number
    for name, tens in _tens(
        "twintig dertig veertig vijftig zestig zeventig tachtig negentig"
    ).items()
    for unit, number in _numbered(1, "een twee drie vier vijf zes zeven acht negen").items()
    for joint in ("en", "ën")
}

# English last: where languages share a word, it decides.
UNITS: dict[str, float] = (
    _DUTCH | _ITALIAN | _PORTUGUESE | _SPANISH | _FRENCH | _GERMAN | _ENGLISH_ORDINALS | _ENGLISH
)
for _word in ("once", "second", "both"):  # "once" is also Spanish for 11, English for "one time"
    UNITS.setdefault(_word, 1)

SCALES: dict[str, float] = {
    "k": 1e3,
    "m": 1e6,
    "mn": 1e6,
    "mio": 1e6,
    "bn": 1e9,
    "dozen": 12,
    "hundred": 1e2,
    "hundert": 1e2,
    "cent": 1e2,
    "cien": 1e2,
    "cento": 1e2,
    "honderd": 1e2,
    "thousand": 1e3,
    "tausend": 1e3,
    "mille": 1e3,
    "mil": 1e3,
    "mila": 1e3,
    "duizend": 1e3,
    "lakh": 1e5,
    "lakhs": 1e5,
    "crore": 1e7,
    "crores": 1e7,
    "million": 1e6,
    "millions": 1e6,
    "millionen": 1e6,
    "millón": 1e6,
    "millones": 1e6,
    "milhão": 1e6,
    "milhões": 1e6,
    "milione": 1e6,
    "milioni": 1e6,
    "miljoen": 1e6,
    "billion": 1e9,
    "milliard": 1e9,
    "milliarden": 1e9,
}

# Of German, Dutch and Italian, which write numbers as one word; the greater scales first.
COMPOUND_SCALES: dict[str, float] = {
    "tausend": 1e3,
    "duizend": 1e3,
    "mila": 1e3,
    "mille": 1e3,
    "hundert": 1e2,
    "honderd": 1e2,
    "cento": 1e2,
}

_MONTHS = (
    "january/jan/januar/janvier/enero/janeiro/gennaio/januari",
    "february/feb/februar/février/febrero/fevereiro/febbraio/februari",
    "march/mar/märz/mars/marzo/março/maart",
    "april/apr/avril/abril/aprile",
    "may/mai/mayo/maio/maggio/mei",
    "june/jun/juni/juin/junio/junho/giugno",
    "july/jul/juli/juillet/julio/julho/luglio",
    "august/aug/août/agosto/augustus",
    "september/sep/sept/septembre/septiembre/setembro/settembre",
    "october/oct/oktober/okt/octobre/octubre/outubro/ottobre",
    "november/nov/novembre/noviembre/novembro",
    "december/dec/dezember/dez/décembre/diciembre/dezembro/dicembre",
)
MONTHS: dict[str, float] = dict(
    chain.from_iterable(
        ((name, number) for name in names.split("/")) for number, names in enumerate(_MONTHS, 1)
    )
)
