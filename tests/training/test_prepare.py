"""Claims about what is found before training begins."""

import pytest

from job.config.commands import TrainConfig
from job.errors import ConfigError, ExitCode
from job.storage.local import LocalStore


def test_an_answer_as_long_as_the_context_is_refused_before_anything_is_trained(config, tmp_path, places):
    from job.training.run import prepare

    too_long = TrainConfig.model_validate(config | {"generation": {"max_new_tokens": 512}})
    with pytest.raises(ConfigError, match=r"max_new_tokens: 512 of the model's 512 tokens leave no room") as caught:
        prepare(too_long, tmp_path, LocalStore(str(tmp_path)))
    assert caught.value.exit_code == ExitCode.CONFIG
