"""Claims about the length of rows: that of the config, or the base's context if it is smaller."""

import json
import logging

from job.model.load import context_tokens
from job.training.rows import row_tokens


def test_a_row_is_never_longer_than_what_the_base_reads(caplog):
    logger = logging.getLogger("recap")
    logger.addHandler(caplog.handler)
    assert row_tokens(512, 1024) == 512
    assert row_tokens(4096, None) == 4096
    assert not caplog.records
    assert row_tokens(4096, 1024) == 1024
    assert "context" in caplog.text
    logger.removeHandler(caplog.handler)


def test_the_context_is_what_the_base_says(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 1024}))
    assert context_tokens(tmp_path) == 1024
    (tmp_path / "config.json").write_text("{}")
    assert context_tokens(tmp_path) is None
