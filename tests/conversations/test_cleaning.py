"""What each step takes out, and above all what it leaves."""

import pytest

from job.config.data_sections import ReadingSection
from job.conversations.cleaning import (
    TWEETS,
    clean,
    clean_all,
    clean_or_reject,
    html_entities,
    links,
    mentions,
    resolve_steps,
    signatures,
    whitespace,
)
from job.conversations.record import Conversation, Reject, Source, Turn


def conversation(*texts, name="a"):
    return Conversation(
        name, tuple(Turn("customer", text) for text in texts), Source("x", 1), ("See http://ref",)
    )


NO_SIGNATURES = "^_^ ^^ ^o^ ^.^nice ^_^nice (^u^) 2^n 2^10 ^5"
NO_ENTITIES = "AT&T &copyright; a&notb &nosuch; &;"


@pytest.mark.parametrize(
    ("step", "text", "left"),
    [
        (links, "see https://t.co/m9DPQ?x=1&y now http://a", "see  now "),
        (links, "follow <LINK> to http is a <link>", "follow  to http is a <link>"),
        (mentions, "@AppleSupport: thanks @135060", " thanks "),
        (mentions, ".@Delta mail me@shop.com or @ 5pm", ". mail me@shop.com or @ 5pm"),
        (signatures, "All the best. ^Clarissa", "All the best. "),
        (signatures, "inconvenience.^In and ^S.K. x", "inconvenience. and  x"),
        (signatures, NO_SIGNATURES, NO_SIGNATURES),
        (html_entities, "Q&amp;A &lt;3 &#39;x&#x27; &amp;amp;", "Q&A <3 'x' &amp;"),
        (html_entities, NO_ENTITIES, NO_ENTITIES),
        (whitespace, " a \n\n b\u00a0c\t", "a b c"),
    ],
)  # fmt: skip
def test_step_takes_out_what_it_names_and_nothing_else(step, text, left):
    assert step(text) == left


def test_tweets_are_cleaned_in_one_pass_that_a_second_one_does_not_change():
    tweet = conversation(
        "@135060 Sorry  for this. &amp; see https://t.co/hA ^MG", "@Delta <LINK>", "ok ^_^"
    )
    cleaned = clean(tweet, TWEETS)
    assert [turn.text for turn in cleaned.turns] == ["Sorry for this. & see", "ok ^_^"]
    assert (cleaned.references, cleaned.id) == (("See http://ref",), "a")
    assert clean(cleaned, TWEETS) == cleaned


def test_no_steps_change_nothing():
    raw = conversation(" @a  http://b ^C ")
    assert clean(raw, ()) == raw


def test_steps_are_named_or_derived_from_the_source():
    tweets = [conversation("x", name=f"TweetSumm--train--{n}") for n in range(3)]
    others = [conversation("x", name=f"call-{n}") for n in range(2)]
    assert resolve_steps(ReadingSection(), tweets + others) == TWEETS
    assert (
        resolve_steps(ReadingSection(), others)
        == resolve_steps(ReadingSection())
        == ("whitespace",)
    )
    assert resolve_steps(ReadingSection(cleaning="tweets"), others) == TWEETS
    assert resolve_steps(ReadingSection(cleaning=["links"]), tweets) == ("links",)
    assert resolve_steps(ReadingSection(cleaning=[]), tweets) == ()


def test_conversation_left_without_text_is_rejected_or_left_out():
    only_link, fine = conversation("<LINK>", "@Delta", name="b"), conversation("hi")
    assert clean_or_reject(only_link, TWEETS) == Reject(
        Source("x", 1),
        "nothing_to_summarize",
        "no turn has any text after cleaning "
        "(links, mentions, signatures, html_entities, whitespace)",
        "b",
    )
    assert clean_or_reject(fine, TWEETS) == fine
    assert clean_all([only_link, fine], TWEETS) == [fine]
