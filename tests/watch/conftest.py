"""A real night, of whose manifest others are made."""

import json

import pytest

from job.config.commands import SummarizeConfig
from job.storage.folders import Manifest
from job.summarization.summarize import summarize
from tests.stand_in import NO_WEIGHTS, StandInEngine, stand_in


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """A real night: its folder, and its manifest."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "model.safetensors").write_bytes(NO_WEIGHTS)
    turns = [{"role": "customer", "text": "My parcel 4711 is late."}]
    lines = [json.dumps({"id": f"c{number}", "turns": turns}) for number in range(20)]
    (folder / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    night_of(folder, "2026-01-01", folder / "in.jsonl")
    path = folder / "nights" / "dt=2026-01-01" / "manifest.json"
    return folder / "nights", Manifest.from_json(path.read_bytes(), "real")


def night_of(folder, date, source, **keys):
    """Summarize a file as the night of this date below `folder`, whose base it has."""
    content = {
        "run": "night",
        "input": str(source),
        "output": str(folder / "nights" / f"dt={date}"),
        "model": {"base": str(folder / "base")},
    }
    summarize(SummarizeConfig.model_validate(content | keys), stand_in(StandInEngine()))
