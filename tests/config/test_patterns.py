"""Claims about glob patterns: which keys they match."""

import re

import pytest
from pydantic import ValidationError

from job.config.data_sections import ReadingSection
from job.config.patterns import regex_of

MATCHES = [
    (
        "*.jsonl.gz",
        ["a.jsonl.gz", "deep/er/a.jsonl.gz", ".jsonl.gz"],
        ["a.jsonl", "a.jsonl.gz/b", "a.jsonlxgz"],
    ),
    ("tmp/**", ["tmp/a", "tmp/b/c"], ["tmp", "a/tmp/b", "tmp2/a"]),
    ("tmp/", ["tmp/a", "tmp/b/c"], ["a/tmp/b"]),
    ("**/tmp/**", ["tmp/a", "x/tmp/a", "x/y/tmp/z/a"], ["tmp", "xtmp/a"]),
    ("**", ["a", "a/b"], []),
    ("**/a", ["a", "x/a", "x/y/a"], ["xa", "a/x"]),
    ("calls/*/*.csv", ["calls/x/a.csv"], ["calls/a.csv", "calls/x/y/a.csv", "old/calls/x/a.csv"]),
    ("day-?.csv", ["day-1.csv", "x/day-2.csv"], ["day-10.csv", "day-/.csv"]),
    ("[a-c]*", ["alpha", "x/beta"], ["delta"]),
    ("[!a]*", ["beta"], ["alpha"]),
    ("[]a]", ["]", "a"], ["b"]),
    ("[^a]", ["^", "a"], ["b"]),
    ("[a&&b]", ["&", "a", "b"], ["|"]),
    ("[a||b~~]", ["a", "b", "|", "~"], ["&"]),
    ("a[!x]b", ["ayb"], ["a/b", "axb"]),
    ("a[b", ["a[b"], ["ab"]),
    ("(1+1).$", ["(1+1).$"], ["11."]),
    ("日*", ["日本.jsonl"], ["本日"]),
]


@pytest.mark.parametrize(("glob", "matched", "others"), MATCHES)
def test_a_pattern_matches_these_keys_and_no_others(glob, matched, others):
    pattern = re.compile(regex_of(glob), re.DOTALL)
    assert [key for key in (*matched, *others) if pattern.fullmatch(key)] == matched


@pytest.mark.parametrize(
    ("glob", "said"),
    [
        ("/a/*", "relative to it"),
        ("./a", "relative to it"),
        ("s3://bucket/a/*", "relative to it"),
        ("*.{jsonl,csv}", "give a list of patterns"),
        ("[z-a]", "is no pattern"),
        ("", "at least 1 character"),
    ],
)
def test_a_pattern_that_can_hardly_match_is_a_mistake(glob, said):
    for key in ("include", "exclude"):
        with pytest.raises(ValidationError, match=said):
            ReadingSection.model_validate({key: [glob]})
