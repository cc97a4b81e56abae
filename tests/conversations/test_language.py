"""Claims about the guess of a language: right for everyday messages, unknown for what has none."""

import pytest

from job.conversations.language import UNKNOWN, language_of

MESSAGES = {
    "en": "Hi, my parcel has not arrived and I was told it would be here on Monday.",
    "es": "Hola, mi paquete no ha llegado y me dijeron que estaría aquí el lunes.",
    "fr": "Bonjour, mon colis n'est pas arrivé et on m'a dit qu'il serait là lundi.",
    "de": "Hallo, mein Paket ist nicht angekommen und ich brauche es für den Montag.",
    "it": "Buongiorno, il mio pacco non è arrivato e mi hanno detto che lunedì sarebbe qui.",
    "pt": "Olá, o meu pacote não chegou e eu preciso dele para a segunda-feira.",
    "nl": "Hallo, mijn pakket is niet aangekomen en ik heb het nodig voor maandag.",
    "sv": "Hej, mitt paket har inte kommit och jag behöver det till på måndag.",
    "da": "Hej, min pakke er ikke kommet, og jeg har brug for den efter mandag, hvad nu?",
    "no": "Hei, pakken min har ikke kommet, og jeg trenger den etter mandag, hva nå?",
    "fi": "Hei, pakettini ei ole tullut, ja minun piti saada se jo maanantaina.",
    "pl": "Dzień dobry, moja paczka nie dotarła, a jest mi potrzebna na poniedziałek.",
    "cs": "Dobrý den, můj balík ještě není tady a já jsem si ho objednal na pondělí.",
    "ro": "Bună ziua, coletul meu nu a ajuns și am nevoie de el pentru luni.",
    "hu": "Jó napot, a csomagom még nem érkezett meg, és hétfőre kell, hogy itt legyen.",
    "tr": "Merhaba, benim paketim gelmedi ve bu benim için çok önemli, lütfen bana haber verin.",
    "id": "Halo, paket saya belum sampai dan saya tidak bisa menunggu, mohon bantuan anda.",
    "vi": "Xin chào, gói hàng của tôi không đến và tôi đã chờ trong một tuần rồi.",
    "Cyrillic": "Здравствуйте, моя посылка DHL ещё не пришла.",
    "Arabic": "مرحبا، لم يصل طردي بعد وقيل لي إنه سيصل يوم الاثنين.",
    "Han": "你好，我的包裹还没有到，请帮我查一下 DHL 订单。",
    "Kana": "こんにちは、荷物がまだ届いていません。確認をお願いします。",
    "Hangul": "안녕하세요, 제 택배가 아직 도착하지 않았습니다.",
    "Greek": "Γεια σας, το δέμα μου δεν έχει φτάσει ακόμα.",
    "Hebrew": "שלום, החבילה שלי עדיין לא הגיעה.",
    "Devanagari": "नमस्ते, मेरा पार्सल अभी तक नहीं आया है।",
}


@pytest.mark.parametrize("language", MESSAGES)
def test_an_everyday_message_has_its_language(language):
    assert language_of(MESSAGES[language]) == language


@pytest.mark.parametrize("text", ["", "4711", "PZ-4711 Kraków 12:30", "…", "asdf qwer zxcv"])
def test_text_without_common_words_is_unknown(text):
    assert language_of(text) == UNKNOWN


def test_of_two_languages_the_one_with_more_words_counts():
    assert language_of(f"{MESSAGES['es']} {MESSAGES['es']} OK, thank you.") == "es"


def test_a_name_in_another_script_changes_nothing():
    assert language_of(f"{MESSAGES['en']} 北京 Лев") == "en"
