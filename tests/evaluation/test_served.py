"""Claims about the champion as a rival: it is served, and reads, as in a night."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.conversations.cleaning import TWEETS, clean_all
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.served import champion_candidate
from job.evaluation.systems import TUNED
from job.inference.from_disk import Candidate
from job.inference.open import fetch_with_adapter
from job.inference.serving import Reading, ServingWish
from job.model.fetch import read_adapter
from job.storage.folders import publish_folder, read_manifest
from job.storage.local import LocalStore
from tests.adapters import publish_adapter
from tests.serving import SERVING

STORAGE = StorageSection()
RAW = [
    Conversation("a", (Turn("customer", "@acme  see https://a.b/c order 5 ^JD"),), Source("f", 1)),
    Conversation("b", (Turn("customer", "Not chosen."),), Source("f", 2)),
]


@pytest.fixture
def rivals(places: Path, base_folder: Path, tmp_path: Path):
    """Return the challenger, cleaned as tweets are, and a champion that cleans white space."""
    uri = str(tmp_path / "challenger")
    publish_adapter(base_folder, tmp_path / "work", uri)

    def champion(serving=None):
        folder = tmp_path / "champion"
        shutil.copytree(uri, folder)
        prompt = json.loads((folder / "prompt.json").read_text())
        (folder / "prompt.json").write_text(json.dumps(prompt | {"cleaning": ["whitespace"]}))
        if serving is not None:
            record = {**serving.to_json(), "judged": True}
            (folder / "serving.json").write_text(json.dumps(record))
        extra = read_manifest(LocalStore(uri), "").extra
        publish_folder(folder, LocalStore(str(folder)), "", extra)
        return read_adapter(str(folder), STORAGE)

    model = fetch_with_adapter(uri, AdapterModelSection(), STORAGE, tmp_path / "cache")
    wish = ServingWish(
        AdapterModelSection(dtype="float32"), GenerationSection(max_new_tokens=4), "transformers",
        "merged", 1,
    )  # fmt: skip
    return Candidate(TUNED, model, wish, clean_all(RAW[:1], TWEETS)), champion


def test_the_champion_is_served_as_it_serves_and_not_as_its_challenger(rivals, tmp_path):
    challenger, champion = rivals
    generation = {**SERVING.generation, "max_new_tokens": 77}
    serving = replace(SERVING, quantization="nf4-double", generation=generation)
    found = champion_candidate(champion(serving), challenger, RAW, STORAGE, tmp_path / "cache")
    assert found.wish.adapter_weights == "separate"
    assert found.wish.generation.max_new_tokens == 77
    assert (found.wish.section.quantization, found.wish.section.dtype) == ("nf4-double", "bfloat16")


def test_a_champion_that_nobody_judged_is_served_as_its_challenger(rivals, tmp_path):
    challenger, champion = rivals
    found = champion_candidate(champion(), challenger, RAW, STORAGE, tmp_path / "cache")
    assert found.wish == challenger.wish


def test_the_champion_reads_what_it_reads_in_a_night(rivals, tmp_path):
    challenger, champion = rivals
    assert challenger.conversations[0].turns[0].text == "see order 5"
    found = champion_candidate(champion(), challenger, RAW, STORAGE, tmp_path / "cache")
    (conversation,) = found.conversations
    assert conversation.turns[0].text == "@acme see https://a.b/c order 5 ^JD"


def test_the_champion_reads_what_it_was_judged_with(rivals, tmp_path):
    challenger, champion = rivals
    judged = champion(replace(SERVING, reading=Reading(("mentions",))))
    found = champion_candidate(judged, challenger, RAW, STORAGE, tmp_path / "cache")
    assert found.wish.reading == Reading(("mentions",))
    (conversation,) = found.conversations
    assert conversation.turns[0].text == "  see https://a.b/c order 5 ^JD"
