"""Claims about the recipes of examples/ as runs: on a CPU, with another base and no more."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config.load import load_config, resolved_yaml
from job.errors import ExitCode
from job.storage.config_file import read_config
from job.storage.open import open_store
from tests.training.conftest import records

CLASSIC = Path(__file__).parents[2] / "examples" / "tweetsumm-llama2-7b.yaml"


def dialogs(count: int, first: int = 0) -> dict[str, Any]:
    """Return conversations as DialogStudio publishes TweetSumm."""
    made = {}
    for record in records(count, first):
        said = [turn["text"] for turn in record["turns"]]
        made[f"TweetSumm--train--{record['id']}"] = {
            "log": [
                {
                    "turn id": 1,
                    "user utterance": f"@Shop {said[0]}",
                    "system response": f"{said[1]} ^JI",
                },
                {"turn id": 2, "user utterance": said[2], "system response": ""},
            ],
            "original dialog info": {
                "summaries": {
                    "abstractive_summaries": [[summary] for summary in record["summaries"]]
                }
            },
        }
    return made


@pytest.mark.quality
@pytest.mark.usefixtures("places")
def test_the_classic_recipe_runs_here_by_another_base_alone(s3, base_folder, trials):
    s3.client().create_bucket(Bucket="my-bucket")  # which the recipe names
    store = open_store("s3://my-bucket")
    store.write("data/tweetsumm/train.json", json.dumps(dialogs(20)).encode())
    store.write("data/tweetsumm/val.json", json.dumps(dialogs(4, first=100)).encode())
    config = load_config("train", read_config(str(CLASSIC)), [f"model.base={base_folder}"])
    code, log = trials.run(yaml.safe_load(resolved_yaml(config)))
    assert code == ExitCode.DONE, log
    run = "runs/tweetsumm-llama2-7b"
    journal = json.loads(store.read(f"{run}/run.json"))
    rows = journal["facts"]["data"]["train"]
    assert (rows["conversations"], rows["turns"], rows["rows"]) == (20, 60, 20), (
        "one reference each, no turn lost"
    )
    assert journal["attempts"][-1]["last_step"] == 4, "two epochs of 20 rows, 16 a step"
    prompt = json.loads(store.read(f"{run}/adapter/prompt.json"))
    assert prompt["before"].startswith(
        "### Instruction: Below is a conversation between a human and an AI agent."
    )
    assert prompt["cleaning"] == ["links", "mentions", "signatures", "html_entities", "whitespace"]
    adapter = json.loads(store.read(f"{run}/adapter/adapter_config.json"))
    assert (adapter["r"], adapter["lora_alpha"], sorted(adapter["target_modules"])) == (
        16,
        32,
        ["q_proj", "v_proj"],
    )
