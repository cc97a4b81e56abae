"""Claims about whose chunks are whose."""

import pytest

from job.errors import ConfigError, ExitCode
from job.summarization.shard import WHOLE, Shard, find_shard

BATCH = {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "5"}


@pytest.mark.parametrize(
    ("option", "shards", "environment", "found"),
    [
        (None, None, {}, WHOLE),
        (None, 4, {}, WHOLE),
        ("1/3", None, {}, Shard(1, 3)),
        ("1/3", 7, BATCH, Shard(1, 3)),
        (None, None, BATCH, Shard(2, 5)),
        (None, 4, {"JOB_COMPLETION_INDEX": "0"}, Shard(0, 4)),
        (None, 5, BATCH, Shard(2, 5)),
        (None, None, {"JOB_COMPLETION_INDEX": "3", "RECAP_SHARDS": "4"}, Shard(3, 4)),
        (None, None, {"JOB_COMPLETION_INDEX": "", "AWS_BATCH_JOB_ARRAY_INDEX": ""}, WHOLE),
    ],
)
def test_the_option_goes_before_the_scheduler(option, shards, environment, found):
    assert find_shard(option, shards, environment) == found


@pytest.mark.parametrize(
    ("option", "shards", "environment", "said"),
    [
        ("3/3", None, {}, "--shard 3/3: wanted i/n"),
        ("1", None, {}, "--shard 1: wanted i/n"),
        ("-1/2", None, {}, "wanted i/n"),
        (
            None,
            None,
            {"JOB_COMPLETION_INDEX": "3"},
            "shard 3 of several, but not of how many: set shards",
        ),
        (None, 3, {"JOB_COMPLETION_INDEX": "3"}, "is 3, but there are 3 shards, from 0 to 2"),
        (None, 3, {"JOB_COMPLETION_INDEX": "x"}, "is 'x' in the environment"),
        (
            None,
            8,
            BATCH,
            "shards of the config is 8, AWS_BATCH_JOB_ARRAY_SIZE is 5: "
            ".*remove shards from the config",
        ),
        (
            None,
            8,
            {"JOB_COMPLETION_INDEX": "0", "RECAP_SHARDS": "4"},
            "is 8, RECAP_SHARDS is 4: these numbers of shards differ",
        ),
        (
            None,
            None,
            BATCH | {"RECAP_SHARDS": "4"},
            "RECAP_SHARDS is 4, AWS_BATCH_JOB_ARRAY_SIZE is 5",
        ),
    ],
)
def test_an_unclear_share_is_a_mistake(option, shards, environment, said):
    with pytest.raises(ConfigError, match=said) as caught:
        find_shard(option, shards, environment)
    assert caught.value.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_chunk_is_of_one_shard(count):
    takers = [
        [shard for shard in range(count) if Shard(shard, count).has(chunk)] for chunk in range(20)
    ]
    assert all(len(found) == 1 for found in takers)
