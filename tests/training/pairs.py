"""Rows of pairs, of other lengths each, as a training has them: ids, of which 1 ends."""

PAIRS = [
    {"prompt_ids": [5, 6, 7, 8], "chosen_ids": [9, 10, 1], "rejected_ids": [11, 1]},
    {"prompt_ids": [12, 13], "chosen_ids": [14, 1], "rejected_ids": [15, 16, 17, 18, 1]},
    {"prompt_ids": [20] * 9, "chosen_ids": [21, 22, 23, 1], "rejected_ids": [24, 25, 1]},
    {"prompt_ids": [30, 31, 32], "chosen_ids": [33, 1], "rejected_ids": [34, 1]},
    {"prompt_ids": [40] * 6, "chosen_ids": [41] * 7 + [1], "rejected_ids": [42, 1]},
]
