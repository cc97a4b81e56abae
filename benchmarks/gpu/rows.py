"""Make rows of random tokens with the lengths of real ones."""

import random
from collections.abc import Sequence
from typing import Any

# Tokens of prompt and summary in 96 conversations of TweetSumm, each the middle of a 96th of them
# by length, as SmolLM2's tokenizer counts them: 350 tokens a row on average, 39 of them learned.
# fmt: off
TWEETSUMM = [
    (160, 31), (196, 17), (195, 29), (187, 41), (202, 29), (189, 48), (196, 47), (204, 44),
    (207, 44), (215, 38), (215, 41), (224, 34), (225, 35), (229, 34), (226, 39), (235, 32),
    (245, 23), (228, 43), (247, 26), (246, 29), (227, 51), (258, 22), (240, 42), (239, 45),
    (256, 29), (236, 51), (246, 43), (267, 23), (222, 70), (262, 31), (262, 33), (251, 46),
    (250, 49), (270, 30), (274, 27), (268, 35), (266, 39), (270, 37), (277, 31), (273, 36),
    (292, 20), (293, 21), (264, 53), (284, 34), (267, 54), (279, 44), (292, 33), (289, 39),
    (280, 50), (302, 29), (278, 56), (278, 59), (265, 74), (293, 48), (319, 23), (310, 34),
    (312, 34), (314, 35), (309, 42), (308, 45), (326, 29), (322, 36), (332, 28), (335, 29),
    (331, 36), (316, 54), (341, 31), (329, 46), (325, 52), (338, 43), (343, 42), (343, 46),
    (351, 40), (358, 39), (370, 30), (358, 48), (355, 55), (366, 49), (375, 45), (387, 38),
    (372, 59), (406, 32), (414, 29), (388, 60), (417, 36), (431, 27), (437, 36), (454, 30),
    (465, 25), (464, 44), (480, 42), (522, 25), (545, 36), (587, 54), (624, 53), (712, 68),
]
# fmt: on
FIRST_ID, LAST_ID = 10, 1_400  # tokens of any vocabulary here that control nothing


def lengths_of(kind: str) -> list[tuple[int, int]]:
    """Return the tokens of prompt and summary of each row: `tweetsumm`, or COUNTxTOKENS."""
    if kind == "tweetsumm":
        return TWEETSUMM
    count, tokens = (int(word) for word in kind.split("x"))
    learned = max(1, tokens // 10)
    return [(tokens - learned, learned)] * count


def make_rows(lengths: Sequence[tuple[int, int]]) -> dict[str, list[list[int]]]:
    """Return the columns of a dataset, the same for the same lengths; prompts are not learned."""
    drawn = random.Random(0)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for prompt, summary in lengths:
        ids = drawn.choices(range(FIRST_ID, LAST_ID), k=prompt + summary)
        columns["input_ids"].append(ids)
        columns["labels"].append([-100] * prompt + ids[prompt:])
    return columns


def counts_of(lengths: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return rows, tokens and learned tokens."""
    learned = sum(summary for _, summary in lengths)
    prompts = sum(prompt for prompt, _ in lengths)
    return {"rows": len(lengths), "tokens": prompts + learned, "learned_tokens": learned}
