"""Claims about facts that a summary invents: what counts as one, and what is only written so."""

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.evaluation.metrics.invented import (
    INVENTED_NAMES,
    invented_contacts,
    invented_names,
    invented_numbers,
    inventions,
)
from job.evaluation.metrics.metric import Sample


def sample(summary: str, *said: str) -> Sample:
    turns = tuple(Turn("customer", text) for text in said)
    return Sample(summary, Conversation("c", turns, Source("f", 1)))


SAME_NUMBERS = [
    ("20 thousand", "20,000"),
    ("1.5 million", "1500000"),
    ("5 hundred", "500"),
    ("5 crore", "50000000"),
    ("two thousand five hundred dollars", "$2,500"),
    ("one thousand two hundred and fifty dollars", "$1,250"),
    ("twelve hundred fifty dollars", "$1,250"),
    ("one million two hundred thousand", "1,200,000"),
    ("a hundred and one thousand", "101000"),
    ("two dozen eggs", "24 eggs"),
    ("2 dozen eggs", "24 eggs"),
    ("quatre-vingt-dix euros", "90 euros"),
    ("quatre-vingts euros", "80 euros"),
    ("soixante-quinze euros", "75 euros"),
    ("vingt et un jours", "21 jours"),
    ("dos mil quinientos pesos", "2500 pesos"),
    ("mil quinientos pesos", "1500 pesos"),
    ("treinta y cinco días", "35 días"),
    ("veinticinco días", "25 días"),
    ("duzentos e cinquenta reais", "250 reais"),
    ("trentacinque giorni", "35 giorni"),
    ("ventotto giorni", "28 giorni"),
    ("duemilacinquecento euro", "2500 euro"),
    ("zweihundertfünfzig Euro", "250 Euro"),
    ("zweitausend Euro", "2.000 Euro"),
    ("achtunddreißig Euro", "38 Euro"),
    ("vijfentwintig dagen", "25 dagen"),
    ("tweehonderdvijftig euro", "250 euro"),
    ("call +1 (555) 123-4567", "call 5551234567"),
    ("nineteen ninety-nine", "1999"),
    ("twenty twenty one", "2021"),
    ("2 thousand five hundred dollars", "$2,500"),
    ("3 million two hundred and fifty thousand", "3,250,000"),
]


@pytest.mark.parametrize(("one", "other"), SAME_NUMBERS)
def test_a_number_in_words_is_the_one_in_digits_both_ways(one: str, other: str) -> None:
    assert invented_numbers(sample(one, other)) == []
    assert invented_numbers(sample(other, one)) == []


@pytest.mark.parametrize("word", [pair[0] for pair in SAME_NUMBERS])
def test_a_number_in_words_that_nobody_said_is_invented(word: str) -> None:
    assert len(invented_numbers(sample(word, "no number"))) == 1


@pytest.mark.parametrize(
    ("said", "summary"),
    [
        ("I paid 1,000 dollars", "paid $1000"),
        ("Ich habe 1.000,50 € bezahlt", "zahlte 1000,50 Euro"),
        ("J'ai payé 1 000,50 €", "a payé 1000.50 €"),
        ("Ich zahlte 1'000.50 Franken", "zahlte CHF 1000.50"),
        ("It costs 12,34,567 rupees", "costs 1234567 rupees"),
        ("I earn 20k", "earns 20,000"),
        ("about 2.5 million users", "2,500,000 users"),
        ("two parcels", "2 parcels"),
        ("twenty-five days", "25 days"),
        ("a hundred and fifty euros", "150 euros"),
        ("fünfundzwanzig Tage", "25 Tage"),
        ("the third time", "the 3rd time"),
        ("I waited an hour", "waited 1 hour"),
        ("it is 25", "it is twenty five"),
        ("at 3:30 pm", "at 15:30"),
        ("at 15:30", "at 3:30 pm"),
        ("the 0815 train", "the 8:15 train"),
        ("on 12/05/2017", "on 12 May 2017"),
        ("on May 12th", "on 12/5"),
        ("in 2017", "in '17"),
        ("at 10am", "at 10:00"),
        ("half of them", "1/2 of them"),
        ("half of them", "50 % of them, 0.5 in all"),
        ("half an hour", "30 minutes"),
        ("a quarter of an hour", "15 minutes"),
        ("three quarters of it", "75 % of it"),
        ("two and a half hours", "2.5 hours"),
        ("two hours and a half", "2.5 hours"),
        ("an hour and a half", "1.5 hours"),
        ("2 and a half hours", "2.5 hours"),
        ("2½ hours, or 3 1/2", "2.5 hours, or 3.5"),
        ("zweieinhalb Stunden", "2,5 Stunden"),
        ("it costs nineteen ninety-nine", "costs $19.99"),
        ("3 million, two years ago", "3 million two years ago"),
        ("3 million", "3 million two years ago"),
        ("call 555-123-4567", "call 5551234567"),
        ("call +49 151 23456", "call +4915123456"),
        ("call 4915123456", "call +49 (151) 23456"),
        ("costs 5 dollars", "costs $5.00"),
        ("iOS11.0.3 on my iPhone7", "iOS 11.0.3 on an iPhone 7"),
        ("٢٥ يوما", "25 يوما"),
        ("订单１２３", "订单123"),
        ("half past three", "at 3:30"),
        ("at noon, or midnight", "at 12:00, or 0:00"),
        ("三十天", "30天"),
        ("两千五百元", "2500元"),
        ("two problems", "both problems, and then three more questions"),
    ],
)
def test_a_number_in_another_notation_is_not_invented(said: str, summary: str) -> None:
    assert invented_numbers(sample(summary, said)) == []


@pytest.mark.parametrize(
    ("said", "summary", "invented"),
    [
        ("I paid 100 dollars", "paid $1000", ["1000"]),
        ("I paid 1,000 dollars", "paid $1.50", ["1.50"]),
        ("order 4512", "order 4513", ["4513"]),
        ("no number", "a refund of twenty dollars", ["twenty"]),
        ("at 3:30 pm", "at 16:30", ["16:30"]),
        ("on 12/05/2017", "on 13/05/2017", ["13/05/2017"]),
        ("I have 20", "has 20k", ["20k"]),
        ("ticket ABC-77", "ticket ABC-78", ["78"]),
        ("no number", "2, 3, 5 or 10 days", ["2", "3", "5", "10"]),
        ("no number", "paid Twenty-five or ten and hundred", ["Twenty-five", "ten", "hundred"]),
        ("20", "20 thousand", ["20 thousand"]),
        ("19 then 98", "in nineteen ninety-nine", ["nineteen ninety-nine"]),
        ("2 thousand", "2 thousand five hundred", ["2 thousand five hundred"]),
        ("three days", "2.5 days", ["2.5"]),
        ("fifty ninety", "in 5090", ["5090"]),
        ("nineteen or ninety-nine", "in 1999", ["1999"]),
        ("5200", "2 hundred five thousand", ["2 hundred", "five thousand"]),
        ("3 million", "3 million twenty years ago", ["3 million twenty"]),
    ],
)
def test_a_number_that_nobody_said_is_invented(
    said: str, summary: str, invented: list[str]
) -> None:
    assert invented_numbers(sample(summary, said)) == invented


@pytest.mark.parametrize(
    ("said", "summary"),
    [
        ("SpotifyCares my app broke", "The Spotify app broke."),
        ("hi anna here", "The agent Anna helps."),
        ("no wi-fi", "There is no WiFi."),
        ("my iPhone broke", "Two iPhones broke, says the customer's iPhone's owner."),
        ("write to customer care", "The Customer asks the Agent, I think."),
        ("see you monday", "They meet on Mon."),
        ("on 12/05/2017", "It was on 12 May."),
        ("the National Health Service", "The NHS helps."),
        ("manchester picadilly", "From Manchester Piccadilly."),
        ("I love face book", "The customer loves Facebook."),
        ("I asked @amazonhelp", "The customer asked Amazon."),
        ("from canada and italy", "The Canadian and the Italian."),
        ("I bank with the Bank of America", "The customer of BA, or BOA."),
        ("on the bus", "It is the No. 5 bus."),
        ("hello", "The agent helps. Nobody answers."),
        ("hello", "Agent Replied: DM us."),
        (
            "hello",
            "Refund promised. Replacement offered by the agent. Vouchers sent to the customer.",
        ),
        ("hello", "Politely asked for a call. Someone says no. Baggage was late. Rest assured."),
        ("hello", "Asked for a call. Told to wait. Shipping takes days."),
    ],
)
def test_a_name_in_another_form_is_not_invented(said: str, summary: str) -> None:
    assert invented_names(sample(summary, said)) == []


@pytest.mark.parametrize(
    ("said", "summary", "invented"),
    [
        ("hi anna here", "The agent Peter helps.", ["Peter"]),
        (
            "flight to paris",
            "The flight to London is late, says Air France.",
            ["London", "Air", "France"],
        ),
        ("see you monday", "They meet on Friday.", ["Friday"]),
        ("on 12/05/2017", "It was on 12 June.", ["June"]),
        ("the app and you can", "The agents Theodore and Young.", ["Theodore", "Young"]),
        ("the app and you can", "From Canada, says Andrew.", ["Canada", "Andrew"]),
        ("i bought many", "The customer of IBM.", ["IBM"]),
        ("please, I BOUGHT MANY", "The customer of IBM.", ["IBM"]),
        ("it has an error", "The agent Hasan helps.", ["Hasan"]),
        ("we can afford it", "The car is a Ford.", ["Ford"]),
        ("the bill", "The agent Billy helps.", ["Billy"]),
        ("it is von trapp, von trapp", "The agent Peter helps.", ["Peter"]),
        ("marian here", "The agent Martin helps.", ["Martin"]),
        ("jolanda here", "The agent Yolanda helps.", ["Yolanda"]),
        ("I asked @amazonhelp", "The agent Zon helps.", ["Zon"]),
        ("hello", "The agent sent Mr. Smith and Dr. Jones.", ["Smith", "Jones"]),
        ("hello", "The customer called J. Miller.", ["Miller"]),
        ("hello", "Andrew said that it works. Maria is asking.", ["Andrew", "Maria"]),
        ("hello", "A call. Billy offered a refund. Chris also tries it.", ["Billy", "Chris"]),
        ("hello", "Andrew has replied, and Maria was glad.", ["Andrew", "Maria"]),
        ("andrew here", "Andrew apologizes for it.", []),
    ],
)
def test_a_name_that_nobody_said_is_invented(said: str, summary: str, invented: list[str]) -> None:
    assert invented_names(sample(summary, said)) == invented


GERMAN = (
    "Guten Tag, ich habe am Montag eine Bestellung aufgegeben und warte noch immer auf die "
    "Lieferung. Der Kundendienst sagte, dass das Paket im Lager liegt und der Fahrer krank ist. "
    "Bitte senden Sie mir die Rechnung und das Geld zurück, denn der Umzug ist am Freitag."
)


@pytest.mark.parametrize(
    ("said", "summary"),
    [
        (GERMAN, "Der Kunde wartet auf das Paket."),
        ("Mein Paket ist nicht da. Das tut mir leid.", "Der Kunde fragt nach der Lieferung."),
        (GERMAN.lower(), "Fragt nach Geld."),
        ("DHL?", "Der Kunde fragt nach der Lieferung und der Rechnung."),
        (" ".join(["Op Bestellung Konto"] * 20), "Bestellung op Konto."),
        ("我的包裹迟到了", "客户说包裹迟到了。"),
    ],
    ids=["German", "short", "in small letters", "summary alone", "capitals alone", "no capitals"],
)
def test_a_language_without_visible_names_has_no_score(said: str, summary: str) -> None:
    assert invented_names(sample(summary, said)) is None
    assert INVENTED_NAMES.scores([sample(summary, said)])[0] != 0  # NaN


@pytest.mark.parametrize(
    ("said", "summary", "invented"),
    [
        ("mail me at Ann.Lee@example.org", "write to ann.lee@example.org.", []),
        ("mail me at ann@example.org", "write to anne@example.org.", ["anne@example.org"]),
        ("see https://www.shop.com/help/1", "see shop.com/help", []),
        ("see https://www.shop.com/help/1", "see shop.com/pay", ["shop.com/pay"]),
        ("SpotifyCares hello", "asks @SpotifyCares", []),
        ("hello", "asks @SpotifyCares at http://bit.ly/x1", ["http://bit.ly/x1", "@SpotifyCares"]),
        ("see <LINK>", "see the link", []),
        ("mail joann@b.com", "write to ann@b.com", ["ann@b.com"]),
        ("mail x.ann@b.com", "write to ann@b.com", ["ann@b.com"]),
        ("mail ann@b.com.au", "write to ann@b.com", ["ann@b.com"]),
        ("mail ann@b.com.", "write to (ann@b.com)", []),
        ("see notevil.com", "see evil.com", ["evil.com"]),
        ("see shop.com.evil.ru", "see shop.com", ["shop.com"]),
        ("see shop.com/payments", "see shop.com/pay", ["shop.com/pay"]),
        ("see http://help.shop.com?x=1", "see shop.com", []),
        ("come to the cab with me", "asks @me and @ab", ["@me", "@ab"]),
        ("ask @me", "asks @me", []),
        ("O2 replies", "asks @O2", []),
        ("hello", "see foo.ai or bar.xyz", ["foo.ai", "bar.xyz"]),
    ],
)
def test_an_address_that_nobody_gave_is_invented(
    said: str, summary: str, invented: list[str]
) -> None:
    assert invented_contacts(sample(summary, said)) == invented


def test_digits_of_an_address_are_no_number_of_the_summary() -> None:
    found = inventions(sample("write to ann77@example.org", "write to ann77@example.org"))
    assert found == ([], [], [])


def test_a_model_that_is_stuck_in_a_word_for_numbers_is_measured() -> None:
    assert inventions(sample("hundert" * 5000, "hello")) == ([], [], [])
