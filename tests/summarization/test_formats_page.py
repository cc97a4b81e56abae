"""Every file that docs/formats.md shows is summarized with the config that stands under it."""

from dataclasses import replace

import pytest

from job.config.commands import SummarizeConfig
from job.conversations.read import read_strictly
from job.storage.open import list_inputs
from job.summarization.summarize import summarize
from job.summarization.summarizer import open_summarizer
from tests.formats_page import entries, least_config
from tests.summarization.conftest import read_lines


class Listening:
    """The real engine; what it is asked is kept as ids."""

    def __init__(self, engine):
        self.engine, self.context_tokens, self.prompts_ahead = engine, engine.context_tokens, 0
        self.prompts = []

    def generate(self, prompts, settings, on_done=None):
        self.prompts += prompts
        return self.engine.generate(prompts, settings, on_done)


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_a_file_that_people_have_becomes_a_summary(tmp_path, base_folder, entry):
    content = least_config() | entry.config
    content |= {
        "input": str(entry.write(tmp_path)),
        "output": f"{tmp_path}/summaries/",
        "model": {"base": str(base_folder)},
        "generation": {"max_new_tokens": 12},
    }
    opened = []

    def open_listening(config, cache):
        real = open_summarizer(config, cache)
        opened.append(replace(real, engine=Listening(real.engine)))
        return opened[0]

    config = SummarizeConfig.model_validate(content)
    counts = summarize(config, open_with=open_listening)
    assert (counts.summaries, counts.rejected) == (1, 0)
    (line,) = read_lines(tmp_path / "summaries" / "parts" / "part-00000.jsonl")
    assert line["summary"].strip()
    (prompt,) = opened[0].engine.prompts
    text = opened[0].encoder.tokenizer.decode(prompt)
    files = list_inputs([config.input], config.storage)
    (conversation,) = read_strictly(files, config.data)
    for turn in conversation.turns:
        assert f"{turn.role}: {turn.text}" in text
